"""Notice when somebody keeps undoing our work, and back off.

Another BIRD on the node with `metric 0` in its kernel protocol deletes every route of protocol 12
that it doesn't know: answering each deletion at once would burn a core for nothing.  A block that
comes and goes because others want it so is no such fight: what we do then isn't what we did before.
Pure: time is an argument.
"""

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from pycni.model.network import (
    AddAddress,
    AddRoute,
    DeleteRoute,
    Op,
    ReplaceRoute,
    Route,
    RouteKey,
    SetLink,
    SetNeighbour,
    SetRuleset,
    SetSysctl,
)

WINDOW_S = 10.0
TOLERATED_REPAIRS = 20
"""How many repairs of one thing within the window pass for bad luck."""

FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 30.0


@dataclass(slots=True)
class _History:
    goal: Hashable
    times: deque[float] = field(default_factory=deque)
    pause_s: float = 0.0
    until: float = 0.0


class Repairs:
    """How often each thing was repaired lately."""

    def __init__(self) -> None:
        self._histories: dict[Hashable, _History] = {}

    def may_repair(self, thing: Hashable, goal: Hashable = None, *, now: float) -> bool:
        """Count one repair; False while it has to wait.

        `goal` is how the thing is to be: with another one than before we mend nothing, but have
        changed our mind, and the count begins anew.
        """
        history = self._histories.get(thing)
        if history is None or history.goal != goal:
            history = self._histories[thing] = _History(goal)
        if now < history.until:
            return False
        while history.times and history.times[0] < now - WINDOW_S:
            history.times.popleft()
        if now > history.until + WINDOW_S:
            history.pause_s = 0.0  # peace for as long as a pause may hide a fight
        history.times.append(now)
        if len(history.times) > TOLERATED_REPAIRS:
            history.pause_s = min(max(history.pause_s * 2, FIRST_PAUSE_S), LAST_PAUSE_S)
            history.until = now + history.pause_s
        return True

    def take_back(self, thing: Hashable) -> None:
        """Uncount the latest repair, which was put off."""
        history = self._histories.get(thing)
        if history is not None and history.times:
            history.times.pop()
            history.until = 0.0 if len(history.times) <= TOLERATED_REPAIRS else history.until

    def fights(self, *, now: float) -> list[Hashable]:
        """Return the things that somebody keeps undoing."""
        return [thing for thing, h in self._histories.items() if now < h.until]

    def next_end(self, *, now: float) -> float | None:
        """Return when the next pause ends, None when nothing pauses."""
        return min((h.until for h in self._histories.values() if h.until > now), default=None)

    def forget_old(self, *, now: float) -> None:
        """Drop histories that are over, so that the table doesn't grow for ever."""
        over = [
            thing
            for thing, h in self._histories.items()
            if now > h.until + WINDOW_S and (not h.times or h.times[-1] < now - WINDOW_S)
        ]
        for thing in over:
            del self._histories[thing]


def subject(op: Op) -> Hashable:
    """Return what an operation is about, to count repairs of the same thing."""
    match op:
        case AddRoute() | DeleteRoute():
            return ("route", op.route.key)
        case ReplaceRoute():
            return ("route", op.new.key)
        case SetLink():
            return ("link", op.name)
        case AddAddress():
            return ("address", op.address)
        case SetNeighbour():
            return op.entry.key
        case SetSysctl():
            return ("sysctl", op.name)
        case SetRuleset():
            return ("nftables", "table")
        case _:
            return op


def goal(op: Op, routes: Mapping[RouteKey, Route]) -> Hashable:
    """Return how its subject is to be afterwards, where that can change by what others tell us.

    `routes` are the wanted ones: another route of ours beside one of these goes for its sake.
    """
    match op:
        case AddRoute() | DeleteRoute():
            return routes.get(op.route.key)
        case ReplaceRoute():
            return routes.get(op.new.key)
        case SetNeighbour():
            return op.entry
        case _:
            return None
