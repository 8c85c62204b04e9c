"""The CNI server as a process of its own: a warm engine behind the agent's socket.

The agent starts it (`pycni.agent.cni_child`) with the listening socket and one end of a channel.
Apart from the agent's own process, a request waits for no pass over the routes, and both work at
the same time on a machine with several processors.  It shares nothing else with the agent than
what the in-process engine shares: records, locks, journal and datastore.

The channel carries one JSON object in each packet.  From the agent: `{"mtu": 1480}`.  To it:
`{"serving": true}` once, `{"trouble": {"journal": "why, or empty"}}`, and now and then
`{"served": [["ADD", 0, 0.0012], ...], "refused": 3}` (verb, exit status, seconds; all refused).
Its end is the agent's end: then running requests are finished, and nothing else is begun.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pycni.cni import defaults
from pycni.cni.debts import pay_debts
from pycni.cni.identity import NodeIdentity
from pycni.cni.janitor import Boots, Janitor
from pycni.cni.main import Reply, execute
from pycni.cni.podnotes import PodNotes
from pycni.cni.protocol import Request
from pycni.cni.server import CniServer
from pycni.cni.tools import Engine
from pycni.cni.view import WatchedView
from pycni.collector import spare_collector
from pycni.config import KUBERNETES
from pycni.datastore import opening, sqlite_file
from pycni.datastore.opening import Identity
from pycni.datastore.unusable import UnusableDatastore
from pycni.endpoints import FileEndpoints
from pycni.errors import PycniError
from pycni.ipam.allocator import Allocator
from pycni.kernel.podnet import LinuxPodNet
from pycni.leaving import LeaveWish
from pycni.logs import configure_logging
from pycni.ports import Datastore

_log = logging.getLogger(__name__)

PAY_PERIOD_S = 5.0
REPORT_DELAY_S = 0.05
MAX_REPORT = 500
FEW = 3
NICE = -10
MAX_PROBLEM = 500
_PACKET = 1 << 16


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """What the agent tells at the start.

    `listener` and `channel` are inherited descriptors, `datastore_identity` tells which datastore
    the agent has open.
    """

    node: str
    datastore: str
    kubeconfig: str
    run_dir: str
    state_dir: str
    log_level: str
    listener: int
    channel: int
    datastore_identity: Identity

    def to_json(self) -> str:
        """Return the one argument of the process."""
        return json.dumps(asdict(self))


class Service:
    """The parts of the process; `run` is its life."""

    def __init__(self, settings: ServiceSettings, datastore: Datastore) -> None:
        self._datastore = datastore
        self._node = settings.node
        self._channel = socket.socket(fileno=settings.channel)
        self._channel.setblocking(False)
        self._listener = socket.socket(fileno=settings.listener)
        self._listener.setblocking(False)
        self._view = WatchedView(datastore)
        self._podnet = LinuxPodNet()
        self._mtu: int | None = None
        self._served: list[tuple[str, int, float]] = []
        self._ipam: Counter[str] = Counter()
        self._is_report_due = False
        self._stop = asyncio.Event()
        self._server = CniServer(self._serve, on_refused=self._plan_report)
        self._pods = opening.pods_of(datastore, node=settings.node)
        self._state_dir = Path(settings.state_dir)
        self._boots = Boots(self._state_dir)
        self._engine = Engine(
            node=settings.node,
            datastore=datastore,
            allocator=Allocator(
                datastore,
                node=settings.node,
                view=self._view,
                observe=self._count_ipam,
                has_company=lambda: self._server.running > 1,
            ),
            endpoints=FileEndpoints(
                run_dir=Path(settings.run_dir), state_dir=Path(settings.state_dir)
            ),
            podnet=self._podnet,
            default_mtu=self._default_mtu,
            run_dir=Path(settings.run_dir),
            pods=self._pods,
            is_leaving=LeaveWish(Path(settings.state_dir)).is_there,
        )
        self._notes: PodNotes | None = None
        if self._pods is not None:
            self._notes = PodNotes(self._pods, self._engine.endpoints)
            self._pods.on_change = self._notes.wake

    async def run(self) -> None:
        """Serve until the agent ends, or SIGTERM."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        # Meant for the agent, but a terminal or `systemctl kill` sends it to all.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        loop.add_reader(self._channel, self._hear)
        parts = [
            self._view.run(),
            self._pay_debts(),
            self._look_around(),
            self._server.run(self._listener),
        ]
        if self._pods is not None and self._notes is not None:
            parts += [self._pods.run(), self._notes.run()]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part) for part in parts]
                self._tell({"serving": True})
                await self._stop.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self._report()
            loop.remove_reader(self._channel)
            self._channel.close()
            self._podnet.close()

    async def _serve(
        self, request: Request, netns_fd: int | None, is_abandoned: Callable[[], bool]
    ) -> Reply:
        began = time.perf_counter()
        reply = await execute(self._engine, request, netns_fd=netns_fd, is_abandoned=is_abandoned)
        self._served.append((request.command.value, reply.status, time.perf_counter() - began))
        self._plan_report()
        if self._notes is not None:
            self._notes.wake()
        return reply

    async def _default_mtu(self) -> int:
        if self._mtu is not None:
            return self._mtu
        # The agent has not told yet: it has just been started, too.
        return await defaults.default_mtu(self._datastore, node=self._node)

    async def _pay_debts(self) -> None:
        """Do the releases that DELs left in the journal."""
        while True:
            try:
                problems = await pay_debts(self._engine)
            except (PycniError, OSError) as exc:
                problems = [str(exc)]
            self._tell({"trouble": {"journal": _summary(problems)}})
            await asyncio.sleep(PAY_PERIOD_S)

    async def _look_around(self) -> None:
        """Take back what nobody holds any more."""
        identity = NodeIdentity(self._state_dir)
        janitor = Janitor(
            self._engine, view=self._view, identity=identity, observe=self._count_ipam
        )
        await janitor.run(is_new_boot=self._boots.is_new())

    # --- the channel ----------------------------------------------------------------------------

    def _hear(self) -> None:
        try:
            packet = self._channel.recv(_PACKET)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            self._mtu = json.loads(packet).get("mtu", self._mtu)
        else:  # the agent is gone, however it went
            asyncio.get_running_loop().remove_reader(self._channel)
            self._stop.set()

    def _count_ipam(self, event: str) -> None:
        self._ipam[event] += 1
        self._plan_report()

    def _plan_report(self) -> None:
        if not self._is_report_due:
            self._is_report_due = True
            asyncio.get_running_loop().call_later(REPORT_DELAY_S, self._report)

    def _report(self) -> None:
        self._is_report_due = False
        served, self._served = self._served, []
        for start in range(0, len(served) or 1, MAX_REPORT):
            part = served[start : start + MAX_REPORT]
            self._tell({"served": part, "refused": self._server.refused})
        ipam, self._ipam = self._ipam, Counter()
        if ipam:
            self._tell({"ipam": ipam})

    def _tell(self, what: dict[str, Any]) -> None:
        # An agent that does not listen loses counts; requests never wait for it.
        with contextlib.suppress(OSError):
            self._channel.send(json.dumps(what).encode())


def _summary(problems: Sequence[str]) -> str:
    """Return a few of many problems as one text: a packet of the channel has to hold it."""
    text = "; ".join(problem[:MAX_PROBLEM] for problem in problems[:FEW])
    more = len(problems) - FEW
    return f"{text}; and {more} more" if more > 0 else text


async def open_datastore(settings: ServiceSettings) -> Datastore:
    """Open the agent's own datastore, or one whose every use says why it can't be.

    With that a DEL still removes the interface and journals the rest, and nobody waits in vain.
    """
    is_file = settings.datastore != KUBERNETES
    try:
        if is_file and sqlite_file.identity(settings.datastore) != tuple(
            settings.datastore_identity
        ):
            raise sqlite_file.replaced(settings.datastore)
        return await opening.open_datastore(settings.datastore, kubeconfig=settings.kubeconfig)
    except PycniError as exc:
        _log.error("the CNI server has no datastore", extra={"reason": str(exc)})
        return UnusableDatastore(exc)


async def serve(settings: ServiceSettings) -> None:
    """Open the datastore and serve."""
    datastore = await open_datastore(settings)
    try:
        await Service(settings, datastore).run()
    finally:
        await datastore.close()


def go_first() -> None:
    """Have the processors before others: a pod's start waits for us, and we are done in a moment.

    Where that is not allowed, as in a container without CAP_SYS_NICE, we wait like everybody.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the process that the agent started; return the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    settings = ServiceSettings(**json.loads(arguments[0]))
    configure_logging(settings.log_level)
    spare_collector()
    go_first()
    asyncio.run(serve(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
