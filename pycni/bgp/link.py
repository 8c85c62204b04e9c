"""One life of the two pipes between ExaBGP and us.

ExaBGP's write to its helper blocks, and a full pipe freezes every BGP session; so reading never
waits for anybody: each line goes straight to the callback.  Answers ("done", "error") come in the
order of the commands and after every event that was written before them.
"""

import asyncio
import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

F_SETPIPE_SZ = 1031
PIPE_SIZE = 1 << 20
"""The largest pipe an ordinary user may have (fs.pipe-max-size)."""


@dataclass(slots=True)
class _Pending:
    command: str
    answer: asyncio.Future["Answer"]
    text: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """What ExaBGP said to one command: whether it was done, and the text lines before that."""

    is_done: bool
    text: tuple[bytes, ...]


class LinkLost(Exception):
    """The pipes are gone: whatever was asked will not be answered."""


class Link(asyncio.Protocol):
    """The pipes of one ExaBGP process; `on_event` gets JSON lines, `on_lost` is called once."""

    def __init__(
        self, *, on_event: Callable[[bytes], None], on_lost: Callable[[str], None]
    ) -> None:
        self._on_event = on_event
        self._on_lost = on_lost
        self._pending: deque[_Pending] = deque()
        self._buffer = bytearray()
        self._reader: asyncio.BaseTransport | None = None
        self._writer: asyncio.WriteTransport | None = None
        self._is_lost = False

    async def open(self, *, read_fd: int, write_fd: int) -> None:
        """Take over both descriptors."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # only a matter of comfort
            fcntl.fcntl(read_fd, F_SETPIPE_SZ, PIPE_SIZE)
        # Writing first: the first line that is read may call for an answer.
        self._writer, _ = await loop.connect_write_pipe(
            lambda: _WriteSide(self), os.fdopen(write_fd, "wb", buffering=0)
        )
        self._reader, _ = await loop.connect_read_pipe(
            lambda: self, os.fdopen(read_fd, "rb", buffering=0)
        )

    def command(self, command: str) -> asyncio.Future[Answer]:
        """Send one command; the future gives its answer or `LinkLost`."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self._is_lost or self._writer is None:
            future.set_exception(LinkLost(f"cannot send {command!r}: ExaBGP is gone"))
            return future
        self._pending.append(_Pending(command, future))
        self._writer.write(command.encode("ascii") + b"\n")
        return future

    def close(self) -> None:
        """Close both pipes; ExaBGP's helper ends, too."""
        self.lose("closed by us")

    def lose(self, reason: str) -> None:
        """Note that the pipes are of no use any more; tell everybody who waits, once."""
        if self._is_lost:
            return
        self._is_lost = True
        for transport in (self._reader, self._writer):
            if transport is not None:
                transport.close()
        for pending in self._pending:
            if not pending.answer.done():
                pending.answer.set_exception(LinkLost(f"{pending.command!r}: {reason}"))
                pending.answer.exception()  # nobody is obliged to ask for it
        self._pending.clear()
        self._on_lost(reason)

    # --- asyncio.Protocol, read side ------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Split into lines; keep the rest of an unfinished one."""
        self._buffer += data
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer[:] = rest
        for line in lines:
            self._line(line.strip())

    def connection_lost(self, exc: Exception | None) -> None:
        """ExaBGP closed its end, or died."""
        self.lose(f"ExaBGP closed the pipe{f': {exc}' if exc else ''}")

    def _line(self, line: bytes) -> None:
        if line.startswith(b"{"):
            self._on_event(line)
        elif line in (b"done", b"error"):
            if self._pending:
                pending = self._pending.popleft()
                if not pending.answer.done():
                    pending.answer.set_result(Answer(line == b"done", tuple(pending.text)))
        elif line and self._pending:
            self._pending[0].text.append(line)


class _WriteSide(asyncio.Protocol):
    """Notices that ExaBGP no longer reads."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.lose(f"ExaBGP no longer reads{f': {exc}' if exc else ''}")
