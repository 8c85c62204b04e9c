"""The lab's cluster: what it is made of, and the steps that bring it about.

Decides nothing about networking: addresses and routes come from the plugin and the agents.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path

from pycni.ctl.usage import WrongUsage
from pycni.datastore.sqlite import open_sqlite
from pycni.errors import InvalidInput, TryAgain
from pycni.lab import bird, blueprint, bpf, commands, isolate, nodetools, tables, underlay
from pycni.lab.agents import Agents, can_drop_privileges, write_settings
from pycni.lab.layout import ROUTER, Layout, Plan, netns_path, pod_place
from pycni.lab.pods import Runtime, install_plugins
from pycni.lab.sockets import command
from pycni.model.network import IPAddress
from pycni.topology.model import UNDERLAY, Topology, TopologyPod
from pycni.topology.predict import Prediction, predict


class Cluster:
    """A running lab."""

    def __init__(self, plan: Plan, *, layout: Layout, topology: Topology) -> None:
        self.plan = plan
        self.layout = layout
        self.topology = topology
        self.agents = Agents(layout)
        self.runtime = Runtime(plan, layout=layout)
        self.addresses: dict[str, tuple[IPAddress, ...]] = {}
        self._prediction: Prediction | None = None
        self._departed: dict[tuple[str, tuple[IPAddress, ...]], TopologyPod] = {}

    # --- steps of coming up ---------------------------------------------------------------------

    async def build_underlay(self) -> None:
        """Make router, nodes, hosts, pods' namespaces, and the stand-in for tunl0 if need be."""
        await underlay.build(self.topology)
        if self.plan.tunnel == "bpf":
            path = Path(self.plan.bpf_object)
            for node in self.topology.nodes:
                await asyncio.to_thread(bpf.install, netns_path(node.name), UNDERLAY, path)

    async def fill_datastore(self) -> None:
        """Write the topology's objects, by the rules of `pycnictl apply`."""
        found = blueprint.config_of(self.topology)
        datastore = await open_sqlite(self.layout.datastore)
        try:
            for value in found:
                await datastore.create(value)
        finally:
            await datastore.close()

    async def prepare_nodes(self) -> None:
        """Write every node's files and start the web servers."""
        isolate.bind(Path(sys.prefix), self.layout.python.parent.parent)
        install_plugins(self.plan, layout=self.layout)
        for node in self.topology.nodes:
            write_settings(node, layout=self.layout)
            self.runtime.write_configuration(node.name, versions=self.topology.pod_versions)
            nodetools.write_tools(node.name, plan=self.plan, layout=self.layout)

    async def start_agents(self) -> None:
        """Start all agents at once."""
        for node in self.topology.nodes:
            await self.agents.start(node.name)

    async def start_routers(self) -> None:
        """Start others' routers."""
        await bird.start(self.topology, layout=self.layout)

    async def start_webs(self) -> None:
        """Start a web server in every pod and host."""
        for host in self.topology.hosts:
            await self.runtime.start_web(host.name, name=host.name)
        for pod in self.topology.pods:
            await self.runtime.start_web(pod_place(pod.full_name), name=pod.full_name)

    async def add_pod(self, pod: TopologyPod) -> None:
        """Plug one pod in and remember its addresses."""
        self.addresses[pod.full_name] = await self.runtime.add(pod)

    # --- what changes later ---------------------------------------------------------------------

    async def make_pod(self, pod: TopologyPod) -> tuple[IPAddress, ...]:
        """Make one more pod, namespace and all."""
        if any(pod.full_name == other.full_name for other in self.topology.pods):
            raise InvalidInput(
                f"there is a pod {pod.full_name!r} already: choose another name, or delete it with"
                f"  {command(f'pod del {pod.full_name}', self.layout.name)}"
            )
        blueprint.require_places(replace(self.topology, pods=(*self.topology.pods, pod)))
        place = pod_place(pod.full_name)
        await underlay.make_place(place)
        try:
            await self.add_pod(pod)
        except BaseException:
            await commands.run("ip", "netns", "del", place)
            raise
        await self.runtime.start_web(place, name=pod.full_name)
        # Pinned only now: another pod may have come or gone meanwhile.
        pinned = tuple(self._pinned(p) for p in (*self.topology.pods, pod))
        self._change(replace(self.topology, pods=pinned))
        return self.addresses[pod.full_name]

    async def remove_pod(self, full_name: str) -> None:
        """Unplug a pod and remove its namespace."""
        pod = self.find_pod(full_name)
        await self.runtime.call("del", pod=pod)
        place = pod_place(full_name)
        await self.runtime.stop_web(place)
        await commands.must("ip", "netns", "del", place)
        self._departed[pod.node, self.addresses[full_name]] = self._pinned(pod)
        del self.addresses[full_name]
        rest = tuple(self._pinned(p) for p in self.topology.pods if p.full_name != full_name)
        self._change(replace(self.topology, pods=rest))

    def _pinned(self, pod: TopologyPod) -> TopologyPod:
        """Return a pod as one that asks for the addresses that it has."""
        own = self.addresses[pod.full_name]
        six = next((address for address in own if isinstance(address, IPv6Address)), None)
        if own == (six,):
            return replace(pod, address=six, address6=None)
        return replace(pod, address=own[0], address6=six)

    def _change(self, topology: Topology) -> None:
        self.topology = topology
        self._prediction = None

    async def set_cable(self, node: str, *, is_up: bool) -> None:
        """Plug the node's cable in or out."""
        self.require_node(node)
        await underlay.set_cable(self.topology, node, is_up=is_up)

    # --- questions ------------------------------------------------------------------------------

    @property
    def can_drop_privileges(self) -> bool:
        """Say whether ExaBGP's own user can reach the interpreter."""
        return can_drop_privileges()

    @property
    def node_names(self) -> list[str]:
        """Return the nodes' names, in the topology's order."""
        return [node.name for node in self.topology.nodes]

    def require_node(self, name: str) -> None:
        """Raise unless there is such a node."""
        if name not in self.node_names:
            known = ", ".join(self.node_names)
            raise WrongUsage(f"there is no node {name!r}: use one of {known}")

    def find_pod(self, full_name: str) -> TopologyPod:
        """Return a pod by "namespace/name", or by its name alone where that is unique."""
        found = [p for p in self.topology.pods if full_name in (p.full_name, p.name)]
        if len(found) != 1:
            known = ", ".join(p.full_name for p in self.topology.pods)
            raise WrongUsage(f"there is no pod {full_name!r}: use one of {known}")
        return found[0]

    def find_place(self, name: str) -> str:
        """Return the network namespace of a node, host, router or pod."""
        members = [member.name for member in self.topology.members]
        if name in (ROUTER, *members):
            return name
        found = [p for p in self.topology.pods if name in (p.full_name, p.name)]
        if len(found) != 1:
            pods = [p.full_name for p in self.topology.pods]
            known = ", ".join([*members, *pods])
            raise WrongUsage(f"there is no {name!r} here: use one of {ROUTER}, {known}")
        return pod_place(found[0].full_name)

    async def prediction(self) -> Prediction:
        """Return what the nodes should route."""
        if self._prediction is None:
            departed = self._departed.values()
            self._prediction = await predict(self.topology, departed=departed)
        return self._prediction

    async def compare(self, node: str, *, family: int = 4) -> tables.Comparison:
        """Set a node's table against its prediction."""
        output = await commands.must("ip", f"-{family}", "-n", node, "route")
        predicted = (await self.prediction()).lines(node, family=family)
        return tables.compare(node, output=output, predicted=predicted, family=family)

    async def compare_all(self) -> Sequence[tables.Comparison]:
        """Set all nodes' tables against their predictions."""
        asked = [(name, family) for name in self.node_names for family in self.topology.versions]
        return await asyncio.gather(*(self.compare(name, family=f) for name, f in asked))

    async def shortcomings(self) -> list[str]:
        """Return what an agent's own word says is not as it should be; empty: all is well."""
        found: list[str] = []
        for node in self.node_names:
            if not self.agents.is_running(node):
                raise TryAgain(f"the agent of {node} ended by itself")
            try:
                status = await self.agents.ask(node, "status")
            except TryAgain:
                found.append(f"{node}: the agent does not answer yet")
                continue
            found += [f"{node}: session with {p['node'] or p['peer']}"
                      for p in status["peers"] if p["state"] != "up"]  # fmt: skip
            if not status["converged"]:
                found.append(f"{node}: " + ("; ".join(status["problems"]) or "kernel routes"))
        return found
