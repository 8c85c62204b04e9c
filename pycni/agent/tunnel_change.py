"""A tunnel that comes or goes with a pool's mode: nobody sends by it whom others can't hear.

Nodes hear of a pool's new mode one after another.  A packet that comes through a tunnel is lost
where there is none; so one that is new stands a while before routes lead to it, and one that no
pool needs any more stays until the last node sends no longer by it.

An agent that restarts in the middle finds in the kernel by what packets of each pool have gone.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import inf

from pycni.model.network import MAIN_TABLE, KernelState
from pycni.model.resources import IPPool, TunnelMode
from pycni.model.tunnels import TunnelKind, tunnel_mode, tunnel_of
from pycni.plan.inputs import Inputs, TunnelPhase, need_tunnel
from pycni.plan.overlay import device_of

_Ways = dict[str, set[TunnelKind | None]]
"""By pool: the tunnels by which routes leave, None for those by the underlay."""

READY_S = 3.0
"""Within that each node that runs has heard of a change, and has its tunnel."""
LINGER_S = 60.0


class TunnelChange:
    """Follows the pools' modes of one node; `deadline` is when `expire` has something to do."""

    def __init__(self) -> None:
        self._phases: dict[TunnelKind, float] = {}
        self._formers: dict[str, float] = {}

    @property
    def deadline(self) -> float:
        """Return when the next change is over; inf when there is none."""
        return min((*self._phases.values(), *self._formers.values()), default=inf)

    def heed(self, inputs: Inputs, *, before: Mapping[str, IPPool], now: float) -> None:
        """Compare the pools with what they were a moment ago."""
        for kind in TunnelKind:
            self._heed_kind(inputs, kind, before=before, now=now)
        for name, old in before.items():
            self._heed_pool(inputs, name, old=old, now=now)

    def _heed_kind(
        self, inputs: Inputs, kind: TunnelKind, *, before: Mapping[str, IPPool], now: float
    ) -> None:
        there_before = [inputs.pools[name] for name in before if name in inputs.pools]
        if not need_tunnel(before.values(), kind):
            # A pool that is new has no pods yet whose packets could go astray.
            is_settled = inputs.phase_of(kind) is TunnelPhase.SETTLED
            if need_tunnel(there_before, kind) and is_settled:
                self._begin(inputs, kind, TunnelPhase.COMING, until=now + READY_S)
            elif need_tunnel(inputs.pools.values(), kind):
                self._end(inputs, kind)  # one that was going stays, on the other nodes, too
        elif there_before and not need_tunnel(inputs.pools.values(), kind):
            self._begin(inputs, kind, TunnelPhase.GOING, until=now + LINGER_S)

    def _heed_pool(self, inputs: Inputs, name: str, *, old: IPPool, now: float) -> None:
        """Remember by what a pool's packets went, as long as its new tunnel may lead nowhere.

        By VXLAN nobody is reached before he has an address inside, and others know it.
        """
        pool = inputs.pools.get(name)
        kind = tunnel_of(pool) if pool is not None else None
        if kind is None:
            self._forget(inputs, name)
        elif kind is not tunnel_of(old):
            is_coming = inputs.phase_of(kind) is TunnelPhase.COMING
            if is_coming or kind.is_vxlan:
                self._remember(inputs, old, kind=kind, now=now)

    def recall(self, inputs: Inputs, have: KernelState, *, now: float) -> None:
        """Take up at the start what an agent before had in hand, as the kernel shows it.

        Also a change that was made while no agent ran: it is as new to this node.
        """
        ways = _ways_of(inputs, have)
        used = {way for found in ways.values() for way in found}
        for name, pool in inputs.pools.items():
            kind, former = tunnel_of(pool), _former_of(pool, ways.get(name, set()))
            if kind is None or former is None:
                continue
            self._remember(inputs, former, kind=kind, now=now)
            if kind not in used:
                self._begin(inputs, kind, TunnelPhase.COMING, until=now + READY_S)
        for kind in TunnelKind:
            # Its routes are there while others lead elsewhere yet, also without its address.
            is_there = kind in used or _stands(inputs, have, kind)
            if is_there and not need_tunnel(inputs.pools.values(), kind):
                self._begin(inputs, kind, TunnelPhase.GOING, until=now + LINGER_S)

    def expire(self, inputs: Inputs, *, now: float) -> bool:
        """End the changes whose time is over; return whether there were any."""
        kinds = [kind for kind, until in self._phases.items() if now >= until]
        names = [name for name, until in self._formers.items() if now >= until]
        for kind in kinds:
            self._end(inputs, kind)
        for name in names:
            self._forget(inputs, name)
        return bool(kinds or names)

    def _begin(self, inputs: Inputs, kind: TunnelKind, phase: TunnelPhase, *, until: float) -> None:
        inputs.tunnel_phases[kind], self._phases[kind] = phase, until

    def _end(self, inputs: Inputs, kind: TunnelKind) -> None:
        inputs.tunnel_phases.pop(kind, None)
        self._phases.pop(kind, None)

    def _remember(self, inputs: Inputs, former: IPPool, *, kind: TunnelKind, now: float) -> None:
        inputs.formers[former.name] = former
        self._formers[former.name] = now + (LINGER_S if kind.is_vxlan else READY_S)

    def _forget(self, inputs: Inputs, name: str) -> None:
        inputs.formers.pop(name, None)
        self._formers.pop(name, None)


# --- what the kernel shows ----------------------------------------------------------------------


def _ways_of(inputs: Inputs, have: KernelState) -> _Ways:
    """Return by which ways the learned routes that a predecessor left lead out of each pool."""
    kinds = {device_of(inputs.settings, kind): kind for kind in TunnelKind}
    ways: _Ways = {}
    for key, routes in have.routes.items():
        hops = [
            hop
            for route in routes
            if route.protocol == inputs.settings.route_protocol and key.table == MAIN_TABLE
            for hop in route.next_hops
            if hop.gateway is not None
        ]
        pool = inputs.pool_of(key.dst) if hops else None
        if pool is not None:
            ways.setdefault(pool.name, set()).update(kinds.get(hop.oif) for hop in hops)
    return ways


def _former_of(pool: IPPool, ways: set[TunnelKind | None]) -> IPPool | None:
    """Return a pool as its routes still have it, None where they are as it says."""
    kind = tunnel_of(pool)
    never = replace(pool, ipip_mode=TunnelMode.NEVER, vxlan_mode=TunnelMode.NEVER)
    others = ways - {kind, None}
    if others:
        mode = TunnelMode.CROSS_SUBNET if None in ways else TunnelMode.ALWAYS
        is_ipip = TunnelKind.IPIP in others
        return replace(never, ipip_mode=mode) if is_ipip else replace(never, vxlan_mode=mode)
    # By the underlay alone: with CrossSubnet that may be as it is to be, and is no loss otherwise.
    return never if ways == {None} and tunnel_mode(pool) is TunnelMode.ALWAYS else None


def _stands(inputs: Inputs, have: KernelState, kind: TunnelKind) -> bool:
    """Tell whether a tunnel's device is up with an address of a pool that is still there.

    A pool that is gone has no pods any more whose packets might come.
    """
    name = device_of(inputs.settings, kind)
    link = have.links.get(name)
    if link is None or not link.is_up:
        return False
    own = [a.interface.ip for a in have.addresses if a.ifname == name]
    return any(address in pool.cidr for address in own for pool in inputs.pools.values())
