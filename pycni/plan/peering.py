"""Whom a node has BGP sessions with: the mesh, and what BGPPeers say.

A node that reflects (it has a cluster ID, RFC 4456) is no part of the mesh: BGPPeers lead to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pycni.model.bgp import Family, Neighbour
from pycni.model.network import IPAddress
from pycni.model.resources import BGPConfiguration, BGPPeer, Node
from pycni.model.selector import selector
from pycni.plan.inputs import Inputs

_FAMILIES = {4: frozenset({Family.IPV4}), 6: frozenset({Family.IPV6})}


@dataclass(frozen=True, slots=True)
class _Call:
    """One session that somebody wants; `peering` is the BGPPeer that says so, None the mesh."""

    address: IPAddress
    as_number: int
    port: int
    peering: BGPPeer | None = None


def wanted_neighbours(inputs: Inputs) -> tuple[Neighbour, ...]:
    """Return the sessions: with the mesh while it is on, and with the configured peers.

    Each IP version has sessions of its own, between addresses of that version, and a session
    carries the prefixes of its version alone.  The IPv4 address is the router ID of all.
    """
    node = inputs.node
    if node is None or node.ipv4 is None:
        return ()
    ends = {own.version: own.ip for own in (node.ipv4, node.ipv6) if own is not None}
    wanted: dict[IPAddress, Neighbour] = {}
    for call in _calls(inputs, node):
        local = ends.get(call.address.version)
        if local is not None and local != call.address:
            neighbour = Neighbour(
                peer=call.address,
                local=local,
                local_as=own_as(inputs),
                peer_as=call.as_number,
                router_id=node.ipv4.ip,
                hold_time_s=inputs.settings.hold_time_s,
                restart_time_s=inputs.settings.restart_time_s,
                port=call.port,
                families=_FAMILIES[local.version],
            )
            wanted[call.address] = _as_configured(neighbour, call.peering, inputs.bgp)
    return tuple(wanted[address] for address in sorted(wanted, key=lambda a: (a.version, int(a))))


def close_peers(inputs: Inputs) -> frozenset[tuple[IPAddress, int, int]]:
    """Return the peers that must be near: address, port, and the least TTL of their packets."""
    # Who is called is worked out for a whole mesh, and hardly ever is one of them to be near.
    if all(peering.hops is None for peering in inputs.peers.values()):
        return frozenset()
    wanted = wanted_neighbours(inputs)
    return frozenset((n.peer, n.port, n.least_ttl) for n in wanted if n.least_ttl is not None)


def _as_configured(
    neighbour: Neighbour, peering: BGPPeer | None, bgp: BGPConfiguration
) -> Neighbour:
    restart = bgp.mesh_restart_time_s if peering is None else peering.restart_time_s
    if restart is not None:
        neighbour = replace(neighbour, restart_time_s=restart)
    if peering is None:
        return replace(neighbour, password=bgp.mesh_password)
    return replace(
        neighbour,
        local_as=peering.local_as or neighbour.local_as,
        password=peering.password,
        hops=peering.hops,
    )


def own_as(inputs: Inputs) -> int:
    """Return this node's AS number, as its sessions have it that no BGPPeer gives another."""
    node = inputs.node
    return (node.as_number if node is not None else None) or inputs.bgp.as_number


def _calls(inputs: Inputs, own: Node) -> Iterator[_Call]:
    """Yield whom to call, the more particular later: of two with one address the last counts."""
    if inputs.bgp.is_node_mesh_enabled and own.reflector_cluster_id is None:
        for node in inputs.nodes.values():
            if node is not own and node.reflector_cluster_id is None:
                yield from _calls_of(inputs, node)
    for peering in inputs.peers.values():
        if peering.peer_selector is not None:
            for node in inputs.nodes.values():
                if _joins(peering, own, node):
                    yield from _calls_of(inputs, node, peering)
    for peering in inputs.peers.values():
        if peering.peer_ip is not None and _has(own, peering):
            number = peering.as_number or inputs.bgp.as_number
            yield _Call(peering.peer_ip, number, peering.port, peering)


def _calls_of(inputs: Inputs, node: Node, peering: BGPPeer | None = None) -> Iterator[_Call]:
    number = node.as_number or inputs.bgp.as_number
    for interface in (node.ipv4, node.ipv6):
        if interface is not None:
            yield _Call(interface.ip, number, inputs.bgp.listen_port, peering)


def _joins(peering: BGPPeer, own: Node, node: Node) -> bool:
    """Tell whether a BGPPeer between nodes joins these two: either of them may be the caller's."""
    if node is own or peering.peer_selector is None:
        return False
    is_called = _has(own, peering) and _matches(node, peering.peer_selector)
    return is_called or (_has(node, peering) and _matches(own, peering.peer_selector))


def _has(node: Node, peering: BGPPeer) -> bool:
    """Tell whether a BGPPeer is one of this node's."""
    if peering.node is not None:
        return peering.node == node.name
    return _matches(node, peering.node_selector)


def _matches(node: Node, text: str | None) -> bool:
    return text is None or selector(text)(dict(node.labels))


def peering_with(inputs: Inputs, address: IPAddress) -> BGPPeer | None:
    """Return the BGPPeer behind this node's session with an address, None for the mesh's."""
    own, node = inputs.node, inputs.nodes_by_address.get(address)
    if own is None:
        return None
    between = by_address = None
    for peering in inputs.peers.values():
        if peering.peer_ip == address and _has(own, peering):
            by_address = peering
        elif node is not None and _joins(peering, own, node):
            between = peering
    return by_address or between


def passes_on(inputs: Inputs, address: IPAddress) -> bool:
    """Tell whether a peer may announce what other nodes have: a router, or a node that reflects."""
    node = inputs.nodes_by_address.get(address)
    if node is not None and node.reflector_cluster_id is not None:
        return True
    peering = peering_with(inputs, address)
    return peering is not None and peering.peer_ip is not None


def is_internal(inputs: Inputs, address: IPAddress) -> bool:
    """Tell whether this node's session with an address is internal: of one AS (iBGP)."""
    peering, node = peering_with(inputs, address), inputs.nodes_by_address.get(address)
    local = peering.local_as if peering is not None else None
    theirs = peering.as_number if peering is not None else None
    if theirs is None and node is not None:
        theirs = node.as_number
    return (local or own_as(inputs)) == (theirs or inputs.bgp.as_number)
