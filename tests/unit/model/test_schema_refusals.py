"""What people write wrongly: refused with the path of the field."""

from typing import Any

import pytest

from pycni.errors import InvalidInput
from pycni.model.schema_fields import check_password
from pycni.model.schema_yaml import parse_document, parse_manifests
from tests.unit.model.written import document


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ({}, "apiVersion: is missing; write projectcalico.org/v3"),
        ({"apiVersion": ""}, "apiVersion: is missing"),
        ({"apiVersion": "v1"}, "apiVersion: 'v1' is not supported; use projectcalico.org/v3"),
        (document("Secret"), "kind: 'Secret' cannot be applied; known are BGPConfiguration,"),
        (document("IPPool", name=None), "metadata.name: is missing"),
        (document("IPPool", name=5), "metadata.name: must be a string, not 5; quote it"),
        (document("IPPool", name="A"), "metadata.name: 'A' is no valid name"),
        (document("IPPool", name="a" * 254), "is no valid name"),
        (document("IPPool", name="a\nb"), "metadata.name: .* holds control characters"),
        (document("IPPool", name='a"b'), "is no valid name"),
        (document("IPPool", name="a{b}"), "is no valid name"),
        (document("IPPool"), "spec.cidr: is missing"),
        (document("IPPool", cidr="10.0.0.0/16", blocksize=26), "spec.blocksize: unknown"),
        (document("IPPool", cidr="10.0.0.0/16", blockSize=33), "spec.blockSize: 33 is outside"),
        (document("IPPool", cidr="10.0.0.0/16", blockSize=8), "blockSize 8 is outside 20 to 32"),
        (document("IPPool", cidr="10.0.0.0/16", blockSize="26"), "must be a whole number"),
        (document("IPPool", cidr="10.0.0.0/16", blockSize=True), "must be a whole number"),
        (document("IPPool", cidr="10.0.0.0/30"), "smaller than one block"),
        (document("IPPool", cidr="10.0.0.0/16", ipipMode="always"), "none of Always, Cross"),
        (
            document("IPPool", cidr="10.0.0.0/16", vxlanMode="Always", ipipMode="Always"),
            "ipipMode and vxlanMode exclude each other",
        ),
        (document("IPPool", cidr="10.0.0.0/16", natOutgoing="yes"), "must be true or false"),
        (
            document("IPAMConfig", ipCooldownSeconds=1201) | {"metadata": {"name": "default"}},
            "spec.ipCooldownSeconds: 1201 is",
        ),
        (document("IPReservation"), "reservedCIDRs: at least one"),
        (
            document("IPReservation", reservedCIDRs=["10.0.0.1/8"]),
            r"reservedCIDRs.0.: .* is no CIDR",
        ),
        (document("IPReservation", reservedCIDRs=[7]), "is no CIDR: a text"),
        (document("IPReservation", reservedCIDRs=["fe80::1%eth0"]), "is no CIDR: a text"),
        (document("IPPool", cidr="10.0.0.0/16", nodeSelector="a ="), "nodeSelector: .*character 3"),
        (
            document(
                "IPPool",
                cidr="10.0.0.0/16",
                allowedUses=["LoadBalancer"],
                nodeSelector="rack == 'a'",
            ),
            r"nodeSelector: .*write all\(\), or leave it out, in a pool for LoadBalancer",
        ),
        (document("IPPool", cidr="10.0.0.0/16", allowedUses=["X"]), r"allowedUses\[0\]: 'X'"),
        (document("IPPool", cidr="10.0.0.0/16", allowedUses="Tunnel"), "must be a list"),
        (
            document("BGPPeer", asNumber=1),
            "spec.peerIP: is missing; name a peer, or nodes by peerSelector",
        ),
        (
            document("BGPPeer", peerIP="10.0.0.1", asNumber=1, peerSelector="all()"),
            "peer x: needs either peerIP or peerSelector",
        ),
        (
            document("BGPPeer", peerSelector="all()", asNumber=1),
            "peer x: asNumber belongs to peerIP; nodes have their own",
        ),
        (
            document("BGPPeer", peerIP="10.0.0.1", asNumber=1, node="n", nodeSelector="all()"),
            "peer x: node and nodeSelector exclude each other",
        ),
        (
            document("BGPPeer", peerSelector="rack =="),
            "spec.peerSelector: selector 'rack ==', character 8: a text in quotes is missing",
        ),
        (
            document("BGPPeer", peerIP="10.0.0.1", asNumber=1, maxRestartTime="soon"),
            "spec.maxRestartTime: 'soon' is no duration; write whole seconds: 120s",
        ),
        (
            document("BGPPeer", peerIP="10.0.0.1", asNumber=1, maxRestartTime="2h"),
            "spec.maxRestartTime: 7200 s is over 4095 s",
        ),
        (
            document("BGPPeer", peerIP="10.0.0.1", asNumber=1, nextHopMode="Other"),
            "spec.nextHopMode: 'Other' is none of Auto, Self, Keep",
        ),
        (
            document("BGPPeer", peerIP="10.0.0.1", asNumber=1, ttlSecurity=256),
            "spec.ttlSecurity: 256 is outside 0 to 255",
        ),
        (
            document("BGPPeer", peerIP="10.0.0.1", asNumber=1, sourceAddress="None"),
            "spec.sourceAddress: 'None' is not supported; write UseNodeIP, or leave it out",
        ),
        (
            document("BGPPeer", peerIP="10.0.0.1", asNumber=1, reversePeering="No"),
            "spec.reversePeering: 'No' is none of Auto, Manual",
        ),
        (
            document("BGPConfiguration", name="default", logSeverityScreen="Loud"),
            "spec.logSeverityScreen: 'Loud' is none of Trace, Debug, Info, Warning, Error, Fatal",
        ),
        (
            document("BGPConfiguration", name="default", bindMode="All"),
            "spec.bindMode: 'All' is none of NodeIP, None",
        ),
        (
            document("BGPConfiguration", name="default", serviceLoadBalancerAggregation="Some"),
            "spec.serviceLoadBalancerAggregation: 'Some' is none of Enabled, Disabled",
        ),
        (document("BGPPeer", peerIP="10.0.0.1"), "spec.asNumber: is missing"),
        (document("BGPPeer", peerIP="10.0.0.1", asNumber=0), "0 is outside 1 to 4294967295"),
        (document("BGPPeer", peerIP="10.0.0.1", asNumber="1.65536"), "is no AS number"),
        (document("BGPPeer", peerIP="10.0.0.1", asNumber="x"), "'x' is no AS number"),
        (document("BGPPeer", peerIP="10.0.0.1:0", asNumber=1), "port 0 is outside"),
        (document("BGPPeer", peerIP="host", asNumber=1), "'host' is no IP address"),
        (document("BGPPeer", peerIP="fe80::1%eth0", asNumber=1), "names an interface"),
        (
            document("BGPPeer", peerIP="10.0.0.1", asNumber=1, filters=["x", 7]),
            r"spec.filters\[1\]: must be the name of a BGPFilter, not 7",
        ),
        (
            document("BGPPeer", peerIP="10.0.0.1", asNumber=1, filters=["no/name"]),
            r"spec.filters\[0\]: 'no/name' is no valid name",
        ),
        (
            document("BGPPeer", peerIP="10.0.0.1", asNumber=1, password={"secretKeyRef": {}}),
            "spec.password.secretKeyRef.name: is missing",
        ),
        (
            document("BGPPeer", peerIP="10.0.0.1", asNumber=1, password={"text": "x"}),
            "spec.password.secretKeyRef.name: is missing",
        ),
        (
            document(
                "BGPPeer",
                peerIP="10.0.0.1",
                asNumber=1,
                password={"secretKeyRef": {"name": "a", "key": "b"}, "text": "x"},
            ),
            "spec.password.text: unknown or unsupported field",
        ),
        (
            document(
                "BGPPeer",
                peerIP="10.0.0.1",
                asNumber=1,
                password={"secretKeyRef": {"name": "a", "key": "b", "namespace": "c"}},
            ),
            "spec.password.secretKeyRef.namespace: unknown",
        ),
        (
            document(
                "BGPPeer",
                peerIP="10.0.0.1",
                asNumber=1,
                password={"secretKeyRef": {"name": "a/b", "key": "b"}},
            ),
            "spec.password.secretKeyRef.name: 'a/b' is no valid name",
        ),
        (
            document(
                "BGPPeer",
                peerIP="10.0.0.1",
                asNumber=1,
                password={"secretKeyRef": {"name": "a", "key": "b/c"}},
            ),
            "spec.password.secretKeyRef.key: 'b/c' is no key of a Secret",
        ),
        (
            document("BGPPeer", peerIp="10.0.0.1", asNumber=1),
            r"spec.peerIP: is missing; .* did you mean it by peerIp\?",
        ),
        (
            document("BGPPeer", peerIP="10.0.0.1", asNumbr=1),
            r"spec.asNumber: is missing; did you mean it by asNumbr\?",
        ),
        (
            document("BGPConfiguration", name="default", nodeToNodeMeshEnable=False),
            (
                r"spec.nodeToNodeMeshEnable: unknown or unsupported field; did you mean"
                r" nodeToNodeMeshEnabled\?"
            ),
        ),
        (document("Node", bgp={"ipv4Address": "fd00::1/64"}), "is no IPv4 address"),
        (
            document("BGPConfiguration", name="default", serviceLoadBalancerAggregation=True),
            "spec.serviceLoadBalancerAggregation: True is none of Enabled, Disabled",
        ),
        (document("Node", bgp={"ipv4Address": "10.0.0.1/99"}), "spec.bgp.ipv4Address: "),
        (document("Node", bgp={"routeReflectorClusterID": "1"}), "spec.bgp.routeReflector"),
        (
            document("Node", bgp={"routeReflectorClusterID": "fd00::1"}),
            "spec.bgp.routeReflectorClusterID: fd00::1 is no IPv4 address",
        ),
        (document("Node", bgp=[]), "spec.bgp: must be a mapping"),
        (document("BGPConfiguration"), "the name must be default"),
        (
            document("BGPConfiguration", name="default", nodeMeshPassword={"secretKeyRef": {}}),
            "spec.nodeMeshPassword.secretKeyRef.name: is missing",
        ),
        (
            document("BGPConfiguration", name="default", nodeMeshPassword="a b"),
            "spec.nodeMeshPassword: a password has",
        ),
        (
            document("BGPConfiguration", name="default", nodeMeshMaxRestartTime="2h"),
            "spec.nodeMeshMaxRestartTime: 7200 s is over 4095 s",
        ),
        *(
            (document("BGPConfiguration", name="default", **{field: [entry]}), words)
            for field, entry, words in (
                ("communities", {"name": "a b", "value": "1:2"}, r"communities\[0\].name: 'a b'"),
                ("communities", {"value": "1:2"}, r"communities\[0\].name: is missing"),
                ("communities", {"name": "a", "value": "1"}, "value: '1' is no community: write"),
                ("communities", {"name": "a", "value": "1:65536"}, "'1:65536' is no community"),
                ("communities", {"name": "a", "value": "1:2:4294967296"}, "is no community"),
                ("communities", {"name": "a", "value": "1:2", "b": 1}, "b: unknown or unsupp"),
                ("serviceClusterIPs", {"cidr": "0.0.0.0/0"}, "0.0.0.0/0 holds 127.0.0.0/8"),
                ("serviceClusterIPs", {"cidr": "128.0.0.0/1"}, "holds 169.254.0.0/16, where no"),
                ("serviceExternalIPs", {"cidr": "fe80::/64"}, "fe80::/64 holds fe80::/10"),
                ("serviceClusterIPs", {"cidr": "10.0.0.0/8", "a": 1}, r"\[0\].a: unknown or uns"),
                ("serviceExternalIPs", {"cidr": ""}, r"serviceExternalIPs\[0\].cidr: is missing"),
                ("serviceLoadBalancerIPs", {"cidr": "10.0.0.1/8"}, "has host bits set"),
                ("prefixAdvertisements", {"communities": ["1:2"]}, r"\[0\].cidr: is missing"),
                ("prefixAdvertisements", {"cidr": "1.0.0.0/8"}, r"\[0\].communities: must be a l"),
                ("prefixAdvertisements", {"cidr": "1.0.0.0/8", "communities": [1]}, "in quotes"),
                (
                    "prefixAdvertisements",
                    {"cidr": "1.0.0.0/8", "communities": ["lost"]},
                    "of 1.0.0.0/8: 'lost' is no community: .*, or a name of spec.communities",
                ),
            )
        ),
        (
            document(
                "BGPConfiguration",
                name="default",
                communities=[{"name": "a", "value": "1:2"}, {"name": "a", "value": "1:3"}],
            ),
            "spec.communities: a is there twice",
        ),
        (document("IPAMConfig", name="default", maxBlocksPerHost=-1), "-1 is outside"),
        (
            document("IPAMConfig", name="other"),
            "'other' is not supported; the name must be default",
        ),
        (
            document("IPPool", cidr="10.0.0.0/16")
            | {"metadata": {"name": "x", "annotations": {"a": "b"}}},
            "metadata.annotations: unknown",
        ),
        (document("Node") | {"status": {}}, "status: unknown"),
        (document("Node") | {"metadata": {"name": "x", "labels": []}}, "labels: must be a map"),
    ],
)
def test_mistakes_are_refused_with_the_path_of_the_field(text: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_document(text)


@pytest.mark.parametrize(
    "password",
    ['a"b', "a'b", "a{b", "a}b", "a;b", "a b", "a\nb", "a#b", "a\\b", "ä", "", "a" * 81, "a`b"],
)
def test_passwords_that_could_reach_into_a_configuration_are_refused(password: str) -> None:
    text = document("BGPPeer", peerIP="10.0.0.1", asNumber=1, password=password)

    with pytest.raises(InvalidInput, match=r"spec\.password") as caught:
        parse_document(text)

    assert len(password) < 3 or password.isprintable() is False or password not in str(caught.value)


def test_zone_in_a_cidr_is_refused() -> None:
    """Python takes anything behind a `%`, and it would reach nftables as it stands."""
    text = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: p}
spec: {cidr: "fd00::%a } ; chain x { /64", blockSize: 122}
"""

    with pytest.raises(InvalidInput, match="is no CIDR"):
        parse_manifests(text, source="f")


@pytest.mark.parametrize("bad", [" ", '"', "'", "[", "]", "{", "$", "#", ";", "`", "\\", "\n", "ä"])
def test_a_password_that_a_bgp_engine_could_misread_is_refused_and_not_repeated(bad: str) -> None:
    with pytest.raises(InvalidInput, match="a password has 1 to 80") as refused:
        check_password(f"s3cret{bad}", path="spec.password")

    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("length", [0, 81])
def test_a_password_has_a_length_that_the_kernel_takes(length: int) -> None:
    with pytest.raises(InvalidInput, match="a password has 1 to 80"):
        check_password("x" * length, path="spec.password")
