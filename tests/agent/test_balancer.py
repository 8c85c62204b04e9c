"""LoadBalancer addresses: given, written back, taken back, by one leader after another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import TypeVar

from pycni.agent.balancer import GATHER_S, LOSE_S, LOST_S, RENEW_S, RETRY_S, WHAT, Balancer
from pycni.datastore.memory import MemoryDatastore, MemoryStore
from pycni.errors import Conflict, EventsLost, PycniError, ServerAway, TryAgain
from pycni.ipam.audit import audit
from pycni.ipam.books import Books
from pycni.model.network import IPAddress
from pycni.model.resources import (
    Block,
    BlockAffinity,
    Handle,
    IPAMConfig,
    IPPool,
    Node,
    PoolUse,
    Resource,
    resource_name,
)
from pycni.model.services import BalancedService
from pycni.plan.inputs import Inputs, Settings
from pycni.ports import Listing
from tests.virtual_time import run

POOL = IPPool(
    "balanced", ip_network("198.51.100.0/30"), block_size=30,
    allowed_uses=frozenset({PoolUse.LOAD_BALANCER}),
)  # fmt: skip
T = TypeVar("T", bound=Resource)
SHOP = BalancedService("web/shop", "u1", is_ours=True, versions=(4,))


@dataclass
class ToldServices:
    """See `pycni.datastore.opening.LoadBalancing`; whoever asks first is the leader."""

    leader: str = ""
    objects: dict[str, BalancedService] = field(default_factory=dict)
    warned: list[str] = field(default_factory=list)
    writes: int = 0
    is_away: bool = False
    is_read_only: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    is_lost: bool = False
    is_always_lost: bool = False
    listings: int = 0
    behind: set[str] = field(default_factory=set)
    """Services that are not listed yet, though they are there."""
    refuses_events: PycniError | None = None
    revision: int = 0
    meanwhile: Callable[[], object] | None = None
    """Happens once, just before a status is written."""
    is_changed_always: bool = False

    async def lead(self, holder: str) -> bool:
        self._check()
        self.leader = self.leader or holder
        return self.leader == holder

    def _check(self) -> None:
        if self.is_away:
            raise TryAgain("the API server does not answer")

    def have(self, *services: BalancedService) -> None:
        for one in services:
            before = self.objects.get(one.name)
            self.touch(one)
            if one != before and (one.is_ours or (before is not None and before.is_ours)):
                self.changed.set()

    def touch(self, service: BalancedService) -> None:
        """Write a Service with nothing about it that is told."""
        self.revision += 1
        self.objects[service.name] = replace(service, revision=str(self.revision))

    def drop(self, name: str) -> None:
        del self.objects[name]
        self.changed.set()

    async def services(self) -> AsyncIterator[Sequence[BalancedService]]:
        self.listings += 1
        while True:
            self._check()
            if self.is_lost:
                self.is_lost = self.is_always_lost
                raise EventsLost("list again")
            self.changed.clear()
            yield tuple(one for name, one in self.objects.items() if name not in self.behind)
            await self.changed.wait()

    async def service(self, name: str) -> BalancedService | None:
        return self.objects.get(name)

    async def set_ingress(self, service: BalancedService, addresses: Sequence[IPAddress]) -> None:
        if self.is_read_only:
            raise TryAgain("no write is taken")
        if self.meanwhile is not None:
            self.meanwhile()
            self.meanwhile = None
        if self.is_changed_always:
            self.touch(self.objects[service.name])
        there = self.objects.get(service.name)
        if there is None or (there.uid, there.revision) != (service.uid, service.revision):
            raise Conflict("somebody has changed it")
        self.writes += 1
        self.have(replace(self.objects[service.name], ingress=tuple(addresses)))

    async def warn(self, service: BalancedService, *, reason: str, message: str) -> None:
        self.warned.append(f"{service.name} {reason}: {message}")
        if self.refuses_events is not None:
            raise self.refuses_events


class Noted(MemoryDatastore):
    """A datastore that notes which kinds are listed."""

    def __init__(self, store: MemoryStore, listed: list[type[object]]) -> None:
        super().__init__(store)
        self._listed = listed

    async def list(self, kind: type[T]) -> Listing[T]:
        self._listed.append(kind)
        return await super().list(kind)


@dataclass
class World:
    store: MemoryStore
    cluster: ToldServices
    troubles: dict[str, str] = field(default_factory=dict)
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    listed: list[type[object]] = field(default_factory=list)

    def start(self, node: str, *pools: IPPool) -> Balancer:
        """Start an agent's part that knows of these pools."""
        balancer = Balancer(
            Noted(self.store, self.listed),
            self.cluster,
            node=node,
            report=self.troubles.__setitem__,
        )
        balancer.look(self.inputs(node, *pools))
        self.tasks.append(asyncio.create_task(balancer.run()))
        return balancer

    def inputs(self, node: str, *pools: IPPool) -> Inputs:
        made = Inputs(Settings(node))
        made.set_node(node, Node(node))
        made.pools = {pool.name: pool for pool in pools}
        return made

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()

    def ingress(self, name: str = "web/shop") -> list[str]:
        return [str(one) for one in self.cluster.objects[name].ingress]

    async def held(self) -> dict[str, int]:
        """Return how many addresses each handle holds; the books must be in order."""
        datastore = MemoryDatastore(self.store)
        books = Books(
            pools=tuple(one.value for one in (await datastore.list(IPPool)).items),
            blocks=tuple(one.value for one in (await datastore.list(Block)).items),
            handles=tuple(one.value for one in (await datastore.list(Handle)).items),
            affinities=tuple(one.value for one in (await datastore.list(BlockAffinity)).items),
        )
        assert audit(books) == ()
        return {one.id: sum(count for _, count in one.blocks) for one in books.handles}


def play(story: Callable[[World], Awaitable[None]], *services: BalancedService) -> None:
    async def main() -> None:
        world = World(MemoryStore(), ToldServices())
        world.cluster.have(*services)
        await MemoryDatastore(world.store).create(POOL)
        try:
            async with asyncio.timeout(3600):
                await story(world)
        finally:
            await world.stop()

    run(main())


def test_a_service_gets_an_address_and_its_status_says_so() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        assert world.ingress() == ["198.51.100.0"]

        other = replace(SHOP, name="web/other", uid="u2")
        world.cluster.have(other, replace(SHOP, name="web/alien", is_ours=False))
        await asyncio.sleep(1)
        assert world.ingress("web/other") == ["198.51.100.1"]
        assert world.ingress("web/alien") == []
        assert await world.held() == {SHOP.handle_id: 1, other.handle_id: 1}
        assert world.cluster.writes == 2

    play(story, SHOP)


def test_an_address_is_taken_back_with_its_service_or_its_type() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)

        world.cluster.have(replace(world.cluster.objects["web/shop"], is_ours=False))
        await asyncio.sleep(1)
        assert world.ingress() == []
        assert await world.held() == {}

        world.cluster.have(SHOP)
        await asyncio.sleep(1)
        assert await world.held() == {SHOP.handle_id: 1}
        world.cluster.drop("web/shop")
        await asyncio.sleep(1)
        assert await world.held() == {}

    play(story, SHOP)


def test_an_address_of_a_service_that_is_not_listed_yet_is_not_taken_back() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        await world.stop()

        world.cluster.behind.add("web/shop")
        world.start("node-0", POOL)
        await asyncio.sleep(1)

        assert await world.held() == {SHOP.handle_id: 1}

    play(story, SHOP)


def test_a_service_that_is_made_again_gets_an_address_of_its_own() -> None:
    again = replace(SHOP, uid="u9")

    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        world.cluster.have(again)
        await asyncio.sleep(1)
        assert await world.held() == {again.handle_id: 1}

    play(story, SHOP)


def test_a_wish_that_can_not_be_fulfilled_takes_nothing_away() -> None:
    other = replace(SHOP, name="web/other", uid="u2")

    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        assert (world.ingress("web/other"), world.ingress()) == (["198.51.100.0"], ["198.51.100.1"])

        asks = replace(world.cluster.objects["web/shop"], addresses=(ip_address("198.51.100.0"),))
        world.cluster.have(asks)
        await asyncio.sleep(1)
        assert world.ingress() == ["198.51.100.1"]
        assert "cannot assign 198.51.100.0" in world.cluster.warned[0]
        assert await world.held() == {SHOP.handle_id: 1, other.handle_id: 1}

        world.cluster.drop("web/other")
        await asyncio.sleep(1)
        assert world.ingress() == ["198.51.100.0"]
        assert await world.held() == {SHOP.handle_id: 1}

    play(story, SHOP, other)


def test_where_no_pool_is_for_it_nobody_stands_for_election() -> None:
    async def story(world: World) -> None:
        balancer = world.start("node-0")
        await asyncio.sleep(60)
        assert world.cluster.leader == ""
        leaving = world.inputs("node-0", POOL)
        leaving.is_leaving = True
        balancer.look(leaving)
        await asyncio.sleep(60)
        assert world.cluster.leader == ""

    play(story, SHOP)


def test_what_nobody_can_be_given_is_told_once_and_given_when_it_can_be() -> None:
    services = [replace(SHOP, name=f"web/s{n}", uid=f"u{n}") for n in range(5)]

    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(300)
        (event,) = world.cluster.warned
        assert event.startswith("web/s4 NoLoadBalancerAddress: ")
        assert world.ingress("web/s4") == []

        world.cluster.drop("web/s0")
        await asyncio.sleep(1)
        assert world.ingress("web/s4") == ["198.51.100.0"]
        assert len(world.cluster.warned) == 1

    play(story, *services)


def test_the_limit_of_blocks_is_told() -> None:
    services = [replace(SHOP, name=f"web/s{n}", uid=f"u{n}") for n in range(3)]
    narrow = replace(POOL, block_size=32)

    async def story(world: World) -> None:
        datastore = MemoryDatastore(world.store)
        stored = await datastore.get(IPPool, POOL.name)
        assert stored is not None
        await datastore.update(narrow, if_revision=stored.revision)
        await datastore.create(IPAMConfig(max_blocks_per_host=2))
        world.start("node-0", narrow)
        await asyncio.sleep(1)

        assert len(await world.held()) == 2
        (event,) = world.cluster.warned
        assert "owns 2 blocks, the limit is 2 (maxBlocksPerHost of IPAMConfiguration)" in event

    play(story, *services)


def test_a_leader_that_died_before_the_status_is_succeeded() -> None:
    async def story(world: World) -> None:
        world.cluster.is_read_only = True
        world.start("node-0", POOL)
        await asyncio.sleep(2)
        assert await world.held() == {SHOP.handle_id: 1}
        assert world.troubles[WHAT] == "Service web/shop: no write is taken"
        await world.stop()
        world.cluster.leader, world.cluster.is_read_only = "", False

        world.start("node-1", POOL)
        await asyncio.sleep(5)
        assert world.ingress() == ["198.51.100.0"]
        assert await world.held() == {SHOP.handle_id: 1}

    play(story, SHOP)


def test_a_service_that_was_changed_meanwhile_is_read_again() -> None:
    async def story(world: World) -> None:
        # A label, say: nothing is told of it.
        world.cluster.meanwhile = lambda: world.cluster.touch(SHOP)
        world.start("node-0", POOL)
        await asyncio.sleep(1)

        assert world.ingress() == ["198.51.100.0"]
        assert world.troubles[WHAT] == ""

    play(story, SHOP)


def test_a_service_that_has_gone_meanwhile_holds_nothing() -> None:
    async def story(world: World) -> None:
        world.cluster.meanwhile = lambda: world.cluster.objects.pop("web/shop")
        world.start("node-0", POOL)
        await asyncio.sleep(1)

        assert await world.held() == {}
        assert world.troubles[WHAT] == ""

    play(story, SHOP)


def test_a_service_that_is_changed_all_the_time_is_trouble() -> None:
    async def story(world: World) -> None:
        world.cluster.is_changed_always = True
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        assert "Service web/shop: somebody else changes it" in world.troubles[WHAT]

        world.cluster.is_changed_always = False
        await asyncio.sleep(RETRY_S)
        assert world.ingress() == ["198.51.100.0"]

    play(story, SHOP)


def test_nothing_is_free_for_others_while_a_status_names_it() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        world.cluster.is_read_only = True
        world.cluster.have(replace(world.cluster.objects["web/shop"], is_ours=False))
        await asyncio.sleep(1)
        assert world.ingress() == ["198.51.100.0"]
        assert await world.held() == {SHOP.handle_id: 1}
        await world.stop()
        world.cluster.leader, world.cluster.is_read_only = "", False

        world.start("node-1", POOL)
        await asyncio.sleep(1)
        assert world.ingress() == []
        assert await world.held() == {}

    play(story, SHOP)


def test_what_a_leader_had_no_time_to_take_back_the_next_one_does() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        await world.stop()
        world.cluster.leader = ""
        world.cluster.have(replace(SHOP, is_ours=False))
        world.start("node-1", POOL)
        await asyncio.sleep(1)
        assert await world.held() == {}

    play(story, SHOP)


def test_a_status_that_is_not_told_of_yet_counts_too() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        named = world.cluster.objects["web/shop"]
        told = replace(named, is_ours=False, ingress=())
        world.cluster.have(told)
        await asyncio.sleep(GATHER_S / 2)
        world.cluster.touch(replace(told, ingress=named.ingress))
        await asyncio.sleep(1)
        assert world.ingress() == []
        assert await world.held() == {}

    play(story, SHOP)


def test_no_blocks_of_nodes_are_read_for_a_service() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        world.listed.clear()
        world.cluster.have(replace(SHOP, name="web/late", uid="u2"))
        await asyncio.sleep(1)
        assert world.ingress("web/late") == ["198.51.100.1"]
        assert Block not in world.listed

    play(story, SHOP)


def test_a_block_without_its_affinity_is_found_by_the_next_leader() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        await world.stop()
        world.cluster.leader = ""
        datastore = MemoryDatastore(world.store)
        (stored,) = (await datastore.list(BlockAffinity)).items
        name = resource_name(stored.value)
        await datastore.delete(BlockAffinity, name, if_revision=stored.revision)

        world.start("node-1", POOL)
        await asyncio.sleep(1)
        assert world.ingress() == ["198.51.100.0"]
        assert await world.held() == {SHOP.handle_id: 1}

    play(story, SHOP)


def test_one_agent_serves_and_ends_when_another_has_the_lease() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        world.start("node-1", POOL)
        await asyncio.sleep(1)
        assert (world.cluster.leader, world.cluster.writes) == ("node-0", 1)

        world.cluster.leader = "node-9"
        await asyncio.sleep(2 * RENEW_S)
        world.cluster.have(replace(SHOP, name="web/late", uid="u2"))
        await asyncio.sleep(LOSE_S)
        assert world.ingress("web/late") == []

    play(story, SHOP)


def test_a_leader_without_its_lease_renewed_stops_and_comes_back() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        world.cluster.is_away = True
        await asyncio.sleep(3 * LOSE_S)
        assert world.troubles[WHAT] == "the API server does not answer"
        world.cluster.is_away = False
        world.cluster.have(replace(SHOP, name="web/late", uid="u2"))
        await asyncio.sleep(3 * LOSE_S)
        assert world.ingress("web/late") == ["198.51.100.1"]
        assert world.troubles[WHAT] == ""

    play(story, SHOP)


def test_lost_changes_are_listed_again() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        world.cluster.is_lost = True
        world.cluster.have(replace(SHOP, name="web/late", uid="u2"))
        await asyncio.sleep(LOST_S + 1)
        assert world.ingress("web/late") == ["198.51.100.1"]

    play(story, SHOP)


def test_where_changes_are_lost_all_the_time_listings_are_few() -> None:
    async def story(world: World) -> None:
        world.cluster.is_lost = world.cluster.is_always_lost = True
        world.start("node-0", POOL)
        await asyncio.sleep(10)
        assert 2 < world.cluster.listings <= 10 / LOST_S

    play(story, SHOP)


def test_an_event_that_is_refused_is_not_tried_again() -> None:
    late = replace(SHOP, name="web/late", uid="u2")

    async def story(world: World) -> None:
        world.cluster.refuses_events = TryAgain("the namespace is being deleted")
        world.start("node-0", POOL)
        await asyncio.sleep(600)
        assert len(world.cluster.warned) == 1
        assert world.troubles[WHAT] == ""

        world.cluster.have(late)
        await asyncio.sleep(1)
        assert world.ingress("web/late") == ["198.51.100.0"]

    play(story, replace(SHOP, fault="that is no list"))


def test_an_event_that_nobody_took_is_made_later() -> None:
    async def story(world: World) -> None:
        world.cluster.refuses_events = ServerAway("the API server does not answer")
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        assert "does not answer" in world.troubles[WHAT]

        world.cluster.refuses_events = None
        await asyncio.sleep(RETRY_S)
        assert world.troubles[WHAT] == ""
        assert len(world.cluster.warned) == 2

    play(story, replace(SHOP, fault="that is no list"))


def test_a_pool_that_goes_takes_its_addresses_along() -> None:
    async def story(world: World) -> None:
        balancer = world.start("node-0", POOL)
        await asyncio.sleep(1)
        datastore = MemoryDatastore(world.store)
        stored = await datastore.get(IPPool, POOL.name)
        assert stored is not None
        await datastore.delete(IPPool, POOL.name, if_revision=stored.revision)

        inputs = world.inputs("node-0")
        (affinity,) = [one.value for one in (await datastore.list(BlockAffinity)).items]
        inputs.affinities[affinity.cidr] = affinity
        balancer.look(inputs)
        await asyncio.sleep(1)

        assert world.ingress() == []
        (event,) = world.cluster.warned
        assert "no enabled pool serves LoadBalancer addresses" in event
        # Nor are there blocks, for which it would lead for ever.
        assert await world.held() == {}
        assert (await datastore.list(Block)).items == ()
        assert (await datastore.list(BlockAffinity)).items == ()

    play(story, SHOP)
