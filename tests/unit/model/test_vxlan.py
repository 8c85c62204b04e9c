"""VXLAN in the schemas, and what pools and nodes say of their tunnels."""

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest

from pycni.errors import InvalidInput
from pycni.model import schema
from pycni.model.network import IPAddress
from pycni.model.resources import IPPool, Node, TunnelMode
from pycni.model.schema_rules import merged
from pycni.model.schema_yaml import parse_document, to_document
from pycni.model.tunnels import TunnelKind, address_in, tunnel_mode, tunnel_of, with_address
from pycni.model.vxlan import VxlanEnd, parse_mac, usual_mac

NODE = Node(
    "node-0",
    vxlan=VxlanEnd(IPv4Address("192.168.39.192"), "66:00:00:00:00:01"),
    vxlan6=VxlanEnd(IPv6Address("fd10::40"), "66:00:00:00:00:02"),
)


def test_a_node_is_stored_with_calicos_annotations() -> None:
    text = schema.encode(NODE)

    assert json.loads(text)["metadata"]["annotations"] == {
        "projectcalico.org/IPv4VXLANTunnelAddr": "192.168.39.192",
        "projectcalico.org/VXLANTunnelMACAddr": "66:00:00:00:00:01",
        "projectcalico.org/IPv6VXLANTunnelAddr": "fd10::40",
        "projectcalico.org/VXLANTunnelMACAddrV6": "66:00:00:00:00:02",
    }
    assert schema.decode(Node, text, name="node-0") == NODE


def test_a_node_is_written_with_calicos_fields() -> None:
    document = to_document(NODE)

    assert document["spec"] == {
        "ipv4VXLANTunnelAddr": "192.168.39.192",
        "vxlanTunnelMACAddr": "66:00:00:00:00:01",
        "ipv6VXLANTunnelAddr": "fd10::40",
        "vxlanTunnelMACAddrV6": "66:00:00:00:00:02",
    }
    assert parse_document(document) == NODE


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("ipv4VXLANTunnelAddr", "fd10::40"),
        ("ipv6VXLANTunnelAddr", "192.168.39.192"),
        ("vxlanTunnelMACAddr", "66:00:00:00:00"),
        ("vxlanTunnelMACAddrV6", "01:00:5e:00:00:01"),
    ],
)
def test_what_can_be_no_end_of_a_tunnel_is_refused(field: str, text: str) -> None:
    document: dict[str, Any] = to_document(Node("node-0"))

    with pytest.raises(InvalidInput, match=f"^spec.{field}: "):
        parse_document(document | {"spec": {field: text}})


def test_applying_a_node_keeps_its_ends_of_tunnels() -> None:
    applied = Node("node-0", as_number=5)

    kept = merged(applied, existing=NODE)

    assert kept == replace(
        applied,
        vxlan=VxlanEnd(IPv4Address("192.168.39.192")),
        vxlan6=VxlanEnd(IPv6Address("fd10::40")),
    )


@pytest.mark.parametrize(
    ("node", "version", "mac"),
    [
        # printf NAME | sha1sum, and printf NAME-v6 | sha1sum
        ("node-0", 4, "66:fa:5e:1a:4d:f3"),
        ("node-0", 6, "66:94:0a:84:7f:1d"),
    ],
)
def test_the_usual_mac_follows_from_the_nodes_name(node: str, version: int, mac: str) -> None:
    assert usual_mac(node, version=version) == mac


def test_a_mac_is_read_in_either_case() -> None:
    assert parse_mac("66:FA:5e:1A:4d:f3", path="x") == "66:fa:5e:1a:4d:f3"


@pytest.mark.parametrize("text", ["", "66", "66:fa:5e:1a:4d:fg", "00:00:00:00:00:00"])
def test_what_is_no_mac_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="no MAC address"):
        parse_mac(text, path="x")


@pytest.mark.parametrize(
    ("pool", "kind"),
    [
        (IPPool("p", ip_network("10.0.0.0/16")), None),
        (IPPool("p", ip_network("10.0.0.0/16"), ipip_mode=TunnelMode.ALWAYS), TunnelKind.IPIP),
        (IPPool("p", ip_network("10.0.0.0/16"), vxlan_mode=TunnelMode.ALWAYS), TunnelKind.VXLAN),
        (
            IPPool("p", ip_network("fd10::/64"), 122, vxlan_mode=TunnelMode.ALWAYS),
            TunnelKind.VXLAN_V6,
        ),
    ],
)
def test_a_pool_has_one_kind_of_tunnel_or_none(pool: IPPool, kind: TunnelKind | None) -> None:
    assert tunnel_of(pool) is kind
    assert tunnel_mode(pool) is (TunnelMode.NEVER if kind is None else TunnelMode.ALWAYS)


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        (TunnelKind.IPIP, ip_address("10.0.0.1")),
        (TunnelKind.VXLAN, ip_address("10.0.0.2")),
        (TunnelKind.VXLAN_V6, ip_address("fd10::1")),
    ],
)
def test_each_kind_has_an_address_of_its_own(kind: TunnelKind, address: IPAddress) -> None:
    node = with_address(Node("node-0"), kind, address)

    assert {one: address_in(node, one) for one in TunnelKind} == dict.fromkeys(TunnelKind) | {
        kind: address
    }
