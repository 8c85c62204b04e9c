"""The agent: wire the parts together, start their tasks, stop them in order.

No networking decision is made here.  SIGTERM leaves the kernel and the peers as they are; SIGHUP
reads everything again.
"""

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pycni
from pycni.agent import history, report, watchers
from pycni.agent.cni_child import CniChild
from pycni.agent.control import ControlServer
from pycni.agent.facts import WATCHED_KINDS, Facts
from pycni.agent.http import HttpServer
from pycni.agent.messages import Changed, Listed, Message
from pycni.agent.metrics import Metrics
from pycni.agent.notify import notify
from pycni.agent.prober import Prober
from pycni.agent.reconciler import Reconciler
from pycni.agent.registration import Registration
from pycni.bgp.child import ChildSettings
from pycni.bgp.speaker import ExaBgpSpeaker
from pycni.config import DEFAULT_CONFIG, AgentConfig, load_config
from pycni.datastore.sqlite import SqliteDatastore, open_sqlite
from pycni.endpoints import FileEndpoints
from pycni.errors import InvalidInput, PycniError, TryAgain
from pycni.ipam.allocator import Allocator
from pycni.kernel.linux import LinuxKernel
from pycni.logs import configure_logging
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import IPPool, Node
from pycni.plan.desired import wanted_neighbours
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.iproute import protocol_number
from pycni.plan.mtu import pod_mtu

_log = logging.getLogger(__name__)


class Agent:
    """All parts of one node's agent; `run` is its life."""

    def __init__(self, config: AgentConfig, *, node: str, datastore: SqliteDatastore) -> None:
        self.config = config
        self.node = node
        self.version = pycni.__version__
        self.clock = time.monotonic
        self.started = self.clock()
        self.troubles: dict[str, str] = {}
        self.down_since: dict[IPAddress, float] = {}
        self.metrics = Metrics()
        self.route_protocol = protocol_number(config.route_protocol)
        self.datastore = datastore
        self._run_dir = Path(config.run_dir)
        self._state_dir = Path(config.state_dir)
        self._history_path = self._state_dir / "pools.json"
        self.endpoints = FileEndpoints(run_dir=self._run_dir, state_dir=self._state_dir)
        self.kernel = LinuxKernel()
        self.speaker = self._make_speaker()
        self.facts = Facts(Inputs(self._settings(), pool_history=history.load(self._history_path)))
        self.reconciler = Reconciler(
            self.facts,
            kernel=self.kernel,
            speaker=self.speaker,
            endpoints=self.endpoints,
            refresh_s=config.refresh_s,
            on_pass=self._tell_mtu,
        )
        self.registration = Registration(
            datastore,
            Allocator(datastore, node=node),
            node=node,
            addresses=config.own_addresses,
            report=self.report,
        )
        self.cni = self._make_cni()
        self.control = ControlServer(self._run_dir / "control.sock", report.answers(self))

    # --- parts ----------------------------------------------------------------------------------

    def _settings(self) -> Settings:
        config = self.config
        return Settings(
            node=self.node,
            tunnel_name=config.tunnel_name,
            route_protocol=self.route_protocol,
            tunnel_mtu=config.tunnel_mtu or None,
            hold_time_s=config.hold_time_s,
            restart_time_s=config.restart_time_s,
        )

    def _make_speaker(self) -> ExaBgpSpeaker:
        return ExaBgpSpeaker(
            ChildSettings(
                run_dir=self._run_dir,
                python=self.config.exabgp_python or sys.executable,
                user=self.config.bgp_user or None,
                listen=tuple(address.ip for address in self.config.own_addresses),
            )
        )

    def _make_cni(self) -> CniChild:
        return CniChild(
            self.config,
            node=self.node,
            datastore_file=self.datastore.identity,
            count=self.metrics.count,
            count_ipam=self.metrics.count_ipam,
            report=self.report,
        )

    def _tell_mtu(self) -> None:
        inputs = self.facts.inputs
        link = inputs.links.get(inputs.underlay(4) or inputs.underlay(6) or "")
        # Without an underlay nothing is known yet; the CNI server looks for itself until then.
        if self.config.pod_mtu:
            self.cni.tell_mtu(self.config.pod_mtu)
        elif link is not None and self.facts.has_datastore:
            self.cni.tell_mtu(pod_mtu(inputs.pools.values(), underlay_mtu=link.mtu))

    def _down_peers(self) -> list[IPAddress]:
        """Return the peers without a session, and note since when (the prober asks each second)."""
        peers = self.facts.rib.peers
        wanted = (n.peer for n in wanted_neighbours(self.facts.inputs))
        down = [p for p in wanted if p not in peers or not peers[p].is_up]
        now = self.clock()
        self.down_since = {peer: self.down_since.get(peer, now) for peer in down}
        return down

    def report(self, what: str, why: str) -> None:
        """Note trouble of one part, or ("") its end; log each change once."""
        if self.troubles.get(what, "") != why:
            if why:
                _log.warning("trouble", extra={"part": what, "reason": why})
            else:
                _log.info("trouble is over", extra={"part": what})
        self.troubles[what] = why

    def drop_counters(self) -> dict[str, int]:
        """Return how many packets each drop rule of our nftables table has seen."""
        return self.kernel.drop_counters()

    def refused(self) -> int:
        """Return how many connections were refused."""
        helper = self.speaker.counters.connections_refused
        return self.cni.refused + self.control.refused + helper

    def write_nodename(self) -> None:
        """Leave our name where the in-process engine looks for it."""
        temporary = self._state_dir / "nodename.new"
        temporary.write_text(self.node, encoding="utf-8")
        temporary.replace(self._state_dir / "nodename")

    # --- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reconciler.resync, "SIGHUP")
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(c, name=n) for n, c in self._parts().items()]
                notify("READY=1")
                _log.info("the agent runs", extra={"node": self.node, "version": self.version})
                await stop.wait()
                notify("STOPPING=1")
                for task in tasks:
                    task.cancel()
        finally:
            await self.datastore.close()
            self.kernel.close()

    def _parts(self) -> dict[str, "asyncio._CoroutineLike[None]"]:
        post = self._post
        parts: dict[str, asyncio._CoroutineLike[None]] = {
            "reconciler": self.reconciler.run(),
            "speaker": self.speaker.run(),
            "kernel": watchers.watch_kernel(self.kernel, post=post),
            "speaker-events": watchers.watch_speaker(self.speaker, post=post),
            "endpoints": watchers.watch_endpoints(self.endpoints, post=post, report=self.report),
            "sysctls": watchers.watch_sysctls(
                self.kernel, names=lambda: list(self.reconciler.want.sysctls), post=post
            ),
            "registration": self.registration.run(),
            "prober": Prober(down_peers=self._down_peers, returned=self.speaker.nudge).run(),
            "cni": self.cni.run(),
            "control": self.control.run(),
        }
        for kind in WATCHED_KINDS:
            parts[f"watch-{kind.__name__}"] = watchers.watch_kind(
                self.datastore, kind, post=post, report=self.report
            )
        if self.config.metrics_port:
            server = HttpServer(
                address=self.config.metrics_address,
                port=self.config.metrics_port,
                pages=report.pages(self),
                report=self.report,
            )
            parts["http"] = server.run()
        return parts

    def _post(self, message: Message) -> None:
        self.reconciler.post(message)
        if isinstance(message, Listed | Changed) and message.kind in (IPPool, Node):
            self.registration.wake()  # also when somebody deletes our own node object
        if isinstance(message, Listed | Changed) and message.kind is IPPool:
            # The message itself is still on its way to the facts.
            known = self.facts.inputs.pool_history | _pools_in(message)
            history.save(self._history_path, known)


def _pools_in(message: Listed | Changed) -> set[IPNetwork]:
    values = message.values if isinstance(message, Listed) else (message.value,)
    return {value.cidr for value in values if isinstance(value, IPPool)}


def claim_run_dir(run_dir: Path) -> int:
    """Make sure that no other agent uses this run directory; return the lock's descriptor.

    Two agents would take each other's sockets away and undo each other's routes.
    """
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(run_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise TryAgain(f"another agent runs in {run_dir}: stop it, or set run_dir") from None
    return fd


async def amain(config: AgentConfig) -> None:
    """Open the datastore and run the agent."""
    node = config.node or socket.gethostname().lower()
    datastore = await open_sqlite(config.datastore_path)
    agent = Agent(config, node=node, datastore=datastore)
    agent.write_nodename()
    await agent.run()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="pycni-agent",
        description="Program this node's pod routes, exchange them by BGP, serve CNI requests.",
        epilog="example: pycni-agent --config /etc/pycni/agent.yaml",
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="configuration (YAML)")
    parser.add_argument("--version", action="version", version=f"pycni {pycni.__version__}")
    arguments = parser.parse_args(argv)
    try:
        config = load_config(arguments.config)
    except InvalidInput as exc:
        parser.error(str(exc))
    configure_logging(config.log_level)
    if os.geteuid() != 0:
        parser.error(
            "the agent programs routes: run it as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN"
        )
    try:
        Path(config.state_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = claim_run_dir(Path(config.run_dir))
        asyncio.run(amain(config))
        os.close(lock)
    except PycniError as exc:
        _log.error("the agent can't run", extra={"reason": str(exc)})
        return 1
    return 0
