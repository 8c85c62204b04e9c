"""What the ways between two nodes carry, by what came through.  Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from pycni.check.findings import Finding, Severity
from pycni.check.host import route_to
from pycni.model.network import IPAddress, KernelState
from pycni.model.resources import Node
from pycni.model.tunnels import OVERHEADS, VXLAN_DEVICES, TunnelKind, address_in
from pycni.model.vxlan import PORT

_HEADERS = {4: 28, 6: 48}
"""Of IP and UDP: what a datagram has beside its payload; ping's of ICMP are as long."""
_SMALL = 36


@dataclass(frozen=True, slots=True)
class Way:
    """A way to another node: an address of it, and the size of a whole packet that must pass.

    `kind` is the tunnel by which it leads, None for the underlay.
    """

    address: IPAddress
    mtu: int
    kind: TunnelKind | None = None

    @property
    def payloads(self) -> tuple[int, int]:
        """Return the payload of a small datagram and of one of full size."""
        return _SMALL, self.mtu - _HEADERS[self.address.version]


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node: the way to its own address and, where that is how pods get there, by tunnel.

    It is one of each IP version: what passes in one may be dropped in the other.
    """

    name: str
    underlay: Way
    tunnel: Way | None = None


@dataclass(frozen=True, slots=True)
class Passed:
    """Which of a small and a full-size packet came through."""

    small: bool
    full: bool


def peers_of(nodes: Iterable[Node], *, own: str, kernel: KernelState, tunnel: str) -> list[Peer]:
    """Return the ways to all other nodes, as this node's routes lead there now."""
    peers = []
    for node in nodes:
        if node.name == own:
            continue
        four = None if node.ipv4 is None else _way(kernel, node.ipv4.ip)
        if four is not None:
            kinds = (TunnelKind.IPIP, TunnelKind.VXLAN)
            inside = (_inside(kernel, node, kind, tunnel=tunnel) for kind in kinds)
            peers.append(Peer(node.name, four, next(filter(None, inside), None)))
        six = None if node.ipv6 is None else _way(kernel, node.ipv6.ip)
        inside6 = _inside(kernel, node, TunnelKind.VXLAN_V6, tunnel=tunnel)
        if six is not None and inside6 is not None:
            peers.append(Peer(node.name, six, inside6))
    return peers


def _inside(kernel: KernelState, node: Node, kind: TunnelKind, *, tunnel: str) -> Way | None:
    device = VXLAN_DEVICES.get(kind, tunnel)
    return _way(kernel, address_in(node, kind), oif=device, kind=kind)


def _way(
    kernel: KernelState,
    address: IPAddress | None,
    *,
    oif: str = "",
    kind: TunnelKind | None = None,
) -> Way | None:
    route = route_to(kernel, address) if address is not None else None
    if route is None or address is None:
        return None
    links = [kernel.links[name] for name in route.oifs if name in kernel.links]
    if not links or (oif and links[0].name != oif):
        return None
    return Way(address, links[0].mtu, kind)


def is_silent(underlay: Passed, tunnel: Passed | None) -> bool:
    """Tell whether no probe came through."""
    return not underlay.small and not (tunnel is not None and tunnel.small)


def judge(peer: Peer, *, underlay: Passed, tunnel: Passed | None, is_alive: bool) -> list[Finding]:
    """Say what is wrong with the ways to another node; `is_alive`: it answers TCP at least."""
    if tunnel is not None and tunnel.full:
        return []  # whatever the underlay answers to probes: pods get through
    if is_silent(underlay, tunnel):
        return [_unprobed(peer) if is_alive else _silent(peer)]
    if underlay.small and not underlay.full:
        return [_narrow(peer, peer.underlay)]
    if peer.tunnel is None or tunnel is None:
        return []
    if tunnel.small:
        return [_narrow(peer, peer.tunnel)]
    return [_no_tunnel(peer) if peer.tunnel.kind is TunnelKind.IPIP else _no_vxlan(peer)]


def _silent(peer: Peer) -> Finding:
    address = peer.underlay.address
    return Finding(
        "node-answers",
        Severity.ERROR,
        f"{peer.name} ({address}) answers nothing",
        "it is off, or a firewall drops what nodes send each other: BGP and pods' packets",
        f"ping {address}; where that answers, let all of the nodes' subnet pass in the firewall",
    )


def _firewall_of(address: IPAddress) -> str:
    return "iptables" if address.version == 4 else "ip6tables"


def _unprobed(peer: Peer) -> Finding:
    address = peer.underlay.address
    program = _firewall_of(address)
    return Finding(
        "probes",
        Severity.WARNING,
        f"{peer.name} ({address}) answers TCP and no probe: a firewall drops UDP, or ICMP",
        "whether tunnelled and full-size packets of pods get there can't be seen, and what drops"
        " ICMP breaks the discovery of path MTUs",
        "let UDP port 179 of the nodes pass to it and ICMP back, there:"
        f"  {program} -I INPUT -p udp --dport 179 -s SUBNET -j ACCEPT",
    )


def _narrow(peer: Peer, way: Way) -> Finding:
    kind = "" if way.kind is None else "tunnelled "
    inner = peer.tunnel.kind if peer.tunnel is not None else None
    # Beside what ping counts as its size: its headers, and the tunnel's own.
    more = _HEADERS[way.address.version]
    more -= OVERHEADS[inner or TunnelKind.IPIP] if way.kind is None else 0
    return Finding(
        "packet-size",
        Severity.ERROR,
        f"{kind}packets of {way.mtu} bytes don't reach {peer.name} ({way.address}); small ones do",
        "connections of pods open and then hang: the network in between carries less than the"
        " interface says",
        f"find the largest SIZE that passes:  ping -M do -s SIZE {way.address}  and set tunnel_mtu"
        f" and pod_mtu in agent.yaml to SIZE {'+' if more > 0 else '-'} {abs(more)}",
    )


def _no_tunnel(peer: Peer) -> Finding:
    address = peer.underlay.address
    return Finding(
        "protocol-4",
        Severity.ERROR,
        f"no tunnelled packet (IP protocol 4) reaches {peer.name} ({address}), and others do",
        "pods of the two nodes can't talk: firewalls of clouds and hosts often know TCP, UDP and"
        " ICMP only",
        "let protocol 4 pass between the nodes in the cloud's firewall, and on both nodes:"
        f"  iptables -I INPUT -p 4 -s {address} -j ACCEPT",
    )


def _no_vxlan(peer: Peer) -> Finding:
    address = peer.underlay.address
    program = _firewall_of(address)
    return Finding(
        "vxlan-port",
        Severity.ERROR,
        f"no tunnelled packet (UDP port {PORT}) reaches {peer.name} ({address}), and others do",
        "pods of the two nodes can't talk: a firewall drops VXLAN, or the node doesn't take it",
        f"let UDP port {PORT} pass between the nodes in the cloud's firewall, and on both nodes:"
        f"  {program} -I INPUT -p udp --dport {PORT} -s {address} -j ACCEPT",
    )
