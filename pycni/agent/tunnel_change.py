"""A tunnel that comes or goes with a pool's mode: nobody sends by it whom others can't hear.

Nodes hear of a pool's new mode one after another.  A packet that comes through a tunnel is lost
where there is none; so one that is new stands a while before routes lead to it, and one that no
pool needs any more stays until the last node sends no longer by it.
"""

from collections.abc import Mapping
from math import inf

from pycni.model.resources import IPPool
from pycni.plan.inputs import Inputs, TunnelPhase, need_tunnel

READY_S = 3.0
"""Within that each node that runs has heard of a change, and has its tunnel."""
LINGER_S = 60.0


class TunnelChange:
    """Follows the pools' modes of one node; `deadline` is when `expire` has something to do."""

    def __init__(self) -> None:
        self.deadline = inf

    def heed(self, inputs: Inputs, *, before: Mapping[str, IPPool], now: float) -> None:
        """Compare the pools with what they were a moment ago."""
        there_before = [inputs.pools[name] for name in before if name in inputs.pools]
        if not need_tunnel(before.values()):
            # A pool that is new has no pods yet whose packets could go astray.
            if need_tunnel(there_before) and inputs.tunnel_phase is TunnelPhase.SETTLED:
                self._begin(inputs, TunnelPhase.COMING, until=now + READY_S)
            elif need_tunnel(inputs.pools.values()):
                self._end(inputs)  # one that was going stays, on the other nodes, too
        elif there_before and not need_tunnel(inputs.pools.values()):
            self._begin(inputs, TunnelPhase.GOING, until=now + LINGER_S)

    def expire(self, inputs: Inputs, *, now: float) -> bool:
        """End a change whose time is over; return whether there was one."""
        if now < self.deadline:
            return False
        self._end(inputs)
        return True

    def _begin(self, inputs: Inputs, phase: TunnelPhase, *, until: float) -> None:
        inputs.tunnel_phase, self.deadline = phase, until

    def _end(self, inputs: Inputs) -> None:
        inputs.tunnel_phase, self.deadline = TunnelPhase.SETTLED, inf
