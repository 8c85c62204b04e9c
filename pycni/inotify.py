"""Hearing of changes in one directory: Linux inotify(7) without a dependency.

Base shell, used where several processes share files.  It reports and decides nothing; a reader
that loses events gets `EventsLost` and looks at the whole directory again.
"""

import asyncio
import errno
import os
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pycni.errors import EventsLost

ATTRIBUTES = 0x0004
CLOSE_WRITE = 0x0008
MOVED_FROM = 0x0040
MOVED_TO = 0x0080
CREATED = 0x0100
DELETED = 0x0200
# A file is written and complete, appears by rename, or disappears.
CONTENTS = CLOSE_WRITE | MOVED_FROM | MOVED_TO | DELETED

_DELETE_SELF = 0x0400
_MOVE_SELF = 0x0800
_OVERFLOW = 0x4000
_IGNORED = 0x8000
_ONLY_DIRECTORY = 0x0100_0000
_HEADER = struct.Struct("iIII")
# All processes of a user share these (inotify(7)); a kubelet and its pods use up many.
_LIMITS = {
    errno.EMFILE: "too many inotify instances on this machine:"
    " sysctl -w fs.inotify.max_user_instances=1024 (and raise it in /etc/sysctl.d)",
    errno.ENOSPC: "too many inotify watches on this machine:"
    " sysctl -w fs.inotify.max_user_watches=524288 (and raise it in /etc/sysctl.d)",
}
_BUFFER = 65536


@dataclass(frozen=True, slots=True)
class FileEvent:
    """Something happened to the file of this name; `mask` says what (CREATED, DELETED, …)."""

    name: str
    mask: int


class DirectoryWatch:
    """An inotify descriptor on one directory, from the moment of its making until `close`.

    Either poll `fileno` and call `read`, or iterate: `async for events in watch`.
    """

    def __init__(self, directory: Path, *, mask: int = CONTENTS) -> None:
        # Imported late: ctypes takes longer to load than most requests take to serve.
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        self._directory = directory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self._fd < 0:
            raise _failure(ctypes.get_errno(), directory)
        wanted = mask | _DELETE_SELF | _MOVE_SELF | _ONLY_DIRECTORY
        if libc.inotify_add_watch(self._fd, os.fsencode(directory), wanted) < 0:
            error = ctypes.get_errno()
            self.close()
            raise _failure(error, directory)

    def fileno(self) -> int:
        """Return the descriptor; it is readable when there are events."""
        return self._fd

    def close(self) -> None:
        """Stop watching; closing twice is harmless."""
        if self._fd >= 0:
            self._forget_reader()
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> tuple[FileEvent, ...]:
        """Return the events since the last call, perhaps none; never wait.

        Raises `EventsLost` when the kernel's queue ran over or the directory itself went away.
        """
        try:
            raw = os.read(self._fd, _BUFFER)
        except BlockingIOError:
            return ()
        events: list[FileEvent] = []
        at = 0
        while at < len(raw):
            _, mask, _, length = _HEADER.unpack_from(raw, at)
            at += _HEADER.size
            name = os.fsdecode(raw[at : at + length].rstrip(b"\0"))
            at += length
            if mask & _OVERFLOW:
                raise EventsLost(f"too many changes at once in {self._directory}: read it again")
            if mask & (_IGNORED | _DELETE_SELF | _MOVE_SELF):
                raise EventsLost(f"{self._directory} was deleted or moved: watch the new one")
            events.append(FileEvent(name, mask))
        return tuple(events)

    async def __aiter__(self) -> AsyncIterator[tuple[FileEvent, ...]]:
        """Yield batches of events until the watch is closed by leaving the loop."""
        loop = asyncio.get_running_loop()
        is_readable = asyncio.Event()
        self._loop = loop
        try:
            while True:
                # Watched only while we wait: while the consumer is busy, or takes its time, a
                # readable descriptor would keep the loop turning.
                loop.add_reader(self._fd, is_readable.set)
                await is_readable.wait()
                loop.remove_reader(self._fd)
                is_readable.clear()
                if events := self.read():
                    yield events
        finally:
            self._forget_reader()

    def _forget_reader(self) -> None:
        """Take the descriptor from the event loop, before it is closed.

        The number is soon another file's, and a loop that still has it would never watch that.
        """
        if self._loop is not None and self._fd >= 0:
            self._loop.remove_reader(self._fd)
        self._loop = None


def _failure(error: int, directory: Path) -> OSError:
    why = _LIMITS.get(error, os.strerror(error))
    return OSError(error, f"cannot watch {directory}: {why}", str(directory))
