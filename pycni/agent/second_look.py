"""Know when to read the kernel again because others write the routes that we write.

What we write isn't told to us, and what others write may be told late: it looks as if it had come
after ours, though it came before.  Mostly an operation fails for that, and a failure has the kernel
read.  But where another has put back a route before we removed it, and then we want it again, the
picture shows it, and nothing would be done for a minute.

Pure: time is an argument.
"""

from collections.abc import Iterable
from math import inf

from pycni.model.network import (
    AddRoute,
    DeleteRoute,
    KernelEvent,
    Op,
    ReplaceRoute,
    RouteChanged,
    RouteKey,
)

LOOK_S = 1.0
"""One look is for all that others do within this time: it lists every route."""

KEPT_S = 60.0
"""How long we remember at least what we wrote; nothing is told as late as that."""


class SecondLook:
    """Which routes we wrote lately, and when to look what has become of them."""

    def __init__(self) -> None:
        self.due_at = inf
        self._latest: set[RouteKey] = set()
        self._older: set[RouteKey] = set()
        self._older_until = -inf

    def note(self, ops: Iterable[Op], *, now: float) -> None:
        """Remember what we are about to write."""
        if now >= self._older_until:
            self._older, self._latest = self._latest, set()
            self._older_until = now + KEPT_S
        for op in ops:
            if isinstance(op, AddRoute | DeleteRoute):
                self._latest.add(op.route.key)
            elif isinstance(op, ReplaceRoute):
                self._latest.add(op.new.key)

    def heed(self, event: KernelEvent, *, now: float) -> None:
        """Plan a look when another program has written one of these routes."""
        if not isinstance(event, RouteChanged):
            return
        key = event.route.key
        if key in self._latest or key in self._older:
            self.due_at = min(self.due_at, now + LOOK_S)

    def begin(self) -> None:
        """Take note that the kernel is being read: what is heard from now on needs a new look."""
        self.due_at = inf
