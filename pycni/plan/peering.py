"""Whom a node has BGP sessions with: the mesh, and what BGPPeers say.

A node that reflects (it has a cluster ID, RFC 4456) is no part of the mesh: BGPPeers lead to it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pycni.model.bgp import BGP_PORT, Family, Neighbour
from pycni.model.network import IPAddress
from pycni.model.resources import Node
from pycni.model.resources_bgp import BGPConfiguration, BGPPeer, Password, SecretKey
from pycni.model.selector import selector
from pycni.plan.inputs import Inputs

_FAMILIES = {4: frozenset({Family.IPV4}), 6: frozenset({Family.IPV6})}
_Rank = tuple[bool, bool, str]


@dataclass(frozen=True, slots=True)
class _Call:
    """One session that somebody wants.

    `node` is the one of ours that it leads to, None a router; `peering` the BGPPeer that says so,
    None the mesh.
    """

    address: IPAddress
    node: Node | None
    peering: BGPPeer | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """How this node stands to a peer.

    `peering` is the BGPPeer behind it, None for the mesh; `local_as` our AS number there;
    `is_internal` says that both ends are of one AS (iBGP), `passes_on` that the peer may announce
    what other nodes have: it is a router, or a node that reflects.
    """

    peering: BGPPeer | None
    local_as: int
    is_internal: bool
    passes_on: bool


def wanted_neighbours(inputs: Inputs) -> tuple[Neighbour, ...]:
    """Return the sessions: with the mesh while it is on, and with the configured peers.

    Each IP version has sessions of its own, between addresses of that version, and a session
    carries the prefixes of its version alone, unless `extended_next_hop` is set and it leads over
    IPv6 to a router.  The IPv4 address is the router ID of all.
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
                peer_as=own_as(inputs),
                router_id=node.ipv4.ip,
                hold_time_s=inputs.settings.hold_time_s,
                restart_time_s=inputs.settings.restart_time_s,
                families=_families(inputs, call),
            )
            configured = _as_configured(neighbour, call, inputs)
            if configured is not None:
                wanted[call.address] = configured
    return tuple(wanted[address] for address in sorted(wanted, key=lambda a: (a.version, int(a))))


def _families(inputs: Inputs, call: _Call) -> frozenset[Family]:
    version = call.address.version
    if version == 6 and call.node is None and inputs.settings.has_extended_next_hop:
        return frozenset(Family)
    return _FAMILIES[version]


def close_peers(inputs: Inputs) -> frozenset[tuple[IPAddress, int, int]]:
    """Return the peers that must be near: address, port, and the least TTL of their packets."""
    # Who is called is worked out for a whole mesh, and hardly ever is one of them to be near.
    if all(peering.hops is None for peering in inputs.peers.values()):
        return frozenset()
    wanted = wanted_neighbours(inputs)
    return frozenset((n.peer, n.port, n.least_ttl) for n in wanted if n.least_ttl is not None)


def wanted_secrets(inputs: Inputs) -> frozenset[SecretKey]:
    """Return where the passwords of this node's sessions are kept, known ones and others."""
    bgp, node = inputs.bgp, inputs.node
    # Who is called is worked out for a whole mesh, and hardly ever has one a password.
    passwords = (bgp.mesh_password, *(peering.password for peering in inputs.peers.values()))
    if node is None or not any(isinstance(one, SecretKey) for one in passwords):
        return frozenset()
    found = {call.address: _password(call, bgp) for call in _calls(inputs, node)}
    return frozenset(one for one in found.values() if isinstance(one, SecretKey))


def _password(call: _Call, bgp: BGPConfiguration) -> Password | None:
    return bgp.mesh_password if call.peering is None else call.peering.password


def _as_configured(neighbour: Neighbour, call: _Call, inputs: Inputs) -> Neighbour | None:
    """Return a session as its peering has it; None while nobody knows its password."""
    peering, bgp = call.peering, inputs.bgp
    password = _password(call, bgp)
    if isinstance(password, SecretKey) and (password := inputs.secrets.get(password)) is None:
        return None
    restart = bgp.mesh_restart_time_s if peering is None else peering.restart_time_s
    return replace(
        neighbour,
        port=_port(inputs, call),
        local_as=_local_as(inputs, call),
        peer_as=_peer_as(inputs, call),
        restart_time_s=neighbour.restart_time_s if restart is None else restart,
        password=password,
        hops=None if peering is None else peering.hops,
    )


def _port(inputs: Inputs, call: _Call) -> int:
    if call.node is not None:
        return inputs.listen_port_of(call.node.name)
    written = call.peering.port if call.peering is not None else None
    return BGP_PORT if written is None else written


def _local_as(inputs: Inputs, call: _Call) -> int:
    """Return our AS number in a session: a BGPPeer's towards routers, never between our nodes.

    A node expects of another the AS number that its Node object says.
    """
    peering = call.peering if call.node is None else None
    return (peering.local_as if peering is not None else None) or own_as(inputs)


def _peer_as(inputs: Inputs, call: _Call) -> int:
    if call.node is not None:
        return _as_of(inputs, call.node)
    stated = call.peering.as_number if call.peering is not None else None
    return stated or inputs.bgp.as_number


def _as_of(inputs: Inputs, node: Node) -> int:
    return node.as_number or inputs.bgp.as_number


def own_as(inputs: Inputs) -> int:
    """Return this node's AS number, as its sessions have it that no BGPPeer gives another."""
    node = inputs.node
    return _as_of(inputs, node) if node is not None else inputs.bgp.as_number


def _calls(inputs: Inputs, own: Node) -> Iterator[_Call]:
    """Yield whom to call, the more particular later: of two with one address the last counts."""
    for node in inputs.nodes.values():
        if node is not own and _is_meshed(inputs, own, node):
            yield from (_Call(one.ip, node) for one in (node.ipv4, node.ipv6) if one)
    found = (
        _found(inputs, peering, own, address)
        for peering in inputs.peers.values()
        for address in _candidates(inputs, peering, own)
    )
    ranked = [one for one in found if one is not None]
    yield from (call for _, call in sorted(ranked, key=lambda one: one[0]))


def _is_meshed(inputs: Inputs, *nodes: Node) -> bool:
    """Tell whether the mesh joins nodes."""
    reflects = any(node.reflector_cluster_id is not None for node in nodes)
    return inputs.bgp.is_node_mesh_enabled and not reflects


def _candidates(inputs: Inputs, peering: BGPPeer, own: Node) -> Iterable[IPAddress]:
    """Return the addresses to which a BGPPeer may give this node a session."""
    if peering.peer_ip is None:
        return inputs.nodes_by_address
    if not _names(inputs, peering, own):
        return (peering.peer_ip,)
    # Whoever has this peering calls us, and we call back by the same IP version.
    version = peering.peer_ip.version
    return [address for address in inputs.nodes_by_address if address.version == version]


def _found(
    inputs: Inputs, peering: BGPPeer, own: Node, address: IPAddress
) -> tuple[_Rank, _Call] | None:
    """Return the session with an address that a BGPPeer gives this node, and how particular it is.

    Of two BGPPeers one that names an address is the more particular, then one that this node has
    itself before one by which it calls back, then the one whose name comes later: so both ends
    choose the same one, unless each has one of its own.
    """
    node = inputs.nodes_by_address.get(address)
    is_own = _has(own, peering)
    if peering.peer_ip == address and is_own:
        leads_to = node if node is not None and _names(inputs, peering, node) else None
        return (True, True, peering.name), _Call(address, leads_to, peering)
    if node is None or node is own:
        return None
    is_back = peering.is_called_back and _has(node, peering)
    if peering.peer_ip is not None:
        is_back = is_back and peering.peer_ip.version == address.version
        is_joined = is_back and _names(inputs, peering, own)
        return ((True, False, peering.name), _Call(address, node, peering)) if is_joined else None
    is_own = is_own and _matches(node, peering.peer_selector)
    if is_own or (is_back and _matches(own, peering.peer_selector)):
        return (False, is_own, peering.name), _Call(address, node, peering)
    return None


def _names(inputs: Inputs, peering: BGPPeer, node: Node) -> bool:
    """Tell whether a BGPPeer's `peerIP` is the BGP of one of our nodes.

    With another AS number or port it is something else that runs at the node's address.
    """
    own = [interface.ip for interface in (node.ipv4, node.ipv6) if interface is not None]
    return (
        peering.peer_ip in own
        and peering.as_number == _as_of(inputs, node)
        and peering.port in (None, inputs.listen_port_of(node.name))
    )


def _has(node: Node, peering: BGPPeer) -> bool:
    """Tell whether a BGPPeer is one of this node's."""
    if peering.node is not None:
        return peering.node == node.name
    return _matches(node, peering.node_selector)


def _matches(node: Node, text: str | None) -> bool:
    return text is None or selector(text)(dict(node.labels))


def _call_to(inputs: Inputs, address: IPAddress) -> _Call:
    """Return the session with an address; where no BGPPeer leads there, as the mesh's."""
    own = inputs.node
    if own is not None:
        found = (_found(inputs, peering, own, address) for peering in inputs.peers.values())
        ranked = [one for one in found if one is not None]
        if ranked:
            return max(ranked, key=lambda one: one[0])[1]
    return _Call(address, inputs.nodes_by_address.get(address))


def peering_with(inputs: Inputs, address: IPAddress) -> BGPPeer | None:
    """Return the BGPPeer behind this node's session with an address, None for the mesh's."""
    return _call_to(inputs, address).peering


def unanswered(inputs: Inputs, address: IPAddress) -> BGPPeer | None:
    """Return the BGPPeer by which we call a node that has no session with us, None if it has one.

    With `reversePeering: Manual` another BGPPeer has to lead back.
    """
    own, call = inputs.node, _call_to(inputs, address)
    if own is None or call.node is None or call.peering is None:
        return None
    here = own.ipv4 if address.version == 4 else own.ipv6
    is_answered = here is not None and any(
        _found(inputs, peering, call.node, here.ip) for peering in inputs.peers.values()
    )
    return None if is_answered or _is_meshed(inputs, own, call.node) else call.peering


def session_with(inputs: Inputs, address: IPAddress) -> Session:
    """Return what this node's session with an address is, be it up or not."""
    call = _call_to(inputs, address)
    own = _local_as(inputs, call)
    return Session(
        peering=call.peering,
        local_as=own,
        is_internal=own == _peer_as(inputs, call),
        passes_on=_reflects(inputs, address) or _leads_to_router(call),
    )


def passes_on(inputs: Inputs, address: IPAddress) -> bool:
    """Tell whether a peer may pass on what it hears: a router, or a node that reflects."""
    if _reflects(inputs, address):
        return True
    # Asked of a whole mesh: at a node's address is a router only where a BGPPeer says so.
    is_named = any(peering.peer_ip == address for peering in inputs.peers.values())
    return is_named and _leads_to_router(_call_to(inputs, address))


def _reflects(inputs: Inputs, address: IPAddress) -> bool:
    node = inputs.nodes_by_address.get(address)
    return node is not None and node.reflector_cluster_id is not None


def _leads_to_router(call: _Call) -> bool:
    return call.peering is not None and call.node is None
