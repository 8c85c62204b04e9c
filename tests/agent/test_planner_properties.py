"""Any history: the node ends as a fresh computation wants it, and strangers' things stay.

Random events are fed to a reconciler over a fake kernel, in any order.  What the passes over dirty
keys made of the kernel is then held against a full computation from the same facts.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
from hypothesis import given, settings

from pycni.agent.facts import WATCHED_KINDS, Facts
from pycni.agent.messages import (
    BgpTold,
    Changed,
    EndpointChanged,
    EndpointsListed,
    Listed,
    Message,
)
from pycni.agent.reconciler import Reconciler
from pycni.agent.watchers import watch_kernel, watch_sysctls
from pycni.bgp.fake import FakeNetwork, FakeSpeaker
from pycni.endpoints import FileEndpoints
from pycni.kernel.fake import FakeKernel
from pycni.kernel.fake_tables import Refused
from pycni.model.bgp import EndOfRib, Family, PathsChanged, PeerDown, PeerOpened, PeerUp
from pycni.model.endpoints import EndpointState, WorkloadEndpoint
from pycni.model.network import Address, KernelState, Route, RouteKey, RouteType
from pycni.model.resources import (
    AffinityState,
    AllocationAttribute,
    Block,
    BlockAffinity,
    IPPool,
    Node,
    Resource,
    TunnelMode,
    resource_name,
)
from pycni.plan.delta import Gate, plan
from pycni.plan.desired import compute
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.iproute import ip_route_lines, route_text
from pycni.plan.ownership import Ownership, alias_of, host_veths
from tests.agent.cluster import default_route
from tests.unit.plan.samples import affinity, node, path, pod, pool
from tests.virtual_time import run

BLOCKS = [f"192.168.{n}.0/26" for n in range(3)]
NODES = ["10.0.0.1/24", "10.0.0.2/24", "10.0.1.3/24"]
VETHS = ["cali0", "cali1", "cali2"]
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
    )


Event = Callable[[World], None]
numbers = st.integers(0, 2)


def pods(number: int, *, state: EndpointState = EndpointState.READY) -> WorkloadEndpoint:
    return pod(
        f"192.168.0.{number + 1}/32", veth=VETHS[number], container=f"c{number}", state=state
    )


def nodes(number: int) -> Node:
    return node(f"node-{number}", NODES[number], tunnel="192.168.0.0" if number == 0 else None)


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


async def play(world: World, happenings: Sequence[tuple[Event, bool]]) -> None:
    """List everything as empty, then let things happen, with or without pauses between."""
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
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@given(st.lists(st.tuples(events, st.booleans()), max_size=25))
@settings(max_examples=150)
def test_dirty_keys_and_a_full_pass_agree(happenings: list[tuple[Event, bool]]) -> None:
    async def story() -> None:
        with TemporaryDirectory() as directory:
            world = World(Path(directory))
            await play(world, happenings)
            await world.check()

    run(story())


# --- order --------------------------------------------------------------------------------------


def _is(number: int, make: Callable[[int], Resource]) -> Event:
    return lambda world: world.write(make(number))


# Sessions come after the nodes with whom they are.
NODES_FIRST: list[Event] = [
    *(_is(n, nodes) for n in range(3)),
    lambda w: w.write(replace(nodes(1), name="node-1a")),
]
FACTS: list[Event] = [
    lambda w: w.write(replace(pool(), name="p")),
    *(_is(n, lambda n: affinity(BLOCKS[n], f"node-{n}")) for n in range(3)),
    lambda w: w.write(affinity(BLOCKS[1], "node-2", AffinityState.PENDING)),
    lambda w: w.write(borrowed_block(BLOCKS[1], "node-2")),
    post(*session(1, is_up=True), told(1, BLOCKS[1], BLOCKS[0])),
    post(*session(2, is_up=True), told(2, BLOCKS[1].replace("0/26", "0/32"))),
    lambda w: w.add_pod(0),
]
EXPECTED = """\
default via 10.0.0.254 dev eth0
10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.1
blackhole 172.16.0.0/16 proto bird
blackhole 192.168.0.0/26 proto bird
192.168.0.1 dev cali0 scope link
192.168.1.0 via 10.0.1.3 dev tunl0 proto bird onlink
192.168.1.0/26 via 10.0.0.2 dev tunl0 proto bird onlink
blackhole 192.168.2.0/26 proto static""".splitlines()


def _shuffled(happenings: Sequence[Event], shuffler: random.Random) -> list[Event]:
    return shuffler.sample(happenings, len(happenings))


@given(st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=50)
def test_the_order_of_events_does_not_matter(
    shuffler: random.Random,
    has_pauses: bool,
) -> None:
    happenings = [*_shuffled(NODES_FIRST, shuffler), *_shuffled(FACTS, shuffler)]

    async def story() -> None:
        with TemporaryDirectory() as directory:
            world = World(Path(directory))
            await play(world, [(one, has_pauses) for one in happenings])
            await world.check()
            assert await world.lines() == EXPECTED

    run(story())


# --- the planner alone --------------------------------------------------------------------------

ways = st.sampled_from(["tunl0", "eth0", "cali0", None])
any_route = st.builds(
    lambda block, way, protocol, via: _route(BLOCKS[block], way, protocol=protocol, via=via),
    numbers,
    ways,
    st.sampled_from([3, 4, 12]),
    st.integers(1, 3),
)


def _route(dst: str, way: str | None, *, protocol: int, via: int) -> Route:
    from pycni.model.network import NextHop

    key = RouteKey(ip_network(dst))
    if way is None:
        return Route(key, type=RouteType.BLACKHOLE, protocol=protocol)
    hop = NextHop(way, gateway=ip_address(f"10.0.0.{via}"), is_onlink=True)
    return Route(key, next_hops=frozenset({hop}), protocol=protocol)


def _kernel(routes: Sequence[Route]) -> FakeKernel:
    kernel = FakeKernel()
    for name in ("eth0", "tunl0", "cali0"):
        kernel.add_link(name, kind="ipip" if name == "tunl0" else "veth", mtu=1480)
    for route in routes:
        if route not in kernel.routes():
            kernel.append_route(route)
    return kernel


@given(st.lists(any_route, max_size=6), st.lists(any_route, max_size=6))
def test_applying_the_plan_leads_to_what_is_wanted(there: list[Route], wanted: list[Route]) -> None:
    from pycni.model.network import Tunnel
    from pycni.plan.desired import Desired

    ownership = Ownership(
        route_protocol=12,
        tunnel_name="tunl0",
        pools=frozenset({ip_network("192.168.0.0/16")}),
        host_veths=frozenset({"cali0"}),
    )
    want = Desired(
        tunnels={"tunl0": Tunnel("tunl0", "ipip", 1480)},
        # What we write is ours by its marks.
        routes={r.key: r for r in wanted if ownership.owns(r)},
    )

    async def story() -> None:
        kernel = _kernel(there)
        before = await kernel.snapshot([])
        first = plan(want, before, ownership=ownership, gate=Gate())
        failures = await kernel.apply(first.ops)
        after = await kernel.snapshot([])
        again = plan(want, after, ownership=ownership, gate=Gate())

        assert failures == []
        assert again.ops == []
        foreign = [r for r in there if not ownership.owns(r) and r not in wanted]
        assert [route_text(r) for r in foreign if r not in kernel.routes()] == []
        conflicts = {c.wanted.key for c in first.conflicts}
        assert _missing(want.routes, after) == conflicts
        ours = [r for routes in after.routes.values() for r in routes if ownership.owns(r)]
        assert {r.key for r in ours} <= want.routes.keys()

    run(story())


def _missing(want: dict[RouteKey, Route], have: KernelState) -> set[RouteKey]:
    return {key for key, route in want.items() if route not in have.routes.get(key, ())}


def test_pools_and_affinities_are_what_the_facts_watch() -> None:
    assert {IPPool, Node, BlockAffinity, Block} <= set(WATCHED_KINDS)
