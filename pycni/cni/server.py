"""The CNI socket: requests from the relay, with the pod's network namespace as a descriptor.

Root only, by the directory's mode, the socket's mode and SO_PEERCRED.  A request carries exactly
one descriptor when its verb has a namespace, and it must be one of a network namespace.
"""

import array
import asyncio
import logging
import os
import select
import socket
from collections.abc import Awaitable, Callable

from pycni.cni.commands import Command
from pycni.cni.errors import CniError, Code
from pycni.cni.main import Reply, failure, no_netns, parse_or_reply
from pycni.cni.protocol import MAX_STDIN, Request, version_of
from pycni.kernel.netns import is_netns
from pycni.unix import peer_uid

_log = logging.getLogger(__name__)

MAX_REQUEST = MAX_STDIN + (1 << 17)
MAX_DESCRIPTORS = 8
RECEIVE_TIMEOUT_S = 10.0
FINISH_TIMEOUT_S = 10.0
"""How long requests may run on at the end, and once more for undoing; then the agent kills us."""
ACCEPT_RETRY_S = 0.1
_CHUNK = 1 << 14
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)

Handler = Callable[[Request, int | None, Callable[[], bool]], Awaitable[Reply]]


class Refused(Exception):
    """A connection that is not answered: not root, or not our wire format."""


class CniServer:
    """Accepts, receives, hands to the handler, answers; one task for each request."""

    def __init__(self, handler: Handler, *, on_refused: Callable[[], None] = lambda: None) -> None:
        self._handler = handler
        self._on_refused = on_refused
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused = 0

    @property
    def running(self) -> int:
        """How many requests are being served or received."""
        return len(self._tasks)

    async def run(self, listener: socket.socket) -> None:
        """Serve until cancelled; requests that run then are finished.

        The listener is non-blocking; it stays open for others that hold it as well.
        """
        loop = asyncio.get_running_loop()
        loop.add_reader(listener, self._accept, listener)
        try:
            await loop.create_future()  # for ever
        finally:
            loop.remove_reader(listener)
            listener.close()
            if self._tasks:
                _, late = await asyncio.wait(self._tasks, timeout=FINISH_TIMEOUT_S)
                for task in late:
                    task.cancel()
                if late:  # to undo what they have done, while all that they need is open
                    await asyncio.wait(late, timeout=FINISH_TIMEOUT_S)

    def _accept(self, listener: socket.socket) -> None:
        """Take every connection that waits."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as exc:  # out of descriptors: running requests give theirs back
                _log.warning("cannot accept a CNI request", extra={"reason": str(exc)})
                loop.remove_reader(listener)
                loop.call_later(ACCEPT_RETRY_S, self._resume, listener)
                return
            task = loop.create_task(self._serve(connection), name="cni-request")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _resume(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def _serve(self, connection: socket.socket) -> None:
        fds: list[int] = []
        try:
            connection.setblocking(False)
            uid = peer_uid(connection)
            if uid != 0:  # before a byte of it is read
                raise Refused(f"user {uid} is not root")
            data = await _receive(connection, fds)
            reply = await self._answer(data, fds, connection)
            await asyncio.get_running_loop().sock_sendall(
                connection, bytes([reply.status]) + reply.output
            )
        except Refused as exc:
            self._refuse("a connection to the CNI socket", str(exc))
        except (OSError, TimeoutError) as exc:
            _log.info("a CNI caller went away", extra={"reason": str(exc) or "time-out"})
        finally:
            for fd in fds:
                os.close(fd)
            connection.close()

    async def _answer(self, data: bytes, fds: list[int], connection: socket.socket) -> Reply:
        environment, stdin = _split(data)
        request = parse_or_reply(environment, stdin)
        if isinstance(request, Reply):
            return request
        try:
            netns_fd = _only_netns(request, fds)
        except CniError as error:
            self._refuse("a CNI request", error.msg)
            return failure(error, version=version_of(stdin))
        return await self._handler(request, netns_fd, lambda: _is_gone(connection))

    def _refuse(self, what: str, why: str) -> None:
        self.refused += 1
        self._on_refused()
        _log.warning("refused %s", what, extra={"reason": why})


async def _receive(connection: socket.socket, fds: list[int]) -> bytes:
    """Read up to the caller's end of writing; descriptors may come with any part of it."""
    parts = bytearray()
    # The relays send all at once: mostly it is there, and there is nothing to wait for.
    if not _take(connection, parts, fds):
        async with asyncio.timeout(RECEIVE_TIMEOUT_S):
            await _readable(connection)
            while not _take(connection, parts, fds):
                await _readable(connection)
    return bytes(parts)


def _take(connection: socket.socket, parts: bytearray, fds: list[int]) -> bool:
    """Read what is there; tell whether that was all."""
    while True:
        try:
            part, ancillary, flags, _ = connection.recvmsg(
                _CHUNK, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                fds += numbers
        if flags & socket.MSG_CTRUNC or len(fds) > MAX_DESCRIPTORS:
            raise Refused(f"more than {MAX_DESCRIPTORS} descriptors")
        if not part:
            return True
        parts += part
        if len(parts) > MAX_REQUEST:
            raise Refused(f"a request of over {MAX_REQUEST} bytes")


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)


def _split(data: bytes) -> tuple[dict[str, str], bytes]:
    if len(data) < 4:
        raise Refused("a request without header")
    end = 4 + int.from_bytes(data[:4], "big")
    if end > len(data):
        raise Refused("a request shorter than its header says")
    environment = {}
    for item in data[4:end].split(b"\0"):
        name, equals, value = item.decode("utf-8", "surrogateescape").partition("=")
        if equals:
            environment[name] = value
    return environment, data[end:]


def _only_netns(request: Request, fds: list[int]) -> int | None:
    """Return the one descriptor of a network namespace, None when there is none."""
    if len(fds) > 1:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"{request.command.value} came with {len(fds)} descriptors, one network namespace"
            " is expected: use the pycni relay",
        )
    if not fds:
        if request.command in (Command.ADD, Command.CHECK):
            raise CniError(Code.INVALID_ENVIRONMENT, no_netns(request))
        return None
    if not is_netns(fds[0]):
        if request.command is Command.DEL:
            return None  # the namespace is gone, which is no reason to refuse a DEL
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_NETNS={request.netns!r} is no network namespace",
        )
    return fds[0]


def _is_gone(connection: socket.socket) -> bool:
    """Tell whether the caller closed its end for good (it has long finished writing)."""
    poll = select.poll()
    poll.register(connection, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))
