"""The agent: wire the parts together, start their tasks, stop them in order.

No networking decision is made here.  SIGTERM leaves the kernel and the peers as they are; SIGHUP
reads everything again.
"""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pycni
from pycni.agent import bgp_settings, history, report, watchers
from pycni.agent.autodetection import Autodetection
from pycni.agent.balancer import balancer_of
from pycni.agent.checks import Checks
from pycni.agent.cni_child import CniChild
from pycni.agent.control import ControlServer
from pycni.agent.departure import Departure
from pycni.agent.facts import WATCHED_KINDS, Facts
from pycni.agent.first_pools import FirstPools
from pycni.agent.hostfiles import configured_network
from pycni.agent.http import HttpServer
from pycni.agent.messages import Changed, Leaving, Listed, Message
from pycni.agent.metrics import Metrics
from pycni.agent.notify import notify
from pycni.agent.policies import Policies
from pycni.agent.prober import Prober
from pycni.agent.reconciler import Reconciler
from pycni.agent.registration import Registration
from pycni.agent.secrets import SecretWatch
from pycni.agent.services import ServiceWatch
from pycni.bgp.child import ChildSettings
from pycni.bgp.speaker import ExaBgpSpeaker
from pycni.check.findings import Report
from pycni.check.probes import rp_filters
from pycni.check.survey import place_of, survey, survey_ways
from pycni.config import AgentConfig
from pycni.datastore.opening import (
    OpenDatastore,
    cluster_of,
    pod_subnets_of,
    service_sources_of,
)
from pycni.endpoints import FileEndpoints
from pycni.errors import TryAgain
from pycni.files import put
from pycni.ipam.allocator import Allocator
from pycni.kernel.linux import LinuxKernel
from pycni.leaving import LeaveWish
from pycni.model.network import IPAddress
from pycni.model.resources import IPPool
from pycni.model.resources_bgp import BGPConfiguration
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.iproute import protocol_number
from pycni.plan.mtu import pod_mtu
from pycni.plan.overlay import serving
from pycni.plan.peering import wanted_neighbours, wanted_secrets
from pycni.ports_cluster import Cluster

_log = logging.getLogger(__name__)

SETTLE_TIMEOUT_S = 5.0  # a kernel that is never quiet must keep nobody from leaving


class Agent:
    """All parts of one node's agent; `run` is its life."""

    def __init__(self, config: AgentConfig, *, node: str, datastore: OpenDatastore) -> None:
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
        wish = LeaveWish(self._state_dir)
        self.facts = Facts(
            Inputs(
                self._settings(),
                pool_history=history.load(self._history_path),
                is_leaving=wish.is_there(),
            )
        )
        self.reconciler = Reconciler(
            self.facts,
            kernel=self.kernel,
            speaker=self.speaker,
            endpoints=self.endpoints,
            refresh_s=config.refresh_s,
            on_pass=self._after_pass,
        )
        self._checks = self._make_checks()
        allocator = Allocator(datastore, node=node)
        self.departure = self._make_departure(allocator, wish)
        self.registration = Registration(
            datastore,
            allocator,
            node=node,
            addresses=config.own_addresses,
            report=self.report,
            makes_node=not config.is_in_kubernetes,
            departure=self.departure,
        )
        self.autodetection = Autodetection(
            config.autodetection,
            stated=config.own_addresses,
            source_to=self.kernel.source_to,
            post=self.reconciler.post,
            report=self.report,
        )
        self.services = ServiceWatch(
            service_sources_of(datastore, services_file=config.services_file),
            post=self.reconciler.post,
            report=self.report,
        )
        self.secrets = SecretWatch(
            cluster_of(datastore), post=self.reconciler.post, report=self.report
        )
        self.balancer = balancer_of(datastore, node=node, report=self.report)
        self.cni = self._make_cni()
        self.network = configured_network(
            config, node=node, is_ready=lambda: report.is_ready(self), report=self.report
        )
        self.control = ControlServer(
            self._run_dir / "control.sock", report.answers(self), report.wishes(self)
        )

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
            has_extended_next_hop=config.extended_next_hop,
        )

    def _make_speaker(self) -> ExaBgpSpeaker:
        return ExaBgpSpeaker(
            ChildSettings(
                run_dir=self._run_dir,
                python=self.config.exabgp_python or sys.executable,
                user=self.config.bgp_user or None,
            )
        )

    def _make_checks(self) -> Checks | None:
        if (cluster := cluster_of(self.datastore)) is None:
            return None
        return Checks(cluster, node=self.node, look=partial(self._look, cluster))

    def _make_departure(self, allocator: Allocator, wish: LeaveWish) -> Departure:
        return Departure(
            self.datastore,
            allocator,
            self.endpoints,
            node=self.node,
            wish=wish,
            changed=self._change_membership,
            untold=self._untold,
            report=self.report,
            retract=None if self._checks is None else self._checks.retract,
        )

    def _change_membership(self, is_leaving: bool) -> None:  # noqa: FBT001  # a callback
        self.reconciler.post(Leaving(is_leaving))
        self.registration.wake()

    async def _untold(self) -> list[IPAddress]:
        """Return the peers that may not know yet that nothing of ours is announced any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                await self.reconciler.settled()
        if not (self.facts.has_datastore and self.facts.has_endpoints):
            raise TryAgain("the agent has not read everything yet")
        peers = (neighbour.peer for neighbour in wanted_neighbours(self.facts.inputs))
        return [peer for peer in peers if not self.speaker.has_told(peer)]

    def _make_cni(self) -> CniChild:
        return CniChild(
            self.config,
            node=self.node,
            datastore_identity=self.datastore.identity,
            count=self.metrics.count,
            count_ipam=self.metrics.count_ipam,
            report=self.report,
        )

    def _after_pass(self) -> None:
        inputs = self.facts.inputs
        self._tell_mtu()
        self.services.look(bool(inputs.bgp.services.all))
        self.secrets.look(wanted_secrets(inputs))
        if self.balancer is not None and self.facts.has_datastore:
            self.balancer.look(inputs)
        is_known = BGPConfiguration in self.facts.listed
        if inputs.node is not None:  # and the kernel has been read: this is after a pass
            found = self.autodetection.look(inputs, inputs.node, knows_ignored=is_known)
            self.registration.look_at(found)
            self.registration.look_at_devices(serving(inputs))
        # Without its settings ExaBGP would only have to start again, and it has no neighbours yet.
        if is_known:
            bgp_settings.follow(inputs, self.speaker, stated=self.config.own_addresses)

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
        put(self._state_dir / "nodename", self.node.encode(), mode=0o644, is_flushed=False)

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
            "autodetection": self.autodetection.run(),
            "services": self.services.run(),
            "secrets": self.secrets.run(),
            "prober": Prober(down_peers=self._down_peers, returned=self.speaker.nudge).run(),
            "cni": self.cni.run(),
            "control": self.control.run(),
        }
        pod_subnets = pod_subnets_of(self.datastore)
        if pod_subnets is not None:
            parts["first-pools"] = FirstPools(
                self.datastore,
                stated=self.config.first_pools,
                pod_subnets=pod_subnets,
                report=self.report,
            ).run()
        for kind in WATCHED_KINDS:
            parts[f"watch-{kind.__name__}"] = watchers.watch_kind(
                self.datastore, kind, post=post, report=self.report
            )
        if self.network is not None:
            parts["network"] = self.network.run()
        if self.config.metrics_port:
            server = HttpServer(
                address=self.config.metrics_address,
                port=self.config.metrics_port,
                pages=report.pages(self),
                report=self.report,
            )
            parts["http"] = server.run()
        return parts | self._cluster_parts()

    def _cluster_parts(self) -> dict[str, "asyncio._CoroutineLike[None]"]:
        """Return what only a cluster can be told."""
        cluster = cluster_of(self.datastore)
        if cluster is None or self._checks is None:
            return {}
        policies = Policies(cluster, node=self.node, report=self.report).run()
        balancer = {} if self.balancer is None else {"balancer": self.balancer.run()}
        return {"policies": policies, "checks": self._checks.run(), **balancer}

    async def _look(self, cluster: Cluster) -> Report | None:
        """Look at this node as `pycnictl check` does, with the objects that are known already."""
        if self.departure.is_wanted:
            return None
        place = place_of(self.config, node=self.node)
        state = await self.kernel.snapshot(rp_filters(place.tunnel))
        inputs = self.facts.inputs
        pools, nodes = list(inputs.pools.values()), list(inputs.nodes.values())
        report = await survey(place, kernel=state, cluster=cluster)
        return report + await survey_ways(place, kernel=state, pools=pools, nodes=nodes)

    def _post(self, message: Message) -> None:
        self.reconciler.post(message)
        if isinstance(message, Listed | Changed):
            self.registration.heed(message)
            if message.kind is IPPool:
                # The message itself is still on its way to the facts.
                known = self.facts.inputs.pool_history | history.pools_in(message)
                history.save(self._history_path, known)
