"""Compare what is wanted with what is there; return the operations that lead from one to another.

Pure.  Nothing that is not ours ever appears in a plan: ownership is decided here, from what an
object says of itself, so that a restarted agent knows its own.  Additions come before removals, a
tunnel before its routes; deleting may be held back source by source (`Gate`) until that source
has been heard completely.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from pycni.model.endpoints import GATEWAY_V6
from pycni.model.network import (
    AddAddress,
    Address,
    AddRoute,
    CreateTunnel,
    DeleteAddress,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    DeleteRuleset,
    IPNetwork,
    KernelState,
    Link,
    Op,
    ReplaceRoute,
    Route,
    RouteKey,
    RouteType,
    SetLink,
    SetNeighbour,
    SetRuleset,
    SetSysctl,
    Tunnel,
)
from pycni.model.tunnels import VXLAN_DEVICES
from pycni.plan.desired import Desired
from pycni.plan.overlay import (
    IPIP_KIND,
    can_be_changed,
    can_serve,
    has_our_network,
    is_as_made,
    is_too_small,
)
from pycni.plan.ownership import Ownership


@dataclass(frozen=True, slots=True)
class Gate:
    """Which sources have been heard completely, so that what they don't mention may be deleted.

    `learned_ready` False keeps every learned route that is in the kernel, `blocks_ready` the
    blackholes and the tunnel, `endpoints_ready` the pod routes.
    """

    endpoints_ready: bool = True
    blocks_ready: bool = True
    learned_ready: bool = True

    def may_delete(self, route: Route) -> bool:
        """Tell whether an unwanted route of ours may go."""
        if route.type is RouteType.BLACKHOLE:
            return self.blocks_ready
        # Far ends of VXLAN tunnels have routes without gateway.
        if any(hop.gateway or hop.oif in VXLAN_DEVICES.values() for hop in route.next_hops):
            return self.blocks_ready and self.learned_ready
        return self.endpoints_ready


@dataclass(frozen=True, slots=True)
class RouteConflict:
    """A stranger's route sits under a key that we want: reported, never replaced."""

    wanted: Route
    foreign: Route


@dataclass(slots=True)
class Plan:
    """Operations in a safe order, and what stands in the way.

    `waiting` routes are wanted, but their interface does not exist (yet).
    """

    ops: list[Op] = field(default_factory=list)
    conflicts: list[RouteConflict] = field(default_factory=list)
    waiting: list[Route] = field(default_factory=list)


def plan(want: Desired, have: KernelState, *, ownership: Ownership, gate: Gate) -> Plan:
    """Plan everything: links, addresses, sysctls, routes, nftables."""
    result = Plan()
    result.ops += plan_tunnels(want, have)
    result.ops += plan_pod_links(want, have)
    result.ops += plan_gateways(want, have)
    result.ops += plan_new_addresses(want, have)
    result.ops += plan_sysctls(want.sysctls, have.sysctls)
    result.ops += plan_entries(want, have)
    routes = plan_routes(
        want.routes,
        have,
        keys=[*want.routes, *(k for k in have.routes if k not in want.routes)],
        tunnels=frozenset(want.tunnels),
        ownership=ownership,
        gate=gate,
    )
    result.ops += routes.ops
    result.conflicts += routes.conflicts
    result.waiting += routes.waiting
    if gate.blocks_ready:
        result.ops += plan_old_entries(want, have)
        result.ops += plan_old_addresses(want, have, ownership=ownership)
        result.ops += plan_old_tunnels(want, have, ownership=ownership)
    result.ops += plan_ruleset(want, have, gate=gate)
    return result


def plan_routes(
    want: dict[RouteKey, Route],
    have: KernelState,
    *,
    keys: Iterable[RouteKey],
    tunnels: frozenset[str],
    ownership: Ownership,
    gate: Gate,
) -> Plan:
    """Plan the routes under these keys; additions and replacements first, removals last.

    `tunnels` are the devices that the same plan brings about, or that are there already.
    """
    result = Plan()
    removals: list[Op] = []
    for key in keys:
        there = have.routes.get(key, ())
        wanted = want.get(key)
        ours = [r for r in there if ownership.owns(r) or r == wanted]
        if wanted is None:
            removals += [DeleteRoute(r) for r in ours if gate.may_delete(r)]
            continue
        if not wanted.oifs <= (have.links.keys() | tunnels):
            result.waiting.append(wanted)
        elif wanted in ours:
            removals += [DeleteRoute(r) for r in ours if r != wanted and gate.may_delete(r)]
        elif ours:
            result.ops.append(ReplaceRoute(old=ours[0], new=wanted))
            removals += [DeleteRoute(r) for r in ours[1:]]
        elif there:
            result.conflicts.append(RouteConflict(wanted=wanted, foreign=there[0]))
        else:
            result.ops.append(AddRoute(wanted))
    result.ops += removals
    return result


def plan_tunnels(want: Desired, have: KernelState) -> list[Op]:
    """Create tunnels that are missing and bring the others to their wanted MTU, up.

    What is another's can't serve: its creation fails, which says so, and nothing else is done.
    """
    ops: list[Op] = []
    for name, tunnel in want.tunnels.items():
        link = have.links.get(name)
        if link is not None and not can_serve(link, tunnel):
            ops.append(CreateTunnel(tunnel))
            continue
        is_as_it_is_to_be = link is not None and is_as_made(link, tunnel)
        was_refused = name in want.refused_devices
        if link is not None and must_be_made_anew(link, tunnel, was_refused=was_refused):
            ops.append(DeleteLink(name))
            link = None
        if link is None:
            ops += [CreateTunnel(tunnel), SetLink(name, tunnel.mtu)]
        elif not is_as_it_is_to_be:
            # With any word of its MAC address, even the same, the kernel forgets its neighbours.
            change = tunnel if link.mac != tunnel.mac else replace(tunnel, mac="")
            ops.append(SetLink(name, tunnel.mtu, change))
        elif not link.is_up or link.mtu != tunnel.mtu:
            ops.append(SetLink(name, tunnel.mtu))
    return ops


def must_be_made_anew(link: Link, wanted: Tunnel, *, was_refused: bool) -> bool:
    """Tell whether a device of ours can't become as wanted in place, or the kernel has said so."""
    if is_as_made(link, wanted):
        return is_too_small(link, wanted)
    return was_refused or not can_be_changed(link, wanted)


def plan_entries(want: Desired, have: KernelState) -> list[Op]:
    """Write the entries of VXLAN devices that are missing, or say something else."""
    ops: list[Op] = []
    for key, entry in sorted(want.entries.items()):
        there = have.neighbours.get(key)
        if there == entry:
            continue
        if there is not None and not there.is_ours:
            ops.append(DeleteNeighbour(there))
        ops.append(SetNeighbour(entry))
    return ops


def plan_old_entries(want: Desired, have: KernelState) -> list[Op]:
    """Delete our entries that lead to nodes no more; others' stay, and all of others' devices."""
    there = (have.links.get(name) for name in VXLAN_DEVICES.values())
    ours = [link.name for link in there if link is not None and has_our_network(link)]
    return [
        DeleteNeighbour(entry)
        for key, entry in sorted(have.neighbours.items())
        if key not in want.entries and entry.is_ours and entry.ifname in ours
    ]


def plan_pod_links(want: Desired, have: KernelState) -> list[Op]:
    """Set up the host ends of pods that somebody set down; one that is gone is gone."""
    return [
        SetLink(name, mtu=have.links[name].mtu)
        for name in sorted(want.pod_links)
        if name in have.links and not have.links[name].is_up
    ]


def plan_gateways(want: Desired, have: KernelState) -> list[Op]:
    """Give back the address by which pods with IPv6 leave to the host ends that lost it."""
    lost = (want.gateways - have.gateways) & have.links.keys()
    return [AddAddress(Address(name, GATEWAY_V6)) for name in sorted(lost)]


def plan_old_tunnels(want: Desired, have: KernelState, *, ownership: Ownership) -> list[Op]:
    """Delete our tunnels that are wanted no more and still carry an address of ours.

    `tunl0` itself can't be deleted while the ipip module is loaded: the adapter sets it down
    instead, and it must not keep the address.  With somebody else's address on it, it stays up,
    as does what is no tunnel of a kind that we make.  A VXLAN device without
    address shows by our entries that it isn't one that Calico has left.
    """
    ops: list[Op] = []
    for name in ownership.tunnels:
        if name in want.tunnels or name not in have.links:
            continue
        there = sorted((a for a in have.addresses if _counts(a, name)), key=str)
        ours = [a for a in there if _lies_in(ownership.pools, a)]
        ops += [DeleteAddress(a) for a in ours]
        link = have.links[name]
        is_tunnel = link.kind == IPIP_KIND or has_our_network(link)
        if is_tunnel and ours == there and (ours or _has_our_entries(have, name)):
            ops.append(DeleteLink(name))
    return ops


def _has_our_entries(have: KernelState, name: str) -> bool:
    return any(one.is_ours and one.ifname == name for one in have.neighbours.values())


def _counts(address: Address, name: str) -> bool:
    # The kernel gives every VXLAN device a link-local one.
    return address.ifname == name and not address.interface.is_link_local


def plan_new_addresses(want: Desired, have: KernelState) -> list[Op]:
    """Add the addresses that are missing."""
    missing = want.addresses - have.addresses
    return [AddAddress(a) for a in sorted(missing, key=str)]


def plan_old_addresses(want: Desired, have: KernelState, *, ownership: Ownership) -> list[Op]:
    """Remove addresses of our pools from our tunnels that are not the wanted ones."""
    settled = {a.ifname for a in want.addresses} & set(ownership.tunnels)
    return [
        DeleteAddress(a)
        for a in sorted(have.addresses - want.addresses, key=str)
        if a.ifname in settled and _lies_in(ownership.pools, a)
    ]


def _lies_in(pools: frozenset[IPNetwork], address: Address) -> bool:
    return any(address.interface.ip in pool for pool in pools)


def plan_sysctls(want: dict[str, str], have: dict[str, str]) -> Sequence[Op]:
    """Set those that differ; one that is absent belongs to an interface that is gone."""
    return [SetSysctl(n, v) for n, v in sorted(want.items()) if have.get(n, v) != v]


def plan_ruleset(want: Desired, have: KernelState, *, gate: Gate) -> list[Op]:
    """Replace our table when its digest differs; delete it when none is wanted."""
    if have.nat_unavailable is not None:
        return []
    if want.ruleset is not None:
        return [] if have.ruleset == want.ruleset.digest else [SetRuleset(want.ruleset)]
    if have.ruleset is not None and gate.blocks_ready:
        return [DeleteRuleset()]
    return []
