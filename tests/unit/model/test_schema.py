"""What is stored: Calico's documents, to the letter, and refusal of everything else."""

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network
from typing import Any

import pytest

from pycni.errors import DatastoreUnusable, InvalidInput
from pycni.model import schema
from pycni.model.resources import (
    AffinityState,
    AllocationAttribute,
    Block,
    BlockAffinity,
    Handle,
    IPAMConfig,
    IPPool,
    Node,
    Resource,
    resource_name,
)
from pycni.model.resources_bgp import BGPPeer
from pycni.model.schema_config import node_annotations
from pycni.model.service_ranges import LOAD_BALANCER

V4 = IPv4Network("192.168.39.192/30")
BLOCK = Block(
    V4,
    "node-0",
    allocations=(0, None, 1, None),
    unallocated=(1, 3),
    attributes=(
        AllocationAttribute(
            "ipip-tunnel-addr-node-0", (("node", "node-0"), ("type", "ipipTunnelAddress"))
        ),
        AllocationAttribute("k8s-pod-network.abc", (("namespace", "default"), ("pod", "nginx"))),
    ),
    sequence_number=1700000000000000002,
    sequence_numbers=(1700000000000000000, None, 1700000000000000001, None),
)
BLOCK_DOCUMENT = {
    "apiVersion": "crd.projectcalico.org/v1",
    "kind": "IPAMBlock",
    "metadata": {"name": "192-168-39-192-30"},
    "spec": {
        "cidr": "192.168.39.192/30",
        "affinity": "host:node-0",
        "strictAffinity": False,
        "deleted": False,
        "allocations": [0, None, 1, None],
        "unallocated": [1, 3],
        "attributes": [
            {
                "handle_id": "ipip-tunnel-addr-node-0",
                "secondary": {"node": "node-0", "type": "ipipTunnelAddress"},
            },
            {
                "handle_id": "k8s-pod-network.abc",
                "secondary": {"namespace": "default", "pod": "nginx"},
            },
        ],
        "sequenceNumber": 1700000000000000002,
        "sequenceNumberForAllocation": {"0": 1700000000000000000, "2": 1700000000000000001},
    },
}
AFFINITY = BlockAffinity("node-0", IPv4Network("192.168.39.192/26"), AffinityState.CONFIRMED)
AFFINITY_DOCUMENT = {
    "apiVersion": "crd.projectcalico.org/v1",
    "kind": "BlockAffinity",
    "metadata": {
        "name": "node-0-192-168-39-192-26",
        "labels": {
            "projectcalico.org/hostname-hash": (
                "SGWB6YWABUSNFPFRM7CZD2XU3T5P2F6DNTULOHS3NX7DUIB4C6UQ"
            ),
            "projectcalico.org/affinity-type": "host",
            "projectcalico.org/ip-version": "4",
        },
    },
    "spec": {
        "node": "node-0",
        "cidr": "192.168.39.192/26",
        "state": "confirmed",
        "type": "host",
        "deleted": "false",
    },
}
HANDLE_DOCUMENT = {
    "apiVersion": "crd.projectcalico.org/v1",
    "kind": "IPAMHandle",
    "metadata": {"name": "k8s-pod-network.abc"},
    "spec": {
        "handleID": "k8s-pod-network.ABC",
        "block": {"192.168.39.192/30": 1, "fd00::/126": 2},
        "deleted": False,
    },
}
NODE_DOCUMENT = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": "node-0",
        "labels": {"rack": "1"},
        "annotations": {
            "projectcalico.org/IPv4Address": "10.10.7.20/20",
            "projectcalico.org/ASNumber": "64513",
            "projectcalico.org/IPv4IPIPTunnelAddr": "192.168.39.192",
        },
    },
}
POOL_DOCUMENT = {
    "apiVersion": "crd.projectcalico.org/v1",
    "kind": "IPPool",
    "metadata": {"name": "default-ipv4-ippool"},
    "spec": {
        "cidr": "192.168.0.0/16",
        "blockSize": 26,
        "ipipMode": "Never",
        "vxlanMode": "Never",
        "natOutgoing": True,
        "nodeSelector": "all()",
        "allowedUses": ["Workload", "Tunnel"],
        "assignmentMode": "Automatic",
    },
}


@pytest.mark.parametrize(
    ("value", "document"),
    [
        (BLOCK, BLOCK_DOCUMENT),
        (AFFINITY, AFFINITY_DOCUMENT),
        (
            Handle("k8s-pod-network.ABC", ((V4, 1), (IPv6Network("fd00::/126"), 2))),
            HANDLE_DOCUMENT,
        ),
        (
            Node(
                "node-0",
                IPv4Interface("10.10.7.20/20"),
                as_number=64513,
                ipip_tunnel_address=IPv4Address("192.168.39.192"),
                labels=(("rack", "1"),),
            ),
            NODE_DOCUMENT,
        ),
        (
            IPPool("default-ipv4-ippool", IPv4Network("192.168.0.0/16"), nat_outgoing=True),
            POOL_DOCUMENT,
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, dict) else "",
)
def test_documents_are_those_of_calico(value: Resource, document: dict[str, Any]) -> None:
    text = schema.encode(value)

    assert json.loads(text) == document
    assert schema.decode(type(value), text, name=resource_name(value)) == value


def test_a_node_has_the_first_internal_ip_of_each_version() -> None:
    addresses = [
        {"type": "Hostname", "address": "node-0"},
        {"type": "ExternalIP", "address": "192.0.2.1"},
        {"type": "InternalIP", "address": "fd00:10::20"},
        {"type": "InternalIP", "address": "node-0.example"},
        {"type": "InternalIP"},
        "nonsense",
        {"type": "InternalIP", "address": "10.10.7.20"},
        {"type": "InternalIP", "address": "10.10.7.21"},
    ]

    node = schema.from_stored(Node, {**NODE_DOCUMENT, "status": {"addresses": addresses}})

    assert [str(one) for one in node.internal_ips] == ["10.10.7.20", "fd00:10::20"]
    assert "status" not in schema.to_stored(node)


@pytest.mark.parametrize("status", [None, {}, {"addresses": None}, {"addresses": "nonsense"}])
def test_a_node_whose_kubelet_has_said_nothing_has_no_internal_ip(status: object) -> None:
    assert schema.from_stored(Node, {**NODE_DOCUMENT, "status": status}).internal_ips == ()


def test_a_block_as_an_older_calico_wrote_it_is_read() -> None:
    document = json.loads(json.dumps(BLOCK_DOCUMENT))
    for field in ("affinity", "deleted", "sequenceNumber", "sequenceNumberForAllocation"):
        del document["spec"][field]
    document["spec"]["attributes"] = [{"handle_id": None, "secondary": None}, {}]

    block = schema.from_stored(Block, document)

    assert (block.affinity, block.sequence_number, block.is_deleted) == (None, 0, False)
    assert block.sequence_numbers == (None,) * 4
    assert block.attributes == (AllocationAttribute(None), AllocationAttribute(None))


ANNOTATION = "projectcalico.org/"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("IPv4Address", "somewhere"),
        ("IPv4Address", "fd00::1/64"),
        ("IPv6Address", "10.10.7.20/20"),
        ("ASNumber", "none"),
        ("IPv4IPIPTunnelAddr", "10.0.0.256"),
        ("RouteReflectorClusterID", "fd00::1"),
        ("RouteReflectorClusterID", "1.0.0.1\n"),
    ],
)
def test_an_annotation_that_says_nothing_that_can_be_is_named_and_left_out(
    name: str, text: str
) -> None:
    said = {f"{ANNOTATION}ASNumber": "65001", f"{ANNOTATION}IPv4Address": "10.10.7.20/20"}
    metadata = {"name": "node-0", "annotations": said | {ANNOTATION + name: text}}

    node = schema.from_stored(Node, {"metadata": metadata})

    other = {k: v for k, v in said.items() if k != ANNOTATION + name}
    assert node.unread == (ANNOTATION + name,)
    # Nothing is written to it, so that whoever wrote it finds it to correct.
    written = node_annotations(node)
    assert ANNOTATION + name not in written
    assert {k: v for k, v in written.items() if v is not None} == other


def test_an_annotation_that_can_not_be_read_is_replaced_by_a_value() -> None:
    metadata = {"name": "node-0", "annotations": {f"{ANNOTATION}IPv4IPIPTunnelAddr": "nowhere"}}
    node = schema.from_stored(Node, {"metadata": metadata})

    written = node_annotations(replace(node, ipip_tunnel_address=IPv4Address("192.168.0.1")))

    assert written[f"{ANNOTATION}IPv4IPIPTunnelAddr"] == "192.168.0.1"


@pytest.mark.parametrize("kind", [Block, Handle, BlockAffinity])
def test_a_document_marked_deleted_says_so(kind: type[Resource]) -> None:
    document = {
        Block: BLOCK_DOCUMENT,
        Handle: HANDLE_DOCUMENT,
        BlockAffinity: AFFINITY_DOCUMENT,
    }[kind]
    marked = json.loads(json.dumps(document))
    marked["spec"]["deleted"] = "true" if kind is BlockAffinity else True

    value = schema.from_stored(kind, marked)

    assert isinstance(value, Block | Handle | BlockAffinity)
    assert value.is_deleted
    assert json.loads(schema.encode(value)) == marked


@pytest.mark.parametrize("said", [{}, {"state": ""}, {"state": None}])
def test_an_affinity_that_says_nothing_of_its_state_is_confirmed(said: dict[str, Any]) -> None:
    document = json.loads(json.dumps(AFFINITY_DOCUMENT))
    del document["spec"]["state"]

    value = schema.from_stored(BlockAffinity, document | {"spec": document["spec"] | said})

    assert value.state is AffinityState.CONFIRMED


@pytest.mark.parametrize(
    ("kind", "document", "change", "words"),
    [
        (Block, BLOCK_DOCUMENT, {"affinityClaimTime": 1}, "spec.affinityClaimTime: unknown"),
        (Block, BLOCK_DOCUMENT, {"affinity": "virtual:lb"}, "spec.affinity: 'virtual:lb'"),
        (Block, BLOCK_DOCUMENT, {"cidr": "10.0.0.0/8"}, "spec.cidr: 10.0.0.0/8 is too large"),
        (Block, BLOCK_DOCUMENT, {"cidr": "10.0.0.0/33"}, "does not appear"),
        (Block, BLOCK_DOCUMENT, {"allocations": 7}, "TypeError"),
        (Block, BLOCK_DOCUMENT, {"attributes": [{"handle_id": 1}]}, "handle_id: 1 has no place"),
        (Block, BLOCK_DOCUMENT, {"attributes": [{"secondary": {"a": 1}}]}, "secondary: 1 has no"),
        (Block, BLOCK_DOCUMENT, {"attributes": [{"owner": 1}]}, "unknown field in"),
        (Block, BLOCK_DOCUMENT, {"attributes": [{"releasedAt": 1}]}, "1 is no point in time"),
        (Block, BLOCK_DOCUMENT, {"sequenceNumber": "1"}, "spec.sequenceNumber: '1'"),
        (Block, BLOCK_DOCUMENT, {"sequenceNumberForAllocation": {"9": 1}}, "IndexError"),
        (Block, BLOCK_DOCUMENT, {"cidr": "10.0.0.0/30"}, "it describes 10-0-0-0-30"),
        (Handle, HANDLE_DOCUMENT, {"more": 1}, "spec.more: unknown field"),
        (Handle, HANDLE_DOCUMENT, {"block": {"10.0.0.0/30": "x"}}, "'x' is no whole number"),
        (BlockAffinity, AFFINITY_DOCUMENT, {"type": "virtual"}, "spec.type: 'virtual'"),
        (BlockAffinity, AFFINITY_DOCUMENT, {"type": "other"}, "spec.type: 'other'"),
        (BlockAffinity, AFFINITY_DOCUMENT, {"state": "maybe"}, "spec.state: 'maybe' is none of"),
        (IPPool, POOL_DOCUMENT, {"color": "red"}, "spec.color: unknown or unsupported"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(
    kind: type[Resource], document: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    text = json.dumps(document | {"spec": document["spec"] | change})

    with pytest.raises(DatastoreUnusable, match=words) as caught:
        schema.decode(kind, text, name=document["metadata"]["name"])

    is_configured = kind is IPPool
    step = "edit or delete that object" if is_configured else "restore the datastore from a backup"
    assert f"; {step}, or use the version of pycni that wrote it" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"metadata": {"name": 5}, "spec": {}}'])
def test_text_that_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(DatastoreUnusable, match="cannot read the stored IPAMConfig x"):
        schema.decode(IPAMConfig, text, name="x")


def test_only_known_kinds_are_stored() -> None:
    document = {"metadata": {"name": "default"}, "spec": {}}

    with pytest.raises(InvalidInput, match="int is none that is stored"):
        schema.from_stored(int, document)  # type: ignore[type-var]


def test_a_peer_keeps_its_password_in_the_store() -> None:
    peer = BGPPeer("p", IPv4Address("10.0.0.1"), 65000, password="s3cret")  # noqa: S106 - sample data.

    assert schema.decode(BGPPeer, schema.encode(peer), name="p") == peer


def test_blocks_of_load_balancers_are_calicos() -> None:
    block = json.loads(json.dumps(BLOCK_DOCUMENT))
    block["spec"]["affinity"] = LOAD_BALANCER
    made = schema.from_stored(Block, block)
    affinity = BlockAffinity(LOAD_BALANCER, made.cidr, AffinityState.CONFIRMED)

    document = schema.to_stored(affinity)

    assert made.affinity == LOAD_BALANCER
    assert json.loads(schema.encode(made)) == block
    assert document["metadata"]["name"].startswith("load-balancer-")
    assert document["metadata"]["labels"]["projectcalico.org/affinity-type"] == "virtual"
    assert (document["spec"]["node"], document["spec"]["type"]) == ("load-balancer", "virtual")
    assert schema.from_stored(BlockAffinity, document) == affinity
