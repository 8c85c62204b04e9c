"""The lab's supervisor: one process that makes everything, and with which everything ends.

`python -m pycni.lab.supervise NAME [--isolate]`, started by `up`, never by hand.  With --isolate
it moves into namespaces of its own; inside user-mode Linux that whole machine is its own already,
and its clients come over the serial line.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pycni.ctl.usage import EXIT_FAILED, WrongUsage, exit_status_of
from pycni.errors import PycniError, TryAgain
from pycni.lab import bringup, isolate, mux, sockets, verbs
from pycni.lab.blueprint import read_topology
from pycni.lab.cluster import Cluster
from pycni.lab.frames import Request
from pycni.lab.kubeadm import bringup as kubernetes_bringup
from pycni.lab.kubeadm import verbs as kubernetes_verbs
from pycni.lab.kubeadm.cluster import KubernetesCluster
from pycni.lab.layout import CNI_CACHE, RUN, Layout, Plan, parse_plan
from pycni.lab.session import Session, accept_request

READY = b"ready\n"
FIRST_REQUEST_TIMEOUT_S = 60.0
LINE_END_TIMEOUT_S = 3.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A cluster of one kind or the other: how it comes up, and what can be asked of it."""

    come_up: Callable[..., Awaitable[bool]]
    show_logs: Callable[..., Awaitable[None]]
    verbs: Mapping[str, Callable[[Session], Awaitable[int]]]


def running_of(plan: Plan, *, layout: Layout) -> Running:
    """Return the cluster that a plan asks for."""
    topology = read_topology(plan.topology, source=plan.source)
    if plan.kit:
        machines = KubernetesCluster(plan, layout=layout, topology=topology)
        return Running(
            partial(kubernetes_bringup.come_up, machines),
            partial(kubernetes_bringup.show_logs, machines),
            {name: partial(verb, machines) for name, verb in kubernetes_verbs.VERBS.items()},
        )
    cluster = Cluster(plan, layout=layout, topology=topology)
    return Running(
        partial(bringup.come_up, cluster),
        partial(bringup.show_logs, cluster),
        {name: partial(verb, cluster) for name, verb in verbs.VERBS.items()},
    )


class Supervisor:
    """Serves the verbs; `run` returns when the lab is to end."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._running: Running | None = None
        self._first: Session | None = None
        self._is_up = False
        self._has_begun = asyncio.Event()
        self._end = asyncio.Event()
        self._sessions: set[asyncio.Task[None]] = set()

    async def run(self, listener: socket.socket) -> None:
        """Serve until `down`, a failed `up`, SIGTERM, or nobody's coming."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end.set)
        server = await asyncio.start_unix_server(self._connected, sock=listener)
        async with server:
            first = asyncio.create_task(self._expect_first_request(), name="first request")
            await self._end.wait()
            first.cancel()
        if self._sessions:
            # The one that ended the lab still has to hear its exit status.
            await asyncio.wait(self._sessions, timeout=LINE_END_TIMEOUT_S)

    async def _expect_first_request(self) -> None:
        """End a lab whose `up` died before it could say what it wants."""
        try:
            async with asyncio.timeout(FIRST_REQUEST_TIMEOUT_S):
                await self._has_begun.wait()
        except TimeoutError:
            self._end.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we run in one
        self._sessions.add(task)
        try:
            if sockets.peer(writer.get_extra_info("socket"))[1] == 0:
                await self._serve(reader, writer)
        except (PycniError, OSError, TimeoutError) as exc:
            _log.warning("a connection failed: %s", exc)
        finally:
            self._sessions.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(await accept_request(reader), reader=reader, writer=writer)
        working = asyncio.create_task(self._perform(session), name=session.request.verb)
        receiving = asyncio.create_task(session.receive(), name="client")
        ending = asyncio.create_task(self._end.wait(), name="end")
        try:
            await asyncio.wait(
                {working, receiving, *([ending] if session.request.verb != "down" else [])},
                return_when=asyncio.FIRST_COMPLETED,
            )
            # A client that has left wants nothing any more; `up` takes everything down then.
            if not working.done():
                working.cancel()
            status = (await asyncio.gather(working, return_exceptions=True))[0]
        finally:
            for task in (working, receiving, ending):
                task.cancel()
            await asyncio.gather(working, receiving, ending, return_exceptions=True)
        await session.finish(status if isinstance(status, int) else 1)

    async def _perform(self, session: Session) -> int:
        """Do what a request asks for."""
        try:
            return await self._answer(session)
        finally:
            # Nothing stays of an `up` that failed, once all is said of that, or whose client left.
            if session is self._first and not self._is_up:
                self._end.set()

    async def _answer(self, session: Session) -> int:
        """Do what a request asks for; errors become words and a status."""
        request = session.request
        try:
            if request.verb == "up":
                return await self._up(session)
            if request.verb == "down":
                self._end.set()
                return 0
            return await self._required(request)(session)
        except PycniError as exc:
            said, status = str(exc), exit_status_of(exc)
        except Exception as exc:  # noqa: BLE001  # border: the request dispatcher
            _log.exception("%s met a defect", request.verb)
            said = f"{request.verb} met a defect: {exc!r}; please report it"
            status = EXIT_FAILED
        if session is self._first and self._running is not None:
            await self._running.show_logs(session=session)
        await session.complain(f"error: {said}")
        return status

    def _required(self, request: Request) -> Callable[[Session], Awaitable[int]]:
        if self._running is None or not self._is_up:
            raise TryAgain(f"the lab is still coming up: try {request.verb} again in a moment")
        if request.verb not in self._running.verbs:
            raise WrongUsage(_why_not(request.verb))
        return self._running.verbs[request.verb]

    async def _up(self, session: Session) -> int:
        if self._has_begun.is_set():
            raise TryAgain("the lab is up, or on its way up, already")
        self._has_begun.set()
        self._first = session
        plan = parse_plan(session.request.arguments)
        self._running = running_of(plan, layout=self._layout)
        self._is_up = await self._running.come_up(session=session)
        return 0 if self._is_up else 1


def _why_not(verb: str) -> str:
    """Return why a running lab has not this verb, which only labs of the other kind have."""
    if verb == "kubectl":
        return (
            "kubectl is for labs that came up with --kubernetes, and this one has no Kubernetes:"
            " end it with  bin/lab down, then  bin/lab --kubernetes"
        )
    return (
        f"{verb} is not for labs that came up with --kubernetes: there pods are made by"
        "  bin/lab kubectl, and agents are pycni-agent on the first node"
        " (bin/lab exec NODE -- systemctl stop pycni-agent) and the pods of the DaemonSet"
        " kube-system/pycni-node on the others"
    )


# --- process ------------------------------------------------------------------------------------


def announce(ready_fd: int, layout: Layout) -> None:
    """Tell the starter that clients can come; from now on, errors go to the log."""
    if ready_fd >= 0:
        os.write(ready_fd, READY)
        os.close(ready_fd)
        log = os.open(layout.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 2)
        os.close(log)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")


async def serve(layout: Layout, listener: socket.socket, *, ready_fd: int) -> None:
    """Run the supervisor, and the line to the world outside where there is one."""
    channel = os.environ.get("PYCNI_CHANNEL") if ready_fd < 0 else None
    listener.listen()
    announce(ready_fd, layout)
    supervisor = Supervisor(layout)
    if channel is None:
        await supervisor.run(listener)
        return
    line = mux.Line(os.open(channel, os.O_RDWR | os.O_NOCTTY))
    address = "@" + sockets.verb_address(layout.name)[1:]
    carrying = asyncio.create_task(mux.serve_target(line, address), name="line")
    running = asyncio.create_task(supervisor.run(listener), name="supervisor")
    await asyncio.wait({carrying, running}, return_when=asyncio.FIRST_COMPLETED)
    carrying.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await carrying


def prepare_world() -> None:
    """Cover what the lab writes to, in the mounts that are its own."""
    keep = (Path(sys.prefix), Path(__file__).resolve().parents[2])
    cache = os.environ.get("PYCNI_CACHE")
    isolate.cover(RUN, keep=(*keep, Path(cache)) if cache else keep)
    isolate.cover_child(CNI_CACHE.parent, CNI_CACHE.name, store=RUN / "var-lib")


def main(argv: Sequence[str]) -> int:
    """Be the supervisor."""
    parser = argparse.ArgumentParser(prog="pycni.lab.supervise", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--isolate", action="store_true")
    parser.add_argument("--ready-fd", type=int, default=-1)
    options = parser.parse_args(argv)
    layout = Layout(options.name)
    # Abstract addresses belong to a network namespace: both are bound before we leave the host's.
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        life = sockets.take_life(options.name) if options.isolate else None
        listener.bind(sockets.verb_address(options.name))
    except (PycniError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1

    def work() -> int:
        if options.isolate:
            prepare_world()
        layout.root.mkdir(parents=True)
        asyncio.run(serve(layout, listener, ready_fd=options.ready_fd))
        return 0

    if life is not None:
        isolate.become_first_process(work, on_first=life.listen)
    return work()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PycniError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception:  # noqa: BLE001  # border: process top
        traceback.print_exc()
        sys.exit(1)
