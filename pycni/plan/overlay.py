"""The tunnels' devices on a node, and the far ends of VXLAN tunnels: pure.

A VXLAN packet finds its node in three steps: a route's next hop is that node's address inside the
tunnel, a neighbour entry gives this a MAC address, a forwarding entry gives that the node's own
address.  All three follow from the Node object, and nobody is asked by broadcast.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pycni.model.linklayer import FdbEntry, LinkLayerEntry, NeighbourEntry, Vxlan
from pycni.model.network import IPAddress, Link, Tunnel
from pycni.model.resources import Node
from pycni.model.tunnels import OVERHEADS, VXLAN_DEVICES, TunnelKind, address_in
from pycni.model.vxlan import PORT, VNI, usual_mac
from pycni.plan.inputs import Inputs, Settings

IPIP_KIND, _VXLAN = "ipip", "vxlan"


@dataclass(frozen=True, slots=True)
class FarEnd:
    """Another node's end of a VXLAN tunnel; `underlay` is the node's own address."""

    node: str
    address: IPAddress
    mac: str
    underlay: IPAddress


def device_of(settings: Settings, kind: TunnelKind) -> str:
    """Return the name of the device for a kind of tunnel."""
    return VXLAN_DEVICES.get(kind, settings.tunnel_name)


def mac_of(node: Node, kind: TunnelKind) -> str:
    """Return the MAC address of a node's VXLAN device."""
    stated = node.vxlan.mac if kind is TunnelKind.VXLAN else node.vxlan6.mac
    return stated or usual_mac(node.name, version=kind.version)


def vxlan_device(inputs: Inputs, kind: TunnelKind, *, mtu: int) -> Tunnel | None:
    """Return the VXLAN device as it is to be; as it is, where this node's address is unknown."""
    name = VXLAN_DEVICES[kind]
    node, own = inputs.node, inputs.own_interface(kind.version)
    if node is not None and own is not None:
        parameters = Vxlan(VNI, PORT, own.ip)
        return Tunnel(name, _VXLAN, mtu, mac_of(node, kind), parameters)
    there = inputs.links.get(name)
    if there is None or not has_our_network(there):
        return None
    return Tunnel(name, _VXLAN, there.mtu, there.mac, there.vxlan)


def can_serve(link: Link, wanted: Tunnel) -> bool:
    """Tell whether what has a tunnel's name is ours, perhaps in need of repair, and nobody else's.

    A VXLAN device says so by its network or, where somebody has made it anew, by its MAC address.
    """
    if wanted.vxlan is None:
        return True
    return link.kind == wanted.kind and (has_our_network(link) or link.mac == wanted.mac)


def has_our_network(link: Link) -> bool:
    """Tell whether an interface is a VXLAN device of our network."""
    return link.vxlan is not None and link.vxlan.vni == VNI


def is_as_made(link: Link, wanted: Tunnel) -> bool:
    """Tell whether a tunnel's device has what it is to be made with."""
    return wanted.vxlan is None or (link.vxlan, link.mac) == (wanted.vxlan, wanted.mac)


def can_be_changed(link: Link, wanted: Tunnel) -> bool:
    """Tell whether a device of VXLAN becomes as wanted in place, and needn't be made anew.

    The kernel changes MAC address, local address and learning, but neither network, port nor IP
    version (vxlan_nl2conf of drivers/net/vxlan).  One bound to an interface would stay bound to
    that, whichever has the node's address now.
    """
    if link.vxlan is None or link.vxlan.is_bound:
        return False
    return _fixed(link.vxlan) is not None and _fixed(link.vxlan) == _fixed(wanted.vxlan)


def is_too_small(link: Link, wanted: Tunnel) -> bool:
    """Tell whether a device may never have the wanted MTU: it is bound to another interface.

    Such a one gets no more than its interface has (vxlan_change_mtu).
    """
    return link.vxlan is not None and link.vxlan.is_bound and link.mtu < wanted.mtu


def _fixed(vxlan: Vxlan | None) -> tuple[int, int, int] | None:
    if vxlan is None or vxlan.local is None:
        return None
    return (vxlan.vni, vxlan.port, vxlan.local.version)


def is_foreign(inputs: Inputs, kind: TunnelKind) -> bool:
    """Tell whether somebody else's interface has the name of our VXLAN device."""
    link = inputs.links.get(VXLAN_DEVICES[kind])
    wanted = vxlan_device(inputs, kind, mtu=0)
    return link is not None and (wanted is None or not can_serve(link, wanted))


def why_unusable(inputs: Inputs, kind: TunnelKind) -> str | None:
    """Say why nothing may go by a tunnel's device, None where it may.

    One that is missing will do, for it is made before its routes, unless the kernel has refused.
    """
    if not kind.is_vxlan:
        return None
    if is_foreign(inputs, kind):
        return "is another's: see the failures"
    name = VXLAN_DEVICES[kind]
    if name in inputs.refused_devices and name not in inputs.links:
        return "can't be made: see the failures"
    return None


def far_ends(inputs: Inputs, kind: TunnelKind) -> dict[str, FarEnd | str]:
    """Return by name the far ends of all other nodes, or why a node has none that can be used."""
    ends: dict[str, FarEnd | str] = {
        node.name: _far_end(inputs, node, kind)
        for node in inputs.nodes.values()
        if node.name != inputs.settings.node
    }
    own = inputs.node
    claimed = {} if own is None else {mac_of(own, kind): own.name}
    places: dict[IPAddress, str] = {}
    # Whose MAC address it is by his name has it: nobody takes that by stating it.  Of one that is
    # stated by several and nobody's by name, the first by name has it.
    for end in sorted(
        (end for end in ends.values() if isinstance(end, FarEnd)),
        key=lambda end: (end.mac != usual_mac(end.node, version=kind.version), end.node),
    ):
        holder = claimed.setdefault(end.mac, end.node)
        if holder != end.node:
            ends[end.node] = f"its VXLAN MAC address {end.mac} is that of {holder}"
            continue
        # Two that have moved may have had one address, one after the other.
        other = places.setdefault(end.address, end.node)
        if other != end.node:
            ends[end.node] = f"it has moved from {end.address}, by which {other} is reached (yet)"
    return ends


def _far_end(inputs: Inputs, node: Node, kind: TunnelKind) -> FarEnd | str:
    underlay = node.ipv4 if kind.version == 4 else node.ipv6
    if underlay is None:
        return f"it has no IPv{kind.version} address"
    if inputs.nodes_by_address.get(underlay.ip) is not node:
        return f"its address {underlay.ip} is another node's"
    address = address_in(node, kind)
    if address is None:
        return "it has no address inside the VXLAN tunnel (yet)"
    holder = inputs.holder_of(address)
    if holder is None:
        before = inputs.last_ends.get((node.name, kind), address)
        if before != address and inputs.holder_of(before) in (None, node.name):
            # It has moved, and whose the new block is comes by another watch.
            return FarEnd(node.name, before, mac_of(node, kind), underlay.ip)
        return f"no block affinity covers its address inside the VXLAN tunnel, {address} (yet)"
    if holder != node.name:
        return f"its address inside the VXLAN tunnel, {address}, is held by {holder}"
    return FarEnd(node.name, address, mac_of(node, kind), underlay.ip)


def entries_for(end: FarEnd, *, device: str) -> tuple[LinkLayerEntry, LinkLayerEntry]:
    """Return what leads to a far end: its forwarding entry, and its neighbour entry."""
    return (
        FdbEntry(device, end.mac, end.underlay),
        NeighbourEntry(device, end.address, end.mac),
    )


# --- devices ------------------------------------------------------------------------------------


def wanted_tunnels(inputs: Inputs) -> dict[str, Tunnel]:
    """Return the tunnels' devices, when pools need them and the underlay is known.

    One that is there stays while the underlay's address is away, as in the middle of a renewal;
    of a node that leaves, until its address is given back.
    """
    tunnels = (_wanted_tunnel(inputs, kind) for kind in TunnelKind if _is_needed(inputs, kind))
    return {tunnel.name: tunnel for tunnel in tunnels if tunnel is not None}


def _is_needed(inputs: Inputs, kind: TunnelKind) -> bool:
    node = inputs.node
    has_left = inputs.is_leaving and (node is None or address_in(node, kind) is None)
    return inputs.has_tunnel(kind) and not (has_left and not inputs.endpoints)


def _wanted_tunnel(inputs: Inputs, kind: TunnelKind) -> Tunnel | None:
    mtu = _tunnel_mtu(inputs, kind)
    if mtu is None:
        return None
    if kind.is_vxlan:
        return vxlan_device(inputs, kind, mtu=mtu)
    return Tunnel(name=inputs.settings.tunnel_name, kind=IPIP_KIND, mtu=mtu)


def _tunnel_mtu(inputs: Inputs, kind: TunnelKind) -> int | None:
    settings = inputs.settings
    underlay = inputs.underlay(kind.version)
    if underlay is None:
        there = inputs.links.get(device_of(settings, kind))
        return there.mtu if there is not None else None
    if settings.tunnel_mtu is not None:
        return settings.tunnel_mtu
    link = inputs.links.get(underlay)
    return (link.mtu if link is not None else 1500) - OVERHEADS[kind]


def usable_kinds(inputs: Inputs) -> Iterator[TunnelKind]:
    """Yield the kinds of tunnels whose devices are wanted, and neither another's nor refused."""
    wanted = wanted_tunnels(inputs)
    for kind in TunnelKind:
        is_wanted = device_of(inputs.settings, kind) in wanted
        if is_wanted and why_unusable(inputs, kind) is None:
            yield kind


def serving(inputs: Inputs) -> dict[TunnelKind, bool]:
    """Return of each VXLAN device that is wanted whether it is there, up and as it is to be."""
    wanted = wanted_tunnels(inputs)
    return {
        kind: _serves(inputs.links.get(name), wanted[name])
        for kind, name in VXLAN_DEVICES.items()
        if name in wanted
    }


def _serves(link: Link | None, wanted: Tunnel) -> bool:
    return link is not None and link.is_up and is_as_made(link, wanted)
