"""What people write: accepted exactly, refused by file, document and field."""

from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    ip_network,
)
from typing import Any

import pytest
import yaml

from pycni.errors import InvalidInput
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    Handle,
    IPAMConfig,
    IPPool,
    IPReservation,
    Node,
    PoolUse,
    Resource,
    TunnelMode,
)
from pycni.model.resources_bgp import BGPConfiguration, BGPPeer, LogSeverity, PrefixAdvertisement
from pycni.model.schema_config import Config
from pycni.model.schema_fields import check_password
from pycni.model.schema_rules import merged, mistakes_of
from pycni.model.schema_yaml import Manifest, parse_document, parse_manifests, to_document
from pycni.model.service_ranges import ServiceRanges

POOL = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default-ipv4-ippool, uid: x, creationTimestamp: null}
spec:
  cidr: 192.168.0.0/16
  ipipMode: CrossSubnet
  natOutgoing: true
"""
MESH = """
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata:
  name: default
spec:
  asNumber: 64513
"""


def document(kind: str, *, name: object = "x", **spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def test_a_file_of_several_documents_is_read_in_order() -> None:
    pool, mesh = parse_manifests(f"---{POOL}---\n---{MESH}", source="net.yaml")

    assert pool.value == IPPool(
        "default-ipv4-ippool",
        IPv4Network("192.168.0.0/16"),
        ipip_mode=TunnelMode.CROSS_SUBNET,
        nat_outgoing=True,
    )
    assert mesh == Manifest(BGPConfiguration(as_number=64513), "net.yaml, document 3")


def test_a_list_is_read_item_by_item() -> None:
    items = yaml.safe_dump({"kind": "List", "items": [yaml.safe_load(POOL), yaml.safe_load(MESH)]})

    assert [one.where for one in parse_manifests(items, source="f")] == [
        "f, document 1, items[0]",
        "f, document 1, items[1]",
    ]


def test_all_mistakes_of_a_file_come_at_once() -> None:
    text = "\n---\n".join(
        [POOL, POOL.replace("cidr: 192.168.0.0/16", "cidr: 192.168.0.1/16"), MESH, MESH]
    )

    with pytest.raises(InvalidInput) as caught:
        parse_manifests(text, source="f")

    first, second = str(caught.value).splitlines()
    assert first.startswith("f, document 2: spec.cidr: '192.168.0.1/16' is no CIDR")
    assert second == "f, document 4: BGPConfiguration default stands in f, document 3 already"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "a: [",
            "cannot read f: line 1, column 5: expected the node content, but found '<stream end>'$",
        ),
        ("a: 1\na: 2", "the key 'a' is given twice"),
        ("1: 2", "the key 1 is no string"),
        ("[" * 5000, "cannot read f: "),
        ("!!python/object:os.system {}", "could not determine a constructor"),
        ("just text", "f, document 1: document: must be a mapping"),
        ("a: 2026-99-99", "f: "),
    ],
)
def test_broken_yaml_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_manifests(text, source="f")


ACCEPTED: list[tuple[dict[str, Any], Config]] = [
    (
        document("IPPool", cidr="fd00::/48", blockSize=124, allowedUses=["Tunnel"], disabled=True),
        IPPool(
            "x",
            # mypy can't know the family of a literal.
            IPv6Interface("fd00::/48").network,
            block_size=124,
            allowed_uses=frozenset({PoolUse.TUNNEL}),
            is_disabled=True,
        ),
    ),
    (
        document("IPPool", cidr="fd00::/48", nodeSelector="", disableBGPExport=True),
        IPPool("x", IPv6Interface("fd00::/48").network, block_size=122, disable_bgp_export=True),
    ),
    (
        document("IPReservation", reservedCIDRs=["10.0.0.0/30", "fd00::1"]),
        IPReservation("x", (ip_network("10.0.0.0/30"), ip_network("fd00::1/128"))),
    ),
    (
        document("BGPPeer", peerIP="10.0.0.1", asNumber="65000"),
        BGPPeer("x", IPv4Address("10.0.0.1"), 65000),
    ),
    (
        document("BGPPeer", peerIP="10.0.0.1:1790", asNumber="1.1", node="n", password="a+B/c=1"),  # noqa: S106 - sample data.
        BGPPeer("x", IPv4Address("10.0.0.1"), 65537, node="n", port=1790, password="a+B/c=1"),  # noqa: S106
    ),
    (
        document("BGPPeer", peerIP="fd00::1", asNumber=4294967295),
        BGPPeer("x", IPv6Address("fd00::1"), 4294967295),
    ),
    (
        document("BGPPeer", peerIP="[fd00::1]:1790", asNumber=1),
        BGPPeer("x", IPv6Address("fd00::1"), 1, port=1790),
    ),
    (
        document("BGPPeer", peerIP="[fd00::1]", asNumber=1),
        BGPPeer("x", IPv6Address("fd00::1"), 1),
    ),
    (
        document(
            "BGPPeer",
            nodeSelector="rack == 'a'",
            peerSelector="has(reflects)",
            localASNumber=65001,
            maxRestartTime="1m30s",
            numAllowedLocalASNumbers=2,
            keepOriginalNextHop=True,
        ),
        BGPPeer(
            "x",
            node_selector="rack == 'a'",
            peer_selector="has(reflects)",
            local_as=65001,
            restart_time_s=90,
            allowed_own_as=2,
        ),
    ),
    (
        document("BGPPeer", peerIP="fd00::1", asNumber=1, maxRestartTime="0s", nextHopMode="Self"),
        BGPPeer("x", IPv6Address("fd00::1"), 1, restart_time_s=0),
    ),
    (
        document("BGPPeer", peerIP="fd00::1", asNumber=1, ttlSecurity=0),
        BGPPeer("x", IPv6Address("fd00::1"), 1),
    ),
    (
        document("BGPPeer", peerIP="fd00::1", asNumber=1, ttlSecurity=2),
        BGPPeer("x", IPv6Address("fd00::1"), 1, hops=2),
    ),
    (
        document("BGPPeer", peerIP="fd00::1", asNumber=1, filters=["a", "b.c"]),
        BGPPeer("x", IPv6Address("fd00::1"), 1, filters=("a", "b.c")),
    ),
    (
        document("BGPPeer", peerIP="fd00::1", asNumber=1, reversePeering="Auto"),
        BGPPeer("x", IPv6Address("fd00::1"), 1),
    ),
    (
        document("BGPPeer", peerIP="10.0.0.1:179", asNumber=1, reversePeering="Manual"),
        BGPPeer("x", IPv4Address("10.0.0.1"), 1, port=179, is_called_back=False),
    ),
    (
        document("BGPPeer", peerIP="fd00::1", asNumber=1, sourceAddress="UseNodeIP"),
        BGPPeer("x", IPv6Address("fd00::1"), 1),
    ),
    (
        document("Node", bgp={"routeReflectorClusterID": "10.0.0.9"}),
        Node("x", reflector_cluster_id=IPv4Address("10.0.0.9")),
    ),
    (
        document(
            "Node",
            bgp={
                "ipv4Address": "10.10.7.20/20",
                "ipv6Address": "fd00::1/64",
                "asNumber": 65001,
                "ipv4IPIPTunnelAddr": "192.168.0.1",
            },
        ),
        Node(
            "x",
            IPv4Interface("10.10.7.20/20"),
            IPv6Interface("fd00::1/64"),
            65001,
            IPv4Address("192.168.0.1"),
        ),
    ),
    (document("Node"), Node("x")),
    (
        document("IPAMConfiguration", name="default", strictAffinity=True, maxBlocksPerHost=4),
        IPAMConfig(is_strict_affinity=True, max_blocks_per_host=4),
    ),
    (document("IPAMConfig", name="default"), IPAMConfig()),
    (
        document("BGPConfiguration", name="default", listenPort=1, nodeToNodeMeshEnabled=False),
        BGPConfiguration(listen_port=1, is_node_mesh_enabled=False),
    ),
    (
        document(
            "BGPConfiguration",
            name="default",
            bindMode="NodeIP",
            logSeverityScreen="Info",
            serviceLoadBalancerAggregation="Enabled",
        ),
        BGPConfiguration(log_severity=LogSeverity.INFO),
    ),
    (
        document(
            "BGPConfiguration",
            name="default",
            serviceClusterIPs=[{"cidr": "10.96.0.0/12"}, {"cidr": "fd00:96::/112"}],
            serviceExternalIPs=[{"cidr": "203.0.113.7"}, {"cidr": "203.0.113.7/32"}],
            serviceLoadBalancerIPs=[{"cidr": "198.51.100.0/24"}, {}],
            serviceLoadBalancerAggregation="Disabled",
        ),
        BGPConfiguration(
            services=ServiceRanges(
                cluster=(ip_network("10.96.0.0/12"), ip_network("fd00:96::/112")),
                external=(ip_network("203.0.113.7/32"),),
                load_balancer=(ip_network("198.51.100.0/24"),),
                is_aggregating=False,
            )
        ),
    ),
    (
        document(
            "BGPConfiguration",
            name="default",
            nodeMeshPassword="a+B/c=1",
            nodeMeshMaxRestartTime="2m30s",
        ),
        BGPConfiguration(mesh_password="a+B/c=1", mesh_restart_time_s=150),  # noqa: S106
    ),
    (
        document(
            "BGPConfiguration",
            name="default",
            communities=[{"name": "Mine_1", "value": "100:06532"}],
            prefixAdvertisements=[
                {"cidr": "10.0.0.0/8", "communities": ["Mine_1", "100:555:107"]},
                {"cidr": "fd00::/8", "communities": ["1:2"]},
            ],
        ),
        BGPConfiguration(
            communities=(("Mine_1", "100:6532"),),
            prefix_advertisements=(
                PrefixAdvertisement(ip_network("10.0.0.0/8"), ("Mine_1", "100:555:107")),
                PrefixAdvertisement(ip_network("fd00::/8"), ("1:2",)),
            ),
        ),
    ),
]


@pytest.mark.parametrize(("text", "value"), ACCEPTED)
def test_what_is_written_becomes_this_value(text: dict[str, Any], value: Config) -> None:
    assert parse_document(text) == value


@pytest.mark.parametrize("value", [value for _, value in ACCEPTED])
def test_what_is_shown_can_be_applied_again(value: Config) -> None:
    shown = to_document(value)

    hidden = {"password", "nodeMeshPassword"} & shown["spec"].keys()
    if hidden:
        assert {shown["spec"][name] for name in hidden} == {"********"}
        with pytest.raises(InvalidInput, match=r"stars stand for a hidden password"):
            parse_document(shown)
    else:
        assert parse_document(shown) == value


def test_labels_of_a_node_are_kept() -> None:
    node = Node("x", labels=(("a", "1"), ("b", "")))

    assert to_document(node)["metadata"]["labels"] == {"a": "1", "b": ""}
    assert parse_document(to_document(node)) == node


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Block(IPv4Network("10.0.0.0/32"), None, (None,), (0,), (), 1, (None,)), "IPAMBlock"),
        (Handle("h"), "IPAMHandle"),
        (
            BlockAffinity("n", IPv4Network("10.0.0.0/32"), AffinityState.PENDING),
            "BlockAffinity",
        ),
    ],
)
def test_what_is_only_shown_looks_alike(value: Resource, kind: str) -> None:
    shown = to_document(value)

    assert (shown["apiVersion"], shown["kind"]) == ("projectcalico.org/v3", kind)


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
            r"spec.password: references to secrets \(secretKeyRef\) are not supported",
        ),
        (document("Node", bgp={"ipv4Address": "fd00::1/64"}), "is no IPv4 address"),
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
            r"spec.nodeMeshPassword: references to secrets \(secretKeyRef\) are not supported",
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


# --- rules between objects ----------------------------------------------------------------------


def pool(name: str, cidr: str, **fields: Any) -> IPPool:  # noqa: ANN401 - any field.
    return IPPool(name, IPv4Network(cidr), **fields)


def node(name: str, address: str) -> Node:
    return Node(name, IPv4Interface(address))


@pytest.mark.parametrize(
    ("new", "existing", "words"),
    [
        (pool("a", "10.0.0.0/16"), [pool("b", "10.0.128.0/17")], "overlaps pool b"),
        (pool("a", "10.10.0.0/16"), [node("n", "10.10.7.20/20")], "overlaps the subnet 10.10.0.0"),
        (pool("a", "169.254.0.0/17"), [], "overlaps 169.254.0.0/16"),
        (node("n", "10.10.7.20/20"), [pool("b", "10.0.0.0/8")], "of node n overlaps pool b"),
        (pool("a", "10.0.0.0/16"), [pool("a", "10.1.0.0/16")], "spec.cidr: cannot be changed"),
        (
            pool("a", "10.0.0.0/16"),
            [pool("a", "10.0.0.0/16", block_size=28)],
            "spec.blockSize: cannot be changed from 28 to 26",
        ),
    ],
)
def test_objects_that_do_not_fit_are_refused(
    new: Config, existing: list[Config], words: str
) -> None:
    (mistake,) = mistakes_of([Manifest(new, "f, document 1")], existing=existing)

    assert mistake.startswith("f, document 1: ")
    assert words in mistake


def test_objects_of_one_file_are_compared_too() -> None:
    manifests = [Manifest(pool("a", "10.0.0.0/16"), "f1"), Manifest(pool("b", "10.0.0.0/8"), "f2")]

    assert len(mistakes_of(manifests, existing=[])) == 2


def test_what_fits_is_fine() -> None:
    manifests = [
        Manifest(pool("a", "10.0.0.0/16", nat_outgoing=True), "f1"),
        Manifest(node("n", "10.10.7.20/20"), "f2"),
        Manifest(Node("bare"), "f3"),
        Manifest(BGPConfiguration(), "f4"),
    ]

    assert mistakes_of(manifests, existing=[pool("a", "10.0.0.0/16")]) == []


def test_applying_a_node_keeps_its_tunnel_address() -> None:
    existing = Node("n", ipip_tunnel_address=IPv4Address("192.168.0.1"))

    assert merged(Node("n", as_number=5), existing=existing) == Node(
        "n", as_number=5, ipip_tunnel_address=IPv4Address("192.168.0.1")
    )
    assert merged(pool("a", "10.0.0.0/16"), existing=None) == pool("a", "10.0.0.0/16")


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
