"""Carry many byte streams over one serial line.

One side (`serve_clients`) accepts on a unix socket; for every client the other side
(`serve_target`) connects to a unix socket of its own, and the two are joined: data unaltered,
half-close passed on, a vanished end reset. Addresses: a path, or @name for an abstract one.

No deadlock by construction: data is sent only into room that the receiver has announced (credit),
so receiving never waits for a slow reader, and the line is always drained. A line at whose end
nobody is heard for DEAD_AFTER_S is dead, and all its streams are reset.

Knows nothing of what it carries, nor of what the line is made of.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import termios
import tty
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from pycni.errors import InvalidInput, TryAgain
from pycni.lab.mux_frames import (
    HELLO,
    MAX_PAYLOAD,
    Decoder,
    Frame,
    Kind,
    credit,
    encode,
    encoded_size,
    heard,
)

# How much of one stream may be on its way: a serial line is slow, so this is plenty.
WINDOW = 65536
# How much may wait for the line before those who produce more have to wait.
LINE_BUFFER = 16384
READ_SIZE = 65536
# How much of the line may be unread at its far end. A terminal of user-mode Linux that has 4 KiB
# unread stops taking more, and sometimes never starts again; so it must not come to that.
PACE = 2048
ALIVE_EVERY_S = 5.0
DEAD_AFTER_S = 30.0
PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid

Connect = Callable[[], Awaitable[socket.socket]]


class Line:
    """What carries bytes both ways: a socket, a terminal, or two pipes."""

    def __init__(self, reading: int, writing: int | None = None) -> None:
        self._reading = reading
        self._writing = reading if writing is None else writing
        for descriptor in (self._reading, self._writing):
            os.set_blocking(descriptor, False)
            if os.isatty(descriptor):
                tty.setraw(descriptor, termios.TCSANOW)

    async def read(self) -> bytes:
        """Return what has come; empty when the other end is gone."""
        while True:
            try:
                return os.read(self._reading, READ_SIZE)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await _ready(self._reading, watch=loop.add_reader, forget=loop.remove_reader)
            except OSError as error:
                if error.errno in (errno.EIO, errno.ECONNRESET):
                    return b""
                raise

    async def write(self, octets: bytes) -> None:
        """Write all of it."""
        rest = memoryview(octets)
        while rest:
            try:
                rest = rest[os.write(self._writing, rest) :]
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await _ready(self._writing, watch=loop.add_writer, forget=loop.remove_writer)


async def _ready(
    descriptor: int, *, watch: Callable[..., None], forget: Callable[[int], bool]
) -> None:
    """Wait until a descriptor can be read or written once more."""
    ready = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    watch(descriptor, wake)
    try:
        await ready
    finally:
        forget(descriptor)


@dataclass(slots=True, eq=False)
class Stream:
    """One joined pair of sockets, seen from one side; owned by its Mux."""

    number: int
    arrived: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    room: int = WINDOW  # how much the other side can still take
    has_room: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Mux:
    """One side of the line: run() until the line ends, join() to carry a socket's bytes."""

    def __init__(self, line: Line, *, connect: Connect | None = None) -> None:
        self._line = line
        self._connect = connect
        self._streams: dict[int, Stream] = {}
        self._next_number = 1
        self._outgoing: deque[bytes] = deque()
        self._urgent: deque[bytes] = deque()
        self._unread = 0
        self._unheard = 0
        self._outgoing_size = 0
        self._to_write = asyncio.Event()
        self._line_has_room = asyncio.Event()
        self._line_has_room.set()
        self._group: asyncio.TaskGroup | None = None

    @property
    def stream_count(self) -> int:
        """Count the open streams."""
        return len(self._streams)

    async def run(self, *, already_read: bytes = b"") -> None:
        """Carry until the line ends; every stream is reset then. InvalidInput: it is broken."""
        broken: InvalidInput | None = None
        async with asyncio.TaskGroup() as group:
            self._group = group
            writer = group.create_task(self._write_line(), name="mux line writer")
            alive = group.create_task(self._stay_alive(), name="mux keep-alive")
            try:
                await self._read_line(already_read)
            except InvalidInput as error:
                broken = error  # raised below: inside, it would come out wrapped in a group
            finally:
                self._group = None
                for task in (writer, alive, *self._tasks()):
                    task.cancel()
        if broken is not None:
            raise broken

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [stream.task for stream in self._streams.values() if stream.task is not None]

    def join(self, local: socket.socket) -> None:
        """Open a stream for a socket; both belong to this object from now on."""

        async def connected() -> socket.socket:
            return local

        stream = Stream(self._next_number)
        self._next_number += 1
        task = self._begin(stream, connected)
        # Also when the task is cancelled before its first step.
        task.add_done_callback(lambda _: local.close())
        self._send(Frame(Kind.OPEN, stream.number))

    def _begin(self, stream: Stream, connect: Connect) -> asyncio.Task[None]:
        if self._group is None:
            raise TryAgain("the line is not running")
        self._streams[stream.number] = stream
        name = f"mux stream {stream.number}"
        stream.task = self._group.create_task(self._carry(stream, connect), name=name)
        return stream.task

    # --- the line ---

    def _send(self, frame: Frame) -> None:
        octets = encode(frame)
        if frame.kind is Kind.HEARD:
            # Never held back, or two full lines would wait for each other.
            self._urgent.append(octets)
            self._to_write.set()
            return
        self._outgoing.append(octets)
        self._outgoing_size += len(octets)
        self._to_write.set()
        if self._outgoing_size > LINE_BUFFER:
            self._line_has_room.clear()

    async def _write_line(self) -> None:
        while True:
            await self._to_write.wait()
            octets = self._next_piece()
            if not octets:
                self._to_write.clear()
                continue
            try:
                await self._line.write(octets)
            except OSError:
                return  # the reader hears of it too, and it is the one who decides
            if self._outgoing_size <= LINE_BUFFER:
                self._line_has_room.set()

    def _next_piece(self) -> bytes:
        """Take what the line may carry now: whole frames, as many as the far end has room for."""
        pieces = list(self._urgent)
        self._urgent.clear()
        while self._outgoing and self._unread + len(self._outgoing[0]) <= PACE:
            octets = self._outgoing.popleft()
            self._outgoing_size -= len(octets)
            self._unread += len(octets)
            pieces.append(octets)
        return b"".join(pieces)

    async def _stay_alive(self) -> None:
        while True:
            await asyncio.sleep(ALIVE_EVERY_S)
            self._send(Frame(Kind.ALIVE, 0))

    async def _read_line(self, piece: bytes) -> None:
        decoder = Decoder()
        while True:
            for frame in decoder.feed(piece):
                self._receive(frame)
            try:
                async with asyncio.timeout(DEAD_AFTER_S):
                    piece = await self._line.read()
            except TimeoutError:
                return
            if not piece:
                return

    def _receive(self, frame: Frame) -> None:
        """Take one frame; never waits, or a slow stream would hold up all others."""
        if frame.kind is Kind.HEARD:
            self._unread -= frame.credit
            self._to_write.set()
            return
        self._unheard += encoded_size(frame)
        if self._unheard >= PACE // 4:
            self._send(heard(self._unheard))
            self._unheard = 0
        stream = self._streams.get(frame.stream)
        if frame.kind is Kind.OPEN and stream is None and self._connect is not None:
            self._begin(Stream(frame.stream), self._connect)
        elif stream is None:
            # Of a stream that was reset on this side a moment ago; its other end knows by now.
            pass
        elif frame.kind is Kind.DATA:
            self._take_data(stream, frame.payload)
        elif frame.kind is Kind.FIN:
            stream.arrived.put_nowait(b"")
        elif frame.kind is Kind.CREDIT:
            stream.room += frame.credit
            stream.has_room.set()
        elif frame.kind is Kind.RESET and stream.task is not None:
            self._streams.pop(stream.number)
            stream.task.cancel()

    def _take_data(self, stream: Stream, payload: bytes) -> None:
        if payload:  # an empty one would look like the end
            stream.arrived.put_nowait(payload)

    # --- one stream ---

    async def _carry(self, stream: Stream, connect: Connect) -> None:
        """Be a stream: both directions until both have ended, or one of them broke."""
        try:
            with contextlib.closing(await connect()) as local:
                local.setblocking(False)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._send_local(stream, local))
                    both.create_task(self._receive_into(stream, local))
        except* OSError:
            # Refused, or the socket's other end vanished: the far side must hear of it.
            self._send(Frame(Kind.RESET, stream.number))
        finally:
            self._streams.pop(stream.number, None)

    async def _send_local(self, stream: Stream, local: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not stream.room:
                stream.has_room.clear()
                await stream.has_room.wait()
            await self._line_has_room.wait()
            chunk = await loop.sock_recv(local, min(stream.room, MAX_PAYLOAD))
            if not chunk:
                self._send(Frame(Kind.FIN, stream.number))
                return
            stream.room -= len(chunk)
            self._send(Frame(Kind.DATA, stream.number, chunk))

    async def _receive_into(self, stream: Stream, local: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        consumed = 0
        while chunk := await stream.arrived.get():
            await loop.sock_sendall(local, chunk)
            consumed += len(chunk)
            # Not for each frame: a credit costs as much of the line as a keystroke.
            if consumed >= WINDOW // 4:
                self._send(credit(stream.number, consumed))
                consumed = 0
        with contextlib.suppress(OSError):  # it may be gone: then nobody misses the end
            local.shutdown(socket.SHUT_WR)


def socket_address(text: str) -> str:
    """Translate @name, as tools print abstract addresses, into what the kernel takes."""
    return f"\0{text[1:]}" if text.startswith("@") else text


async def wait_for_hello(line: Line) -> bytes:
    """Skip the line's noise up to the other side's first word; return what follows it."""
    seen = b""
    while HELLO not in seen:
        piece = await line.read()
        if not piece:
            raise TryAgain("the line ended before the other side was there")
        # Only what may still become the word is kept.
        seen = seen[-len(HELLO) :] + piece
    return seen.split(HELLO, 1)[1]


async def serve_clients(line: Line, address: str, *, on_ready: Callable[[], None]) -> None:
    """Accept clients on a unix socket and carry them, once the other side is there.

    Runs until the line ends. `on_ready` is called when clients can come.
    """
    rest = await wait_for_hello(line)
    mux = Mux(line)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_address(address))
        listener.listen()
        listener.setblocking(False)
        carrying = asyncio.create_task(mux.run(already_read=rest), name="mux")
        accepting = asyncio.create_task(_accept(listener, mux), name="mux accept")
        on_ready()
        try:
            await asyncio.wait({carrying, accepting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (accepting, carrying):
                task.cancel()
            results = await asyncio.gather(accepting, carrying, return_exceptions=True)
            if not address.startswith("@"):
                Path(address).unlink(missing_ok=True)  # noqa: ASYNC240 - a local file, at the end
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _accept(listener: socket.socket, mux: Mux) -> None:
    loop = asyncio.get_running_loop()
    while True:
        client, _ = await loop.sock_accept(listener)
        # An abstract address has no permissions: anybody on this machine could come.
        _, uid, _ = PEER.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
        if uid not in (0, os.geteuid()):
            client.close()
            continue
        mux.join(client)


async def serve_target(line: Line, address: str) -> None:
    """Connect every stream of the other side to a unix socket; runs until the line ends."""

    async def connect() -> socket.socket:
        target = socket.socket(socket.AF_UNIX)
        target.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(target, socket_address(address))
        except BaseException:
            target.close()
            raise
        return target

    await line.write(HELLO)
    await Mux(line, connect=connect).run()
