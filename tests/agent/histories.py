"""Everything that can happen to one node, as random events for a reconciler over a fake kernel."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import hypothesis.strategies as st

from pycni.agent.facts import WATCHED_KINDS, Facts
from pycni.agent.messages import BgpTold, Changed, EndpointChanged, EndpointsListed, Listed, Message
from pycni.agent.reconciler import Reconciler
from pycni.agent.watchers import watch_kernel, watch_sysctls
from pycni.bgp.fake import FakeNetwork, FakeSpeaker
from pycni.endpoints import FileEndpoints
from pycni.kernel.fake import FakeKernel
from pycni.kernel.fake_tables import Refused
from pycni.model.bgp import EndOfRib, Family, PathsChanged, PeerDown, PeerOpened, PeerUp
from pycni.model.endpoints import EndpointState, WorkloadEndpoint
from pycni.model.linklayer import FdbEntry
from pycni.model.network import Address, Route, RouteKey, RouteType
from pycni.model.resources import (
    AffinityState,
    AllocationAttribute,
    Block,
    IPPool,
    Node,
    Resource,
    TunnelMode,
    resource_name,
)
from pycni.model.vxlan import VxlanEnd, usual_mac
from pycni.plan.delta import Gate, plan
from pycni.plan.desired import compute
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.iproute import ip_route_lines
from pycni.plan.ownership import Ownership, alias_of, host_veths
from tests.agent.cluster import default_route
from tests.unit.plan.samples import affinity, node, path, pod, pool

BLOCKS = [f"192.168.{n}.0/26" for n in range(3)]
NODES = ["10.0.0.1/24", "10.0.0.2/24", "10.0.1.3/24"]
VETHS = ["cali0", "cali1", "cali2"]
VXLAN = "vxlan.calico"
FOREIGN = [
    Route(RouteKey(ip_network("172.16.0.0/16")), type=RouteType.BLACKHOLE, protocol=12),
    Route(RouteKey(ip_network("192.168.2.0/26")), type=RouteType.BLACKHOLE, protocol=4),
    Route(RouteKey(ip_network("192.168.0.0/26"), table=7), type=RouteType.BLACKHOLE, protocol=12),
]


@dataclass
class World:
    """One node under test, and what was done to it."""

    directory: Path
    kernel: FakeKernel = field(default_factory=FakeKernel)
    fresh: int = 0

    def __post_init__(self) -> None:
        self.kernel.add_link("eth0")
        self.kernel.add_address(Address("eth0", ip_interface(NODES[0])))
        self.kernel.create_route(default_route(ip_address("10.0.0.254")))
        for foreign in FOREIGN:
            self.kernel.create_route(foreign)
        self.endpoints = FileEndpoints(run_dir=self.directory, state_dir=self.directory)
        self.facts = Facts(Inputs(Settings(node="node-0")))
        self.reconciler = Reconciler(
            self.facts,
            kernel=self.kernel,
            speaker=FakeSpeaker(FakeNetwork(), ip_address("10.0.0.1")),
            endpoints=self.endpoints,
            refresh_s=100_000.0,
        )

    # --- what can happen ------------------------------------------------------------------------

    def write(self, value: Resource) -> None:
        self.reconciler.post(Changed(type(value), resource_name(value), value))

    def remove(self, value: Resource) -> None:
        self.reconciler.post(Changed(type(value), resource_name(value), None))

    def record(self, endpoint: WorkloadEndpoint) -> None:
        self.endpoints.put(endpoint)
        self.reconciler.post(EndpointChanged(endpoint.key, endpoint))

    def forget(self, endpoint: WorkloadEndpoint) -> None:
        self.endpoints.remove(endpoint.key)
        self.reconciler.post(EndpointChanged(endpoint.key, None))

    def plug(self, name: str, endpoint: WorkloadEndpoint) -> None:
        if self.kernel.link(name) is None:
            self.kernel.add_link(name, alias=alias_of(endpoint.key))

    def add_pod(self, number: int) -> None:
        self.plug(VETHS[number], pods(number))
        self.record(pods(number))

    def unplug(self, name: str) -> None:
        if self.kernel.link(name) is not None:
            self.kernel.delete_link(name)

    def flip(self, name: str, *, is_up: bool) -> None:
        if self.kernel.link(name) is not None:
            self.kernel.change_link(name, is_up=is_up)

    def delete_some_route(self, number: int) -> None:
        ours = [r for r in self.kernel.routes() if r not in FOREIGN and r.protocol != 2]
        if ours:
            self.kernel.delete_route(ours[number % len(ours)])

    def delete_some_entry(self, number: int) -> None:
        there = self.kernel.neighbours()
        if there:
            self.kernel.delete_neighbour(there[number % len(there)])

    def write_entry(self, number: int, *, is_ours: bool) -> None:
        """Write an entry to a node's MAC address, by hand or as a predecessor left it."""
        if self.kernel.link(VXLAN) is not None:
            mac = usual_mac(f"node-{number}", version=4)
            self.kernel.set_neighbour(FdbEntry(VXLAN, mac, ip_address("10.0.0.99"), is_ours))

    def stranger(self, dst: str, *, protocol: int) -> None:
        route = Route(RouteKey(ip_network(dst)), type=RouteType.BLACKHOLE, protocol=protocol)
        try:
            self.kernel.create_route(route)
        except Refused:
            return

    # --- the end --------------------------------------------------------------------------------

    async def settle(self) -> None:
        await asyncio.sleep(40)

    async def check(self) -> None:
        """Hold the kernel against a fresh computation from the same facts."""
        names = list(self.reconciler.want.sysctls)
        have = await self.kernel.snapshot(names)
        inputs = self.facts.inputs
        inputs.links, inputs.addresses = have.links, have.addresses
        want = compute(inputs)
        left = plan(
            want,
            have,
            ownership=Ownership(
                route_protocol=12,
                tunnel_name="tunl0",
                pools=frozenset(inputs.pool_history),
                host_veths=host_veths(have, recorded=inputs.host_veths),
            ),
            gate=Gate(),
        )
        assert left.ops == [], "a full pass finds more to do than the dirty keys said"
        assert self.reconciler.want.routes == want.routes
        assert self.reconciler.want.sysctls == want.sysctls
        assert self.reconciler.want.entries == want.entries
        there = self.kernel.routes()
        assert [r for r in FOREIGN if r not in there] == [], "a stranger's route was touched"

    async def lines(self) -> list[str]:
        return ip_route_lines(await self.kernel.snapshot([]), family=4)


def borrowed_block(cidr: str, holder: str | None) -> Block:
    attributes = (AllocationAttribute("h", (("node", holder),)),) if holder else ()
    first = 0 if holder else None
    return Block(
        ip_network(cidr),
        affinity="node-1",
        allocations=(first, *([None] * 63)),
        unallocated=tuple(range(1 if holder else 0, 64)),
        attributes=attributes,
        sequence_numbers=(None,) * 64,
    )


Event = Callable[[World], None]
numbers = st.integers(0, 2)


def pods(number: int, *, state: EndpointState = EndpointState.READY) -> WorkloadEndpoint:
    return pod(
        f"192.168.0.{number + 1}/32", veth=VETHS[number], container=f"c{number}", state=state
    )


def nodes(number: int) -> Node:
    return node(f"node-{number}", NODES[number], tunnel="192.168.0.0" if number == 0 else None)


def with_end(number: int, block: int) -> Node:
    """Return a node that says to have its end of the VXLAN tunnel in a block."""
    address = ip_network(BLOCKS[block])[0]
    return replace(nodes(number), vxlan=VxlanEnd(address))


def vxlan_pool(mode: TunnelMode) -> IPPool:
    return replace(pool(mode=TunnelMode.NEVER), name="p", vxlan_mode=mode)


def told(number: int, *nlris: str, withdrawn: Sequence[str] = ()) -> Message:
    peer = nodes(number).ipv4
    assert peer is not None
    announced = tuple(path(nlri, str(peer.ip)) for nlri in nlris)
    gone = tuple(ip_network(n) for n in withdrawn)
    return BgpTold(PathsChanged(peer.ip, announced=announced, withdrawn=gone))


def session(number: int, *, is_up: bool) -> list[Message]:
    peer = nodes(number).ipv4
    assert peer is not None
    families = frozenset(Family)
    if not is_up:
        return [BgpTold(PeerDown(peer.ip, reason="x", is_graceful=False))]
    return [
        BgpTold(PeerOpened(peer.ip, 120, preserved=families, families=families)),
        BgpTold(PeerUp(peer.ip)),
        *(BgpTold(EndOfRib(peer.ip, family)) for family in Family),
    ]


def post(*messages: Message) -> Event:
    def event(world: World) -> None:
        for message in messages:
            world.reconciler.post(message)

    return event


events: st.SearchStrategy[Event] = st.one_of(
    st.sampled_from(TunnelMode).map(lambda m: lambda w: w.write(replace(pool(mode=m), name="p"))),
    st.booleans().map(lambda nat: lambda w: w.write(replace(pool(), name="p", nat_outgoing=nat))),
    st.just(lambda w: w.remove(replace(pool(), name="p"))),
    numbers.map(lambda n: lambda w: w.write(nodes(n))),
    numbers.map(lambda n: lambda w: w.remove(nodes(n))),
    st.builds(
        lambda n, owner, state: lambda w: w.write(affinity(BLOCKS[n], f"node-{owner}", state)),
        numbers,
        numbers,
        st.sampled_from(AffinityState),
    ),
    st.builds(
        lambda n, owner: lambda w: w.remove(affinity(BLOCKS[n], f"node-{owner}")),
        numbers,
        numbers,
    ),
    st.builds(
        lambda n, holder: lambda w: w.write(borrowed_block(BLOCKS[n], holder)),
        numbers,
        st.none() | numbers.map(lambda n: f"node-{n}"),
    ),
    st.builds(lambda n, block: post(told(n, BLOCKS[block])), st.integers(1, 2), numbers),
    st.builds(
        lambda n, block: post(told(n, BLOCKS[block].replace("0/26", "0/32"))),
        st.integers(1, 2),
        numbers,
    ),
    st.builds(
        lambda n, block: post(told(n, withdrawn=[BLOCKS[block]])), st.integers(1, 2), numbers
    ),
    st.builds(lambda n, up: post(*session(n, is_up=up)), st.integers(1, 2), st.booleans()),
    numbers.map(lambda n: lambda w: w.add_pod(n)),
    numbers.map(lambda n: lambda w: w.record(pods(n, state=EndpointState.INTENT))),
    numbers.map(lambda n: lambda w: w.forget(pods(n))),
    numbers.map(lambda n: lambda w: w.plug(VETHS[n], pods(n))),
    numbers.map(lambda n: lambda w: w.unplug(VETHS[n])),
    st.builds(
        lambda name, up: lambda w: w.flip(name, is_up=up),
        st.sampled_from(["tunl0", *VETHS]),
        st.booleans(),
    ),
    st.integers(0, 9).map(lambda n: lambda w: w.delete_some_route(n)),
    st.builds(
        lambda block, protocol: lambda w: w.stranger(BLOCKS[block], protocol=protocol),
        numbers,
        st.sampled_from([4, 12]),
    ),
    st.just(lambda w: w.kernel.lose_events()),
    st.just(lambda w: w.kernel.flush_routes(protocol=12)),
)


vxlan_events: st.SearchStrategy[Event] = st.one_of(
    st.sampled_from(TunnelMode).map(lambda m: lambda w: w.write(vxlan_pool(m))),
    st.sampled_from(TunnelMode).map(lambda m: lambda w: w.write(replace(pool(mode=m), name="p"))),
    st.builds(lambda n, block: lambda w: w.write(with_end(n, block)), numbers, numbers),
    numbers.map(lambda n: lambda w: w.write(nodes(n))),
    numbers.map(lambda n: lambda w: w.remove(nodes(n))),
    st.builds(
        lambda n, owner, state: lambda w: w.write(affinity(BLOCKS[n], f"node-{owner}", state)),
        numbers,
        numbers,
        st.sampled_from(AffinityState),
    ),
    st.builds(
        lambda n, holder: lambda w: w.write(borrowed_block(BLOCKS[n], holder)),
        numbers,
        st.none() | numbers.map(lambda n: f"node-{n}"),
    ),
    st.builds(lambda n, block: post(told(n, BLOCKS[block])), st.integers(1, 2), numbers),
    st.builds(lambda n, up: post(*session(n, is_up=up)), st.integers(1, 2), st.booleans()),
    st.just(lambda w: w.unplug(VXLAN)),
    st.booleans().map(lambda up: lambda w: w.flip(VXLAN, is_up=up)),
    st.builds(lambda n, ours: lambda w: w.write_entry(n, is_ours=ours), numbers, st.booleans()),
    st.integers(0, 9).map(lambda n: lambda w: w.delete_some_entry(n)),
    st.integers(0, 9).map(lambda n: lambda w: w.delete_some_route(n)),
    st.just(lambda w: w.kernel.lose_events()),
)


@contextlib.asynccontextmanager
async def playing(world: World) -> AsyncIterator[None]:
    """Run the reconciler and what tells it of the kernel; everything is listed as empty."""
    post_message = world.reconciler.post
    tasks = [
        asyncio.create_task(world.reconciler.run()),
        asyncio.create_task(watch_kernel(world.kernel, post=post_message)),
        asyncio.create_task(
            watch_sysctls(
                world.kernel,
                names=lambda: list(world.reconciler.want.sysctls),
                post=post_message,
            )
        ),
    ]
    try:
        post_message(EndpointsListed(()))
        for kind in WATCHED_KINDS:
            post_message(Listed(kind, ()))
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def play(world: World, happenings: Sequence[tuple[Event, bool]]) -> None:
    """Let things happen, with or without pauses between, and settle."""
    async with playing(world):
        for happening, has_pause in happenings:
            happening(world)
            if has_pause:
                await asyncio.sleep(0.01)
        await asyncio.sleep(130)  # all gates are open then
        world.kernel.flush_routes(protocol=12)
        for foreign in FOREIGN:
            if foreign not in world.kernel.routes():
                world.kernel.create_route(foreign)
        await world.settle()
