"""Nodes whose kernels, pods, datastore and BGP are fakes; everything between is the real agent."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface, ip_network
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pycni.agent import watchers
from pycni.agent.facts import WATCHED_KINDS, Facts
from pycni.agent.messages import EndpointsListed, Message
from pycni.agent.reconciler import Reconciler
from pycni.agent.registration import Registration
from pycni.bgp.fake import FakeNetwork, FakeSpeaker
from pycni.cni.main import Reply, execute, parse_or_reply
from pycni.cni.tools import Engine
from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore, MemoryStore
from pycni.endpoints import FileEndpoints
from pycni.errors import EventsLost, PycniError, TryAgain
from pycni.ipam.allocator import Allocator
from pycni.kernel.fake import FakeKernel
from pycni.kernel.fake_podnet import FakePodNet
from pycni.model.network import (
    Address,
    IPAddress,
    IPInterface,
    KernelState,
    NextHop,
    Route,
)
from pycni.model.resources import IPPool, Resource, TunnelMode, resource_name
from pycni.model.tunnels import TunnelKind
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.iproute import ip_route_lines
from pycni.plan.mtu import pod_mtu
from pycni.plan.prefixes import route_key

if TYPE_CHECKING:
    from pycni.ports import Datastore

POOL = IPPool("pool", ip_network("192.168.0.0/16"), ipip_mode=TunnelMode.ALWAYS)
NETWORK = "k8s-pod-network"
_fds = count(1000)


def default_route(gateway: IPAddress) -> Route:
    hop = NextHop("eth0", gateway=gateway)
    everything = ip_network("0.0.0.0/0" if gateway.version == 4 else "::/0")
    return Route(route_key(everything), next_hops=frozenset({hop}))


@dataclass
class Switch:
    """Whether the datastore can be reached."""

    is_away: bool = False
    error: type[PycniError] = TryAgain

    async def check(self, call: Call) -> None:
        if self.is_away:
            raise self.error(f"cannot {call.verb}: the datastore can't be reached")


class MoodyKernel(FakeKernel):
    """A kernel that can refuse to be read."""

    def __init__(self) -> None:
        super().__init__()
        self.is_unreadable = False
        self.refused_reads = 0

    async def snapshot(self, sysctls: Sequence[str]) -> KernelState:
        if self.is_unreadable:
            self.refused_reads += 1
            raise EventsLost("the dump was interrupted, again and again")
        return await super().snapshot(sysctls)


class NodeAgent:
    """One node: what stays over restarts of the agent (kernel, files), and the agent."""

    def __init__(
        self,
        name: str,
        address: str,
        *,
        address6: str = "",
        store: MemoryStore,
        network: FakeNetwork,
        directory: Path,
        settings: Settings | None = None,
        mtu: int = 1500,
    ) -> None:
        self.name = name
        self.address: IPInterface = ip_interface(address)
        self.addresses = tuple(ip_interface(a) for a in (address, address6) if a)
        self.settings = settings or Settings(node=name)
        self.network = network
        self.switch = Switch()
        self.datastore: Datastore = FaultyDatastore(
            MemoryDatastore(store), before=self.switch.check
        )
        self.kernel = MoodyKernel()
        self.kernel.add_link("eth0", mtu=mtu)
        for own in self.addresses:
            self.kernel.add_address(Address("eth0", own))
            self.kernel.create_route(default_route(own.network[1]))
        self.podnet = FakePodNet(self.kernel)
        self.run_dir = directory / name / "run"
        self.endpoints = FileEndpoints(run_dir=self.run_dir, state_dir=directory / name / "state")
        self.allocator = Allocator(self.datastore, node=name)
        self.pool_history: set[Any] = set()
        self.troubles: dict[str, str] = {}
        self.engine = Engine(
            node=name,
            datastore=self.datastore,
            allocator=self.allocator,
            endpoints=self.endpoints,
            podnet=self.podnet,
            default_mtu=self._default_mtu,
            run_dir=self.run_dir,
        )
        self.speaker: FakeSpeaker | None = None
        self.facts = Facts(Inputs(self.settings))
        self.reconciler: Reconciler | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._watches_records = True

    # --- the agent's life -----------------------------------------------------------------------

    async def register(self) -> None:
        """Write the Node object and take the tunnel's address, as the agent does."""
        registration = Registration(
            self.datastore,
            self.allocator,
            node=self.name,
            addresses=self.addresses,
            report=lambda _what, _why: None,
        )
        registration.look_at_devices({kind: True for kind in TunnelKind if kind.is_vxlan})
        await registration.once()

    def start(self, *, refresh_s: float = 60.0, watches_records: bool = True) -> None:
        """Start the agent's tasks; what isn't watched is listed after each CNI request.

        (Closing an inotify descriptor takes the kernel longer than all the rest here.)
        """
        self._watches_records = watches_records
        self.speaker = FakeSpeaker(self.network, *(a.ip for a in self.addresses))
        self.facts = Facts(Inputs(self.settings, pool_history=self.pool_history))
        reconciler = Reconciler(
            self.facts,
            kernel=self.kernel,
            speaker=self.speaker,
            endpoints=self.endpoints,
            refresh_s=refresh_s,
        )
        self.reconciler = reconciler
        post = reconciler.post
        coroutines = [
            reconciler.run(),
            watchers.watch_kernel(self.kernel, post=post),
            watchers.watch_speaker(self.speaker, post=post),
            watchers.watch_sysctls(
                self.kernel, names=lambda: list(reconciler.want.sysctls), post=post
            ),
            *(
                watchers.watch_kind(self.datastore, kind, post=post, report=self.report)
                for kind in WATCHED_KINDS
            ),
        ]
        if watches_records:
            coroutines.append(
                watchers.watch_endpoints(self.endpoints, post=post, report=self.report)
            )
        else:
            post(EndpointsListed(self.endpoints.list()))
        self._tasks = [asyncio.create_task(c) for c in coroutines]

    async def stop(self) -> None:
        """Let the agent end, as SIGTERM or SIGKILL would: it does nothing more."""
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self.reconciler = None
        if self.speaker is not None:
            self.network.kill(self.speaker.addresses[0])
            self.speaker = None
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def check_alive(self) -> None:
        """Fail when a task has ended that never should."""
        for task in self._tasks:
            if task.done():
                task.result()
                raise AssertionError(f"{task} has ended")

    def post(self, message: Message) -> None:
        assert self.reconciler is not None
        self.reconciler.post(message)

    def post_doubt(self) -> None:
        """Ask for a full pass over a fresh picture, as SIGHUP does."""
        assert self.reconciler is not None
        self.reconciler.resync("a test asks")

    def report(self, what: str, why: str) -> None:
        self.troubles[what] = why

    async def _default_mtu(self) -> int:
        link = self.kernel.link("eth0")
        return pod_mtu(self.facts.inputs.pools.values(), underlay_mtu=link.mtu if link else 1500)

    # --- CNI ------------------------------------------------------------------------------------

    async def cni(
        self,
        verb: str,
        container: str,
        *,
        pod: str = "",
        args: str = "",
        config: dict[str, Any] | None = None,
        fd: int | None = None,
        ifname: str = "eth0",
        variables: dict[str, str] | None = None,
    ) -> Reply:
        """Serve one CNI request, as the agent's socket would."""
        namespace, _, name = pod.partition("/")
        kubernetes = f"K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}" if pod else ""
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": ifname,
            "CNI_ARGS": ";".join(filter(None, (kubernetes, args))),
            **(variables or {}),
        }
        document = {"cniVersion": "1.1.0", "name": NETWORK, "type": "pycni", **(config or {})}
        request = parse_or_reply(environment, json.dumps(document).encode())
        if isinstance(request, Reply):
            return request
        netns_fd = fd if fd is not None else next(_fds)
        reply = await execute(self.engine, request, netns_fd=netns_fd)
        if self.reconciler is not None and not self._watches_records:
            self.post(EndpointsListed(self.endpoints.list()))
        return reply

    async def add(self, pod: str, **options: Any) -> str:  # noqa: ANN401 - as for `cni`.
        """Add a pod; return its address."""
        reply = await self.cni("ADD", pod.replace("/", "."), pod=pod, **options)
        assert reply.status == 0, reply.output
        address: str = json.loads(reply.output)["ips"][0]["address"]
        return address.partition("/")[0]

    async def delete(self, pod: str, **options: Any) -> None:  # noqa: ANN401 - as for `cni`.
        """Delete a pod."""
        reply = await self.cni("DEL", pod.replace("/", "."), pod=pod, **options)
        assert reply.status == 0, reply.output

    def other_engine(self) -> FileEndpoints:
        """Return the records as another process uses them."""
        return FileEndpoints(run_dir=self.run_dir, state_dir=self.run_dir.parent / "state")

    # --- looking --------------------------------------------------------------------------------

    async def state(self) -> KernelState:
        return await self.kernel.snapshot([])

    async def ip_route(self, family: int = 4) -> list[str]:
        """Return a table without the kernel's own link-local networks."""
        lines = ip_route_lines(await self.state(), family=family)
        return [line for line in lines if not line.startswith("fe80::/64 ")]

    async def routes(self) -> list[str]:
        """Return the table without what the underlay itself puts there."""
        lines = await self.ip_route()
        return [line for line in lines if "default" not in line and "proto kernel" not in line]


@dataclass
class Cluster:
    """Several nodes over one datastore and one network."""

    directory: Path
    store: MemoryStore = field(default_factory=MemoryStore)
    network: FakeNetwork = field(default_factory=FakeNetwork)
    nodes: dict[str, NodeAgent] = field(default_factory=dict)

    async def create(self, *resources: Resource) -> None:
        datastore = MemoryDatastore(self.store)
        for resource in resources:
            await datastore.create(resource)

    async def put(self, resource: Resource) -> None:
        """Write an object over what is there."""
        datastore = MemoryDatastore(self.store)
        stored = await datastore.get(type(resource), resource_name(resource))
        assert stored is not None
        await datastore.update(resource, if_revision=stored.revision)

    async def remove(self, kind: type[Resource], name: str) -> None:
        datastore = MemoryDatastore(self.store)
        stored = await datastore.get(kind, name)
        assert stored is not None
        await datastore.delete(kind, name, if_revision=stored.revision)

    def node(self, name: str, address: str, **options: Any) -> NodeAgent:  # noqa: ANN401 - as NodeAgent.
        made = NodeAgent(
            name,
            address,
            store=self.store,
            network=self.network,
            directory=self.directory,
            **options,
        )
        self.nodes[name] = made
        return made

    async def settle(self, seconds: float = 1.0) -> None:
        """Let time pass: a second heals whatever is broken on a node."""
        await asyncio.sleep(seconds)
        for node in self.nodes.values():
            node.check_alive()


@contextlib.asynccontextmanager
async def cluster(
    directory: Path,
    addresses: Sequence[str] = ("10.10.7.20/20",),
    *,
    addresses6: Sequence[str] = (),
    pools: Sequence[IPPool] = (POOL,),
    change: Callable[[Settings], Settings] = lambda settings: settings,
) -> AsyncIterator[Cluster]:
    """Run nodes node-0, node-1 … at these addresses; they are settled when the body begins."""
    made = Cluster(directory)
    await made.create(*pools)
    for number, address in enumerate(addresses):
        name = f"node-{number}"
        address6 = addresses6[number] if addresses6 else ""
        node = made.node(name, address, address6=address6, settings=change(Settings(node=name)))
        await node.register()
    for node in made.nodes.values():
        node.start()
    await made.settle()
    try:
        yield made
    finally:
        for node in made.nodes.values():
            await node.stop()


def with_mode(pool: IPPool, mode: TunnelMode) -> IPPool:
    return replace(pool, ipip_mode=mode)
