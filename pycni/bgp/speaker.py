"""The BGP engine behind the `Speaker` door: a disposable ExaBGP child, fed and read over its pipes.

It holds no routing state of its own beyond what was asked of it.  Whatever goes wrong with the
child (it dies, its helper dies, a reload is not what it says), the answer is one and the same:
kill it and start another under graceful restart, which no peer notices in its forwarding.
"""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pycni.bgp import child, codec, sockets
from pycni.bgp.announcer import Announcer
from pycni.bgp.child import ChildSettings
from pycni.bgp.link import Answer, Link, LinkLost
from pycni.errors import PycniError, TryAgain
from pycni.model.bgp import (
    BGP_PORT,
    AdjRibsOut,
    BgpEvent,
    Neighbour,
    PeerDown,
    PeerUp,
    SpeakerLost,
    SpeakerUp,
)
from pycni.model.network import IPAddress

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 30.0
RELOAD_DEBOUNCE_S = 0.1
RELOAD_LOOKS_S = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Waits before each look at ExaBGP's neighbours: one that is just connecting goes with delay."""
RESTART_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
LOG_PERIOD_S = 60.0
HELPER_PYTHON = "/usr/bin/python3"


@dataclass(slots=True)
class SpeakerCounters:
    """What metrics show of the engine."""

    starts: int = 0
    lines_not_understood: int = 0
    commands_refused: int = 0
    connections_refused: int = 0


@dataclass(slots=True)
class _Wanted:
    neighbours: tuple[Neighbour, ...] = ()
    advertisements: AdjRibsOut = field(default_factory=AdjRibsOut)
    nudges: dict[IPAddress, int] = field(default_factory=dict)


class ExaBgpSpeaker:
    """Runs ExaBGP for as long as `run` runs; see `pycni.ports.Speaker`."""

    def __init__(self, settings: ChildSettings, *, helper_python: str = HELPER_PYTHON) -> None:
        self._settings = settings
        self._helper_python = helper_python
        self._wanted = _Wanted()
        self._announcer = Announcer(self._tell)
        self._written: tuple[object, ...] = ()
        self._configured: tuple[Neighbour, ...] = ()
        self._changed = asyncio.Event()
        self._queue: asyncio.Queue[BgpEvent] = asyncio.Queue()
        self._link: Link | None = None
        self._process: asyncio.subprocess.Process | None = None
        where = sockets.place(settings.listen, port=settings.port)
        self._listening = sockets.Listening(where)
        self.counters = SpeakerCounters()
        self.refused: dict[IPAddress, str] = {}

    @property
    def pid(self) -> int | None:
        """Return the process id of the running ExaBGP, None between two lives."""
        return self._process.pid if self._process is not None else None

    @property
    def trouble(self) -> str:
        """Return what keeps sessions from being accepted where they are to be, "" for nothing."""
        return self._listening.trouble

    def configure(self, *, neighbours: Sequence[Neighbour], advertisements: AdjRibsOut) -> None:
        """State what is wanted from now on; the running task brings it about."""
        self.refused = {n.peer: why for n in neighbours if (why := codec.mistake_in(n))}
        usable = tuple(n for n in neighbours if n.peer not in self.refused)
        for gone in {n.peer for n in self._wanted.neighbours} - {n.peer for n in usable}:
            # Whoever wants it again knows nothing of it any more.  Should that be before ExaBGP has
            # heard of its end, it must begin a new session all the same.
            self._wanted.nudges[gone] = self._wanted.nudges.get(gone, 0) + 1
        wanted = (usable, advertisements)
        if wanted != (self._wanted.neighbours, self._wanted.advertisements):
            self._wanted.neighbours, self._wanted.advertisements = wanted
            self._changed.set()

    def listen_on(self, addresses: Sequence[IPAddress], *, port: int = BGP_PORT) -> None:
        """Accept sessions on just these addresses and port; an ExaBGP that does not is replaced.

        Until there is an address there is no ExaBGP.  One that works stays for as long as another
        program listens there (`trouble` says so).
        """
        self._listening.state(sockets.place(addresses, port=port))

    def log_at(self, level: str) -> None:
        """Have the next ExaBGP log from a level on; no session ends for its log."""
        self._settings = replace(self._settings, log_level=level)

    def has_told(self, peer: IPAddress) -> bool:
        """Tell whether a peer was sent the withdrawal of all that is announced no more."""
        return self._announcer.has_told(peer, self._wanted.advertisements)

    def nudge(self, peer: IPAddress) -> None:
        """Make ExaBGP try a peer that is down right now, in place of at the end of its back-off."""
        if peer not in self._announcer.up:
            self._wanted.nudges[peer] = self._wanted.nudges.get(peer, 0) + 1
            self._changed.set()

    async def events(self) -> AsyncIterator[BgpEvent]:
        """Yield what happens, without end."""
        while True:
            yield await self._queue.get()

    # --- lives of the child ---------------------------------------------------------------------

    async def run(self) -> None:
        """Keep an ExaBGP running until cancelled; then kill it without telling the peers."""
        failures = 0
        while True:
            loop = asyncio.get_running_loop()
            started = loop.time()
            try:
                reason = await self._live()
            # ValueError: descriptors that are no pipes.  What an unprivileged child says or passes
            # must not end the agent.
            except (OSError, PycniError, LinkLost, codec.NotUnderstood, ValueError) as exc:
                reason = str(exc) or type(exc).__name__
            self._announcer.clear()
            self._queue.put_nowait(SpeakerLost(reason))
            failures = 0 if loop.time() - started > 30 else failures + 1
            delay = RESTART_DELAYS_S[min(max(failures - 1, 0), len(RESTART_DELAYS_S) - 1)]
            _log.warning("ExaBGP ended, starting it again", extra={"reason": reason})
            await asyncio.sleep(delay)

    async def _live(self) -> str:
        """Run one ExaBGP, until it is lost or can be replaced by a better one; return why."""
        where = await self._listening.find()
        lost = asyncio.get_running_loop().create_future()
        missing = replace(where, addresses=await sockets.wait_for(where.addresses))
        listen = tuple(one for one in where.addresses if one not in missing.addresses)
        watches = [
            asyncio.create_task(sockets.lose_by_arrival(missing, lost), name="bgp-addresses"),
            asyncio.create_task(self._listening.lose_by_move(lost), name="bgp-place"),
        ]
        try:
            settings = replace(self._settings, listen=listen, port=where.port)
            return await self._run_child(settings, lost)
        finally:
            for watch in watches:
                watch.cancel()

    async def _run_child(self, settings: ChildSettings, lost: asyncio.Future[str]) -> str:
        path = self._private_directory() / "helper.sock"
        path.unlink(missing_ok=True)
        listener = sockets.helper_listener(path, gid=child.identity(settings.user).gid)
        try:
            configuration = self._write_configuration()
            self.counters.starts += 1
            self._process = await child.start(settings, configuration=configuration)
            waiter = asyncio.create_task(self._process.wait(), name="exabgp-exit")
            await self._accept(listener, waiter, lost=lost)
        except BaseException:
            await self._end()
            raise
        finally:
            # One connection per start: nobody else may ever hand us pipes.
            listener.close()
            path.unlink(missing_ok=True)
        try:
            self._changed.set()
            return await self._serve(lost, waiter)
        finally:
            waiter.cancel()
            await self._end()

    async def _serve(self, lost: asyncio.Future[str], waiter: asyncio.Task[int]) -> str:
        while True:
            changed = asyncio.create_task(self._changed.wait(), name="speaker-changed")
            try:
                waits: set[asyncio.Future[Any]] = {lost, waiter, changed}
                await asyncio.wait(waits, timeout=LOG_PERIOD_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
            child.cut_log(self._settings.run_dir)
            if waiter.done():
                return f"it exited with status {waiter.result()}"
            if lost.done():
                return lost.result()
            self._changed.clear()
            self._send_advertisements()
            if self._configuration_key() != self._written:
                await asyncio.sleep(RELOAD_DEBOUNCE_S)
                await self._reload()

    async def _end(self) -> None:
        link, self._link = self._link, None
        process, self._process = self._process, None
        if link is not None:
            link.close()
        if process is not None and process.returncode is None:
            await child.stop(process)

    async def _accept(
        self, listener: socket.socket, waiter: asyncio.Task[int], *, lost: asyncio.Future[str]
    ) -> None:
        """Wait for the helper and take its pipes; anybody else who connects is refused."""
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            while True:
                connection = await _next_connection(listener, waiter)
                if self._is_helper(connection):
                    await self._take_pipes(connection, lost=lost)
                    return
                connection.close()
                self.counters.connections_refused += 1

    async def _take_pipes(self, connection: socket.socket, *, lost: asyncio.Future[str]) -> None:
        connection.settimeout(2)
        fds: list[int] = []
        try:
            _, fds, _, _ = socket.recv_fds(connection, 64, 2)
            if len(fds) != 2:
                raise TryAgain(f"ExaBGP's helper passed {len(fds)} descriptors in place of 2")
            # A session may be up before we read the first line: it is to hear of all our routes
            # before End-of-RIB, or the peer drops those that it kept for us.
            self._announcer.begin(self._wanted.advertisements)
            self._queue.put_nowait(SpeakerUp())
            self._link = Link(on_event=self._on_line, on_lost=_set_once(lost))
            read_fd, write_fd = fds
            fds = []
            await self._link.open(read_fd=read_fd, write_fd=write_fd)
            connection.send(b"k")
        except BaseException:
            for fd in fds:
                os.close(fd)
            connection.close()
            raise
        lost.add_done_callback(lambda _: connection.close())

    def _is_helper(self, connection: socket.socket) -> bool:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid: int = struct.unpack("iII", raw)[0]
        if self._process is not None and child.is_descendant(pid, ancestor=self._process.pid):
            return True
        _log.warning("refused a connection to the helper's socket", extra={"peer_pid": pid})
        return False

    # --- what is asked of it --------------------------------------------------------------------

    def _configuration_key(self) -> tuple[object, ...]:
        return (self._wanted.neighbours, tuple(sorted(self._wanted.nudges.items(), key=str)))

    def _private_directory(self) -> Path:
        """Return the directory that only we and ExaBGP's group can enter."""
        directory = self._settings.run_dir / "exabgp"
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        who = child.identity(self._settings.user)
        if os.getuid() == 0:
            os.chown(directory, 0, who.gid)
        directory.chmod(0o750)
        return directory

    def _write_configuration(self) -> Path:
        """Write the file that holds the neighbours and their passwords, atomically, mode 0600."""
        self._written = self._configuration_key()
        self._configured = self._wanted.neighbours
        directory = self._private_directory()
        bridge = directory / "bridge.py"
        source = Path(__file__).with_name("bridge.py").read_bytes()
        child.replace_file(bridge, source, user=self._settings.user, mode=0o640)
        text = codec.render_configuration(
            self._wanted.neighbours,
            run=[self._helper_python, "-IES", str(bridge), str(directory / "helper.sock")],
            nudges=self._wanted.nudges,
        )
        configuration = directory / "exabgp.conf"
        user = self._settings.user
        child.replace_file(configuration, text.encode("ascii"), user=user, mode=0o600)
        return configuration

    async def _reload(self) -> None:
        """Make ExaBGP read its file again, and make sure that it did.

        It answers "done" to a reload that failed, and every later one fails as well: the only
        proof is its own list of neighbours.  A mismatch means a new ExaBGP.
        """
        self._write_configuration()
        wanted = frozenset(n.peer for n in self._wanted.neighbours)
        await self._ask("reload")
        for delay in RELOAD_LOOKS_S:
            await asyncio.sleep(delay)
            if await self._configured_peers() == wanted:
                return
        raise TryAgain("ExaBGP did not take over its new configuration")

    async def _configured_peers(self) -> frozenset[IPAddress]:
        answer = await self._ask("show neighbor json")
        shown = (codec.configured_peers(line) for line in answer.text)
        return frozenset[IPAddress]().union(*(peers for peers in shown if peers is not None))

    async def _ask(self, command: str) -> Answer:
        if self._link is None:
            raise LinkLost(f"cannot send {command!r}: ExaBGP is gone")
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await self._link.command(command)

    def _send_advertisements(self) -> None:
        wanted = self._wanted
        self._announcer.change(
            wanted.advertisements,
            configured=self._configured,
            staying={n.peer for n in wanted.neighbours},
        )

    def _tell(self, command: str) -> None:
        if self._link is not None:
            self._link.command(command).add_done_callback(self._count_refusal)

    def _count_refusal(self, answer: asyncio.Future[Answer]) -> None:
        with contextlib.suppress(LinkLost, asyncio.CancelledError):
            if not answer.result().is_done:
                self.counters.commands_refused += 1
                said = b" ".join(answer.result().text).decode(errors="replace")
                _log.debug("ExaBGP refused a command", extra={"said": said})

    # --- what it says ---------------------------------------------------------------------------

    def _on_line(self, line: bytes) -> None:
        try:
            events = codec.decode(line)
        except codec.NotUnderstood as exc:
            self.counters.lines_not_understood += 1
            _log.warning("ExaBGP said something strange", extra={"reason": str(exc)})
            return
        for event in events:
            if isinstance(event, codec.Sent):
                self._announcer.note(event)
                continue
            if isinstance(event, PeerUp):
                _log.debug("a session is up", extra={"peer": str(event.peer)})
                wanted = (n for n in self._wanted.neighbours if n.peer == event.peer)
                self._announcer.greet(event.peer, next(wanted, None))
            elif isinstance(event, PeerDown):
                _log.debug(
                    "a session is down", extra={"peer": str(event.peer), "reason": event.reason}
                )
                self._announcer.end(event.peer)
            self._queue.put_nowait(event)


async def _next_connection(listener: socket.socket, waiter: asyncio.Task[int]) -> socket.socket:
    """Accept one connection; raise `TryAgain` when the child ends before there is one."""
    accepting = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(listener))
    try:
        waits: set[asyncio.Future[Any]] = {accepting, waiter}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not accepting.done():
            raise TryAgain(
                f"ExaBGP ended with status {waiter.result()} at its start: see exabgp.log"
            )
        return accepting.result()[0]
    finally:
        accepting.cancel()


def _set_once(future: asyncio.Future[str]) -> Callable[[str], None]:
    def set_unless_done(reason: str) -> None:
        if not future.done():
            future.set_result(reason)

    return set_unless_done
