"""A tunnel that comes or goes with a pool's mode: nobody sends by it whom others can't hear.

Nodes hear of a pool's new mode one after another.  A packet that comes through a tunnel is lost
where there is none; so one that is new stands a while before routes lead to it, and one that no
pool needs any more stays until the last node sends no longer by it.
"""

from collections.abc import Mapping
from math import inf

from pycni.model.resources import IPPool
from pycni.model.tunnels import TunnelKind, tunnel_of
from pycni.plan.inputs import Inputs, TunnelPhase, need_tunnel

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
                inputs.formers[name] = old
                self._formers[name] = now + (LINGER_S if kind.is_vxlan else READY_S)

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

    def _forget(self, inputs: Inputs, name: str) -> None:
        inputs.formers.pop(name, None)
        self._formers.pop(name, None)
