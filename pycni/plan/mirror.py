"""Keep a picture of the kernel true from its events and from our own operations.

Pure.  The picture is refreshed by snapshots; between them these functions change it, and say what
deserves a second look and when the picture can no longer be trusted: the kernel drops IPv4 routes
without a word when their interface goes down or loses its last address.
"""

from dataclasses import dataclass, field
from typing import assert_never

from pycni.model.network import (
    AddAddress,
    AddressChanged,
    AddRoute,
    DeleteAddress,
    DeleteRoute,
    DeleteRuleset,
    KernelEvent,
    KernelState,
    LinkChanged,
    LinkGone,
    Op,
    ReplaceRoute,
    Route,
    RouteChanged,
    RouteKey,
    RulesetChanged,
    SetRuleset,
    SetSysctl,
)


@dataclass(slots=True)
class Effect:
    """What an event changed: route keys, links, addresses or our nftables table.

    `lost_routes_by` names an interface whose routes the kernel may have dropped silently;
    `returned` are interfaces that are new or up again.
    """

    keys: set[RouteKey] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    is_address: bool = False
    is_ruleset: bool = False
    lost_routes_by: str | None = None
    returned: frozenset[str] = frozenset()


def apply_event(state: KernelState, event: KernelEvent) -> Effect:
    """Change the picture by one event of the kernel."""
    match event:
        case LinkChanged():
            return _link_changed(state, event)
        case LinkGone():
            state.links.pop(event.name, None)
            return Effect(keys=_drop_routes_by(state, event.name), links={event.name})
        case AddressChanged():
            return _address_changed(state, event)
        case RouteChanged():
            _route_changed(state, event)
            return Effect(keys={event.route.key})
        case RulesetChanged():
            state.ruleset = event.digest
            return Effect(is_ruleset=True)
        case _:
            assert_never(event)


def _address_changed(state: KernelState, event: AddressChanged) -> Effect:
    if event.address.interface.ip.is_link_local:
        return Effect()  # every IPv6 interface gets one; nothing of ours hangs on it
    if event.is_present:
        state.addresses.add(event.address)
        return Effect(is_address=True)
    state.addresses.discard(event.address)
    return Effect(is_address=True, lost_routes_by=event.address.ifname)


def _link_changed(state: KernelState, event: LinkChanged) -> Effect:
    old = state.links.get(event.link.name)
    state.links[event.link.name] = event.link
    if old == event.link:
        return Effect()
    effect = Effect(links={event.link.name})
    if old is not None and old.is_up and not event.link.is_up:
        effect.keys = _drop_routes_by(state, event.link.name)
        effect.lost_routes_by = event.link.name
    elif event.link.is_up and (old is None or not old.is_up):
        effect.returned = frozenset({event.link.name})
        effect.keys = {
            k for k, routes in state.routes.items() if _leave_by(routes, event.link.name)
        }
    return effect


def _leave_by(routes: tuple[Route, ...], name: str) -> bool:
    return any(name in route.oifs for route in routes)


def _drop_routes_by(state: KernelState, name: str) -> set[RouteKey]:
    keys = {k for k, routes in state.routes.items() if _leave_by(routes, name)}
    for key in keys:
        _set_routes(state, key, tuple(r for r in state.routes[key] if name not in r.oifs))
    return keys


def _route_changed(state: KernelState, event: RouteChanged) -> None:
    there = state.routes.get(event.route.key, ())
    if not event.is_present:
        _set_routes(state, event.route.key, tuple(r for r in there if r != event.route))
    elif event.is_replacement:
        # A replacement takes the place of the first route of its key; if it was our own, the
        # picture knows it already.
        others = tuple(r for r in there[1:] if r != event.route)
        _set_routes(state, event.route.key, (event.route, *others))
    elif event.route not in there:
        _set_routes(state, event.route.key, (*there, event.route))


def _set_routes(state: KernelState, key: RouteKey, routes: tuple[Route, ...]) -> None:
    if routes:
        state.routes[key] = routes
    else:
        state.routes.pop(key, None)


def apply_op(state: KernelState, op: Op) -> None:
    """Change the picture by an operation of ours that succeeded, before its event arrives."""
    match op:
        case AddRoute():
            _route_changed(state, RouteChanged(op.route, is_present=True))
        case DeleteRoute():
            _route_changed(state, RouteChanged(op.route, is_present=False))
        case ReplaceRoute():
            there = state.routes.get(op.new.key, ())
            routes = tuple(r for r in there if r not in (op.old, op.new))
            _set_routes(state, op.new.key, (*routes, op.new))
        case AddAddress():
            state.addresses.add(op.address)
        case DeleteAddress():
            state.addresses.discard(op.address)
        case SetSysctl():
            state.sysctls[op.name] = op.value
        case SetRuleset():
            state.ruleset = op.ruleset.digest
        case DeleteRuleset():
            state.ruleset = None
        case _:
            # Links: their event carries the index and more, which we don't know.
            return
