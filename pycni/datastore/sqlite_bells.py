"""Waking the watches of one handle: one look for all of them, soon after a write, or once a second.

A write, ours or another process's (which inotify reports), leads to one look at the log after a
short while, which serves the whole burst; the look wakes only those whose kind has changed.  A
slow periodic look covers writers that died between commit and bell.  Knows nothing of SQLite: how
to look is handed in.
"""

import asyncio
from collections.abc import Callable, Container
from contextlib import suppress
from pathlib import Path

from pycni import inotify
from pycni.errors import EventsLost

FALLBACK_S = 1.0
GATHER_S = 0.02

Look = Callable[[], Container[str] | None]


class Bells:
    """One bell for each watch.  `look` tells which kinds changed since it was called last.

    It tells None when anything may have changed, or when it cannot tell: then all are woken, and
    each watch meets the trouble itself.
    """

    def __init__(self, path: Path, *, look: Look) -> None:
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[asyncio.Event, str] = {}
        self._is_expecting = False
        self._inotify: inotify.DirectoryWatch | None = None
        try:
            self._inotify = inotify.DirectoryWatch(path.parent, mask=inotify.ATTRIBUTES)
        except OSError:
            # Out of inotify instances: the periodic look has to do.
            pass
        else:
            self._loop.add_reader(self._inotify.fileno(), self.expect)
        self._timer = self._loop.call_later(FALLBACK_S, self._on_time)

    def join(self, kind: str) -> asyncio.Event:
        """Return a bell that rings after changes of one kind."""
        bell = asyncio.Event()
        self._waiting[bell] = kind
        return bell

    def leave(self, bell: asyncio.Event) -> None:
        """Forget a bell."""
        self._waiting.pop(bell, None)

    def expect(self) -> None:
        """Look soon: something was written."""
        if self._is_expecting:
            return
        self._is_expecting = True
        if self._inotify is not None:
            # Not before the look: each write of the burst would wake the loop for nothing.
            self._loop.remove_reader(self._inotify.fileno())
        self._timer.cancel()
        self._timer = self._loop.call_later(GATHER_S, self._on_time)

    def ring(self, kinds: Container[str] | None) -> None:
        """Wake the watches of these kinds; None wakes all."""
        for bell, kind in self._waiting.items():
            if kinds is None or kind in kinds:
                bell.set()

    def _on_time(self) -> None:
        if self._is_expecting and self._inotify is not None:
            self._drain(self._inotify)
        self._is_expecting = False
        self._timer = self._loop.call_later(FALLBACK_S, self._on_time)
        self.ring(self._look())

    def _drain(self, watch: inotify.DirectoryWatch) -> None:
        # The look that follows misses nothing; where the directory went, it fails.
        with suppress(EventsLost):
            watch.read()
        self._loop.add_reader(watch.fileno(), self.expect)

    def close(self) -> None:
        """Wake everybody for the last time."""
        self.ring(None)
        self._timer.cancel()
        if self._inotify is not None:
            self._loop.remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None
