"""Locks by key across processes: one byte each of one file, so that none is made or left.

Open file description locks (fcntl(2), F_OFD_SETLK): they exclude other processes and other
openings of the file, and end with the process, however it ends.  Two tasks of one process share
the opening, so who of them holds what is kept beside it.
"""

import asyncio
import fcntl
import os
import struct
from contextlib import suppress

from pycni.errors import TryAgain

_FIRST_RETRY_S = 0.001
_LAST_RETRY_S = 0.02
# struct flock: type, whence, start, length, process (which has to be 0 here).
_FLOCK = struct.Struct("@hhqqi")
_BUSY = (BlockingIOError, PermissionError)


class KeyLocks:
    """The locks behind one path; any number of processes may have their own object."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._identity = (0, 0)
        # Which opening of the file each held byte belongs to.
        self._held: dict[int, int] = {}
        self._current()

    def __del__(self) -> None:
        """Close the file, and with it whatever is held."""
        for fd in {self._fd, *self._held.values()} - {-1}:
            os.close(fd)

    def lock(self, place: int, *, timeout_s: float, what: str) -> "Lock":
        """Return an async context manager that holds the lock of a place (0 to 2^62)."""
        return Lock(self, place, timeout_s=timeout_s, what=what)

    def take(self, place: int) -> bool:
        """Take the lock of a place; return False while somebody holds it."""
        if place in self._held:
            return False
        fd = self._current()
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, place, 1, 0))
        except _BUSY:
            return False
        self._held[place] = fd
        return True

    def free(self, place: int) -> None:
        """Give the lock of a place back."""
        fd = self._held.pop(place)
        if fd != self._fd and fd not in self._held.values():
            os.close(fd)
            return
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, 0, place, 1, 0))

    def _current(self) -> int:
        """Return the file that everybody else opens now: somebody may have deleted ours."""
        with suppress(FileNotFoundError):
            if self._identity == _identity(os.stat(self._path)):  # noqa: PTH116  # for each request
                return self._fd
        if self._fd >= 0 and self._fd not in self._held.values():
            os.close(self._fd)
        self._fd, self._identity = -1, (0, 0)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._identity = _identity(os.fstat(self._fd))
        return self._fd


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class Lock:
    """A lock while it is wanted or held; each request takes one, so it is no generator."""

    __slots__ = ("_locks", "_place", "_timeout_s", "_what")

    def __init__(self, locks: KeyLocks, place: int, *, timeout_s: float, what: str) -> None:
        self._locks = locks
        self._place = place
        self._timeout_s = timeout_s
        self._what = what

    async def __aenter__(self) -> None:
        if not self._locks.take(self._place):
            await self._wait()

    async def __aexit__(self, *_: object) -> None:
        self._locks.free(self._place)

    async def _wait(self) -> None:
        """Try again and again, without ever blocking the event loop."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        delay = _FIRST_RETRY_S
        while loop.time() < deadline:
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LAST_RETRY_S)
            if self._locks.take(self._place):
                return
        raise TryAgain(
            f"another request for {self._what} has been running for over {self._timeout_s:g} s:"
            " try again"
        )
