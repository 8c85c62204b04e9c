"""Notice when somebody keeps undoing our work, and back off.

Another BIRD on the node with `metric 0` in its kernel protocol deletes every route of protocol 12
that it doesn't know: answering each deletion at once would burn a core for nothing.  Pure: time is
an argument.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

WINDOW_S = 10.0
TOLERATED_REPAIRS = 20
"""How many repairs of one thing within the window pass for bad luck."""

FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 30.0


@dataclass(slots=True)
class _History:
    times: deque[float] = field(default_factory=deque)
    pause_s: float = 0.0
    until: float = 0.0


class Repairs:
    """How often each thing was repaired lately."""

    def __init__(self) -> None:
        self._histories: dict[Hashable, _History] = {}

    def may_repair(self, thing: Hashable, *, now: float) -> bool:
        """Count one repair; False while it has to wait."""
        history = self._histories.setdefault(thing, _History())
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
