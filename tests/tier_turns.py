"""Whose turn it is: tiers and files that run side by side share what the machine can bear."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import threading
from collections.abc import Iterator

ONE_PROCESSOR = 2
"""The weight of what keeps a processor busy; a test file mostly waits and weighs half of that."""
CAPACITY = ONE_PROCESSOR * min(4, os.cpu_count() or 1)
ALONE = CAPACITY
"""The weight of what goes by a clock."""
SOON, LONG, USUAL, LAST = range(4)
"""Ranks: what is told soon goes first, what would be waited for at the end before the rest."""


class Turns:
    """Give everybody a turn: by rank, then in the order in which they asked."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._free = capacity
        self._waiting: list[tuple[int, int]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Count those who wait."""
        return len(self._waiting)

    @contextlib.contextmanager
    def turn(self, weight: int, rank: int = USUAL) -> Iterator[None]:
        """Wait until the machine bears `weight` more, and carry it for the length of a block.

        Nobody overtakes the first who waits: what is heavy would never have its turn.
        """
        weight = min(weight, self._capacity)
        with self._changed:
            mine = (rank, next(self._numbers))
            heapq.heappush(self._waiting, mine)
            self._changed.wait_for(lambda: self._waiting[0] == mine and weight <= self._free)
            heapq.heappop(self._waiting)
            self._free -= weight
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += weight
                self._changed.notify_all()
