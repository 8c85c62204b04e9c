"""An event loop whose time passes at once when nobody has anything to do.

Real descriptors (inotify, locks) work: what is ready goes first, and only then does time jump.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0  # Some moment: nobody may rely on a clock that begins with 0.


class _LeapingSelector(selectors.EpollSelector):
    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None:
            raise RuntimeError("everybody waits for somebody else: nothing will ever happen")
        self._clock.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop with a clock of its own; `time` is the only one that its tasks know."""

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(_LeapingSelector(self._clock))

    def time(self) -> float:
        return self._clock.now


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run a story to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(story)
