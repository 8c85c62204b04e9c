"""The tunnels that pools may ask for: one device of each kind on a node, with one address."""

from dataclasses import replace
from enum import Enum
from typing import assert_never

from pycni.model.network import IPAddress
from pycni.model.resources import IPPool, Node, TunnelMode


class TunnelKind(Enum):
    """What carries packets of a pool; the value is how Calico's handles begin."""

    IPIP = "ipip"
    VXLAN = "vxlan"
    VXLAN_V6 = "vxlan-v6"

    @property
    def version(self) -> int:
        """Return the IP version of the packets inside, and of those that carry them."""
        return 6 if self is TunnelKind.VXLAN_V6 else 4

    @property
    def is_vxlan(self) -> bool:
        """Tell whether it is VXLAN."""
        return self is not TunnelKind.IPIP


VXLAN_DEVICES = {TunnelKind.VXLAN: "vxlan.calico", TunnelKind.VXLAN_V6: "vxlan-v6.calico"}
"""The names of their devices, as Calico's."""


OVERHEADS = {TunnelKind.IPIP: 20, TunnelKind.VXLAN: 50, TunnelKind.VXLAN_V6: 70}
"""Bytes that a tunnel adds to each packet: one IPv4 header (RFC 2003), or one of IP and those of
UDP, VXLAN and Ethernet (RFC 7348)."""


def tunnel_of(pool: IPPool) -> TunnelKind | None:
    """Return the kind of tunnel that a pool's packets may take, None when they take none."""
    if pool.ipip_mode is not TunnelMode.NEVER:
        return TunnelKind.IPIP
    if pool.vxlan_mode is TunnelMode.NEVER:
        return None
    return TunnelKind.VXLAN if pool.cidr.version == 4 else TunnelKind.VXLAN_V6


def tunnel_mode(pool: IPPool) -> TunnelMode:
    """Return when a pool's packets take its tunnel."""
    return pool.ipip_mode if tunnel_of(pool) is TunnelKind.IPIP else pool.vxlan_mode


def address_in(node: Node, kind: TunnelKind) -> IPAddress | None:
    """Return a node's address inside a tunnel, None where it has none (yet)."""
    match kind:
        case TunnelKind.IPIP:
            return node.ipip_tunnel_address
        case TunnelKind.VXLAN:
            return node.vxlan.address
        case TunnelKind.VXLAN_V6:
            return node.vxlan6.address
        case _:
            assert_never(kind)


def with_address(node: Node, kind: TunnelKind, address: IPAddress | None) -> Node:
    """Return a node that has an address inside a tunnel, or none."""
    match kind:
        case TunnelKind.IPIP:
            return replace(node, ipip_tunnel_address=address)
        case TunnelKind.VXLAN:
            return replace(node, vxlan=replace(node.vxlan, address=address))
        case TunnelKind.VXLAN_V6:
            return replace(node, vxlan6=replace(node.vxlan6, address=address))
        case _:
            assert_never(kind)
