"""Keep a picture of the kernel true from its events and from our own operations.

Pure.  The picture is refreshed by snapshots; between them these functions change it, and say what
deserves a second look and when the picture can no longer be trusted: the kernel drops IPv4 routes
without a word when their interface goes down or loses its last address.

Each pod brings several events, so none may cost more on a node with many pods or routes.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import assert_never

from pycni.model.endpoints import GATEWAY_V6
from pycni.model.network import (
    AddAddress,
    AddressChanged,
    AddRoute,
    DeleteAddress,
    DeleteNeighbour,
    DeleteRoute,
    DeleteRuleset,
    IPAddress,
    KernelEvent,
    KernelState,
    LinkChanged,
    LinkGone,
    NeighbourChanged,
    Op,
    ReplaceRoute,
    Route,
    RouteChanged,
    RouteKey,
    RulesetChanged,
    SetNeighbour,
    SetRuleset,
    SetSysctl,
)

# fe80::/10, of the 128 bits of an IPv6 address; IPv4 addresses have no bits up there.
_LINK_LOCAL, _BELOW_LINK_LOCAL = 0xFE80 >> 6, 128 - 10


@dataclass(frozen=True, slots=True)
class Effect:
    """What an event changed: route keys, a link, addresses, neighbours or our nftables table.

    `lost_routes_by` names an interface whose routes the kernel may have dropped silently;
    `returned` one that is new or up again.
    """

    keys: AbstractSet[RouteKey] = frozenset()
    link: str | None = None
    is_address: bool = False
    is_ruleset: bool = False
    is_neighbour: bool = False
    lost_routes_by: str | None = None
    returned: str | None = None


NOTHING = Effect()


def leave_out_link_local(state: KernelState) -> None:
    """Reduce a snapshot to what events keep true: see `apply_event`."""
    state.gateways = {a.ifname for a in state.addresses if a.interface == GATEWAY_V6}
    state.addresses = {a for a in state.addresses if not _is_link_local(a.interface.ip)}
    for key in [k for k in state.routes if _is_link_local(k.dst.network_address)]:
        del state.routes[key]


def apply_event(state: KernelState, event: KernelEvent) -> Effect:
    """Change the picture by one event of the kernel; what it shows already has no effect.

    IPv6 link-local addresses and routes are left out: the kernel makes both for every interface,
    and nothing of ours hangs on them, but for the pods' gateway.
    """
    match event:
        case RouteChanged():  # by far the most frequent
            is_news = not _is_link_local(event.route.key.dst.network_address) and _route_changed(
                state, event
            )
            return Effect(keys=frozenset((event.route.key,))) if is_news else NOTHING
        case LinkChanged():
            return _link_changed(state, event)
        case LinkGone():
            link = state.links.pop(event.name, None)
            state.gateways.discard(event.name)
            state.lost_gateways.discard(event.name)
            # Only devices of VXLAN have entries here, and most links that go are pods'.
            if link is None or link.vxlan is not None:
                _drop_entries_of(state, event.name)
            return Effect(keys=_drop_routes_by(state, event.name), link=event.name)
        case AddressChanged():
            return _address_changed(state, event)
        case NeighbourChanged():
            return _neighbour_changed(state, event)
        case RulesetChanged():
            state.ruleset = event.digest
            return Effect(is_ruleset=True)
        case _:
            assert_never(event)


def _drop_entries_of(state: KernelState, name: str) -> None:
    for key in [k for k, entry in state.neighbours.items() if entry.ifname == name]:
        del state.neighbours[key]


def _is_link_local(address: IPAddress) -> bool:
    # Not 169.254.0.0/16: the kernel gives nobody such an address, and it may be an underlay.
    return int(address) >> _BELOW_LINK_LOCAL == _LINK_LOCAL


def _address_changed(state: KernelState, event: AddressChanged) -> Effect:
    # One that the picture shows already does have an effect: it may be by an operation of ours,
    # and nobody has looked yet at what hangs on the address.
    if _is_link_local(event.address.interface.ip):
        return _link_local_changed(state, event)
    if event.is_present:
        state.addresses.add(event.address)
        return Effect(is_address=True)
    state.addresses.discard(event.address)
    return Effect(is_address=True, lost_routes_by=event.address.ifname)


def _neighbour_changed(state: KernelState, event: NeighbourChanged) -> Effect:
    entry = event.entry
    there = state.neighbours.get(entry.key)
    if event.is_present:
        state.neighbours[entry.key] = entry
    else:
        state.neighbours.pop(entry.key, None)
    is_news = there != (entry if event.is_present else None)
    return Effect(is_neighbour=True) if is_news else NOTHING


def _link_local_changed(state: KernelState, event: AddressChanged) -> Effect:
    # That the gateway comes is not looked at: a new pod has it.
    if event.is_present or event.address.interface != GATEWAY_V6:
        return NOTHING
    name = event.address.ifname
    state.gateways.discard(name)
    state.lost_gateways.add(name)
    return Effect(link=name)


def _link_changed(state: KernelState, event: LinkChanged) -> Effect:
    link = event.link
    old = state.links.get(link.name)
    if old == link:
        return NOTHING
    state.links[link.name] = link
    was_up = old is not None and old.is_up
    if was_up and not link.is_up:
        keys = _drop_routes_by(state, link.name)
        return Effect(keys=keys, link=link.name, lost_routes_by=link.name)
    if link.is_up and not was_up:
        return Effect(keys=_keys_by(state, link.name), link=link.name, returned=link.name)
    return Effect(link=link.name)


def _route_changed(state: KernelState, event: RouteChanged) -> bool:
    """Change the routes of one key; return whether that changed anything."""
    route = event.route
    there = state.routes.get(route.key, ())
    if not event.is_present:
        routes = tuple(r for r in there if r != route)
    elif event.is_replacement:
        # A replacement takes the place of the first route of its key; if it was our own, the
        # picture knows it already.
        routes = (route, *(r for r in there[1:] if r != route))
    else:
        routes = there if route in there else (*there, route)
    if routes == there:
        return False
    _set_routes(state, route.key, routes)
    return True


def _drop_routes_by(state: KernelState, name: str) -> frozenset[RouteKey]:
    keys = _keys_by(state, name)
    for key in keys:
        _set_routes(state, key, tuple(r for r in state.routes[key] if name not in r.oifs))
    return keys


# --- the only writers of routes, and their index ------------------------------------------------


def _set_routes(state: KernelState, key: RouteKey, routes: tuple[Route, ...]) -> None:
    if state.keys_by_oif is not None:
        _unindex(state.keys_by_oif, state.routes.get(key, ()))
        _index(state.keys_by_oif, routes)
    if routes:
        state.routes[key] = routes
    else:
        state.routes.pop(key, None)


def _keys_by(state: KernelState, name: str) -> frozenset[RouteKey]:
    """Return the keys of the routes that leave by an interface."""
    if state.keys_by_oif is None:
        # Only now: a picture may live from one snapshot to the next without such a question.
        state.keys_by_oif = {}
        for routes in state.routes.values():
            _index(state.keys_by_oif, routes)
    return frozenset(state.keys_by_oif.get(name, ()))


def _index(keys_by_oif: dict[str, set[RouteKey]], routes: tuple[Route, ...]) -> None:
    for route in routes:
        for hop in route.next_hops:
            keys_by_oif.setdefault(hop.oif, set()).add(route.key)


def _unindex(keys_by_oif: dict[str, set[RouteKey]], routes: tuple[Route, ...]) -> None:
    for oif in {hop.oif for route in routes for hop in route.next_hops}:
        keys_by_oif[oif].discard(routes[0].key)
        if not keys_by_oif[oif]:  # pods come and go, each with a name of its own
            del keys_by_oif[oif]


def apply_op(state: KernelState, op: Op) -> None:
    """Change the picture by an operation of ours that succeeded, before its event arrives."""
    match op:
        case AddRoute() | DeleteRoute():
            _route_changed(state, RouteChanged(op.route, isinstance(op, AddRoute)))
        case ReplaceRoute():
            there = state.routes.get(op.new.key, ())
            routes = tuple(r for r in there if r not in (op.old, op.new))
            _set_routes(state, op.new.key, (*routes, op.new))
        case AddAddress() if op.address.interface == GATEWAY_V6:
            state.gateways.add(op.address.ifname)
            state.lost_gateways.discard(op.address.ifname)
        case AddAddress():
            state.addresses.add(op.address)
        case DeleteAddress():
            state.addresses.discard(op.address)
        case SetNeighbour() | DeleteNeighbour():
            is_present = isinstance(op, SetNeighbour)
            _neighbour_changed(state, NeighbourChanged(op.entry, is_present))
        case SetSysctl():
            state.sysctls[op.name] = op.value
        case SetRuleset():
            state.ruleset = op.ruleset.digest
        case DeleteRuleset():
            state.ruleset = None
        case _:
            # Links: their event carries the index and more, which we don't know.
            return
