"""A cluster that is told of LoadBalancer addresses, and agents' parts that give them there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import TypeVar

from pycni.agent.balancer import Balancer
from pycni.datastore.memory import MemoryDatastore, MemoryStore
from pycni.errors import Conflict, EventsLost, PycniError, TryAgain
from pycni.ipam.audit import audit
from pycni.ipam.books import Books
from pycni.model.network import IPAddress
from pycni.model.resources import Block, BlockAffinity, Handle, IPPool, Node, PoolUse, Resource
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
