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
from pycni.model.resources_bgp import (
    BGPConfiguration,
    BGPPeer,
    LogSeverity,
    PrefixAdvertisement,
    SecretKey,
)
from pycni.model.schema_config import Config
from pycni.model.schema_yaml import Manifest, parse_document, parse_manifests, to_document
from pycni.model.service_ranges import ServiceRanges
from tests.unit.model.written import document

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


IN_SECRET = {"secretKeyRef": {"name": "bgp-passwords", "key": "tor"}}
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
        document("BGPPeer", peerIP="10.0.0.1", asNumber=1, password=IN_SECRET),
        BGPPeer("x", IPv4Address("10.0.0.1"), 1, password=SecretKey("bgp-passwords", "tor")),
    ),
    (
        document(
            "BGPConfiguration",
            name="default",
            nodeMeshPassword={"secretKeyRef": IN_SECRET["secretKeyRef"] | {"optional": False}},
        ),
        BGPConfiguration(mesh_password=SecretKey("bgp-passwords", "tor")),
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

    passwords = {"password", "nodeMeshPassword"} & shown["spec"].keys()
    hidden = {name for name in passwords if isinstance(shown["spec"][name], str)}
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
