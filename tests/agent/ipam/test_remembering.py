"""What allocators remember: how few calls that costs, and that it never decides alone."""

import asyncio
from ipaddress import IPv4Address, IPv4Network

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore
from pycni.ipam import block as arithmetic
from pycni.ipam.blocks import Blocks
from pycni.ipam.handles import Handles
from pycni.ipam.requests import AssignRequest, DatastoreView
from pycni.ipam.reserved import NOTHING, Reserved
from pycni.ipam.retries import Retries
from pycni.model.resources import Block, BlockAffinity, Handle, IPAMConfig, IPPool
from pycni.model.selector import Labels
from pycni.ports import Datastore
from tests.agent.ipam.allocators import (
    FIRST,
    POOL,
    SMALL,
    check_books,
    fill,
    held_by,
    lose_handle,
    node,
    take,
)
from tests.agent.ipam.conftest import Play


class Counting:
    """A datastore that writes down what is asked of it."""

    def __init__(self, store: Datastore) -> None:
        self.calls: list[tuple[str, type[object]]] = []
        self.datastore = FaultyDatastore(store, before=self.note)

    async def note(self, call: Call) -> None:
        self.calls.append((call.verb, call.kind))

    def told(self) -> list[tuple[str, type[object]]]:
        calls, self.calls = self.calls, []
        return calls


class Unchanging:
    """A view that hands out the same objects again, as a watching one does."""

    def __init__(self, store: Datastore) -> None:
        self.truth = DatastoreView(store)

    async def read(self) -> "Unchanging":
        self.all_pools = tuple(await self.truth.pools())
        self.all_affinities = tuple(await self.truth.affinities("node-0"))
        return self

    async def pools(self) -> tuple[IPPool, ...]:
        return self.all_pools

    async def affinities(self, node: str) -> tuple[BlockAffinity, ...]:
        del node
        return self.all_affinities

    async def config(self) -> IPAMConfig:
        return IPAMConfig()

    async def reserved(self) -> Reserved:
        return NOTHING

    async def labels(self, node: str) -> Labels:
        raise AssertionError(node)  # no pool asks for them

    async def nodes(self) -> frozenset[str]:
        raise AssertionError  # nobody looks for nodes that are gone


ADD = [("create", Handle), ("update", Block)]
DEL = [("update", Block), ("delete", Handle)]


def test_a_hot_pod_costs_two_writes_each_way(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "resident")
        counting = Counting(store)
        allocator = node(counting.datastore, view=await Unchanging(store).read())
        await take(allocator, "warm", is_first=True)
        counting.told()

        given = await allocator.assign(AssignRequest("x", is_first=True))
        adding = counting.told()
        await allocator.release_by_handle("x", addresses=given.addresses)
        deleting = counting.told()

        assert (adding, deleting) == (ADD, DEL)
        await check_books(store)

    play([POOL], story)


def test_full_blocks_cost_nothing(play: Play) -> None:
    async def story(store: Datastore) -> None:
        counting = Counting(store)
        await fill(node(counting.datastore), 13)
        allocator = node(counting.datastore, view=await Unchanging(store).read())
        await take(allocator, "warm", is_first=True)
        counting.told()

        await take(allocator, "x", is_first=True)

        assert counting.told() == ADD

    play([SMALL], story)


def test_a_freed_address_comes_before_a_later_block(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        taken = await fill(allocator, 10)
        await allocator.release_by_handle("fill-1")

        assert await take(allocator, "x", is_first=True) == [taken[1]]

    play([SMALL], story)


def test_an_address_that_somebody_else_freed_comes_before_a_new_block(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        taken = await fill(allocator, 4)
        await node(store).release_by_handle("fill-2")

        assert await take(allocator, "x", is_first=True) == [taken[2]]
        assert len((await store.list(Block)).items) == 1

    play([SMALL], story)


def test_a_block_that_somebody_else_changed_is_read_again(play: Play) -> None:
    async def story(store: Datastore) -> None:
        events: list[str] = []
        allocator = node(store, observe=events.append)
        first = await take(allocator, "a", is_first=True)
        second = await take(node(store), "b")

        third = await take(allocator, "c", is_first=True)
        await node(store).release_by_handle("c")
        await allocator.release_by_handle("a")

        assert len({*first, *second, *third}) == 3
        assert [e for e in events if e in ("claim", "conflict")] == [
            "claim",
            "conflict",
            "conflict",
        ]
        await check_books(store)

    play([SMALL], story)


def test_a_block_that_somebody_else_let_go_is_claimed_again(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store, view=await Unchanging(store).read())
        await take(allocator, "a")
        await allocator.release_by_handle("a")
        assert await node(store).release_affinity(IPv4Network(FIRST))

        await take(allocator, "b", is_first=True)

        (block,) = (await store.list(Block)).items
        assert (str(block.value.cidr), block.value.affinity) == (FIRST, "node-0")
        await check_books(store)

    play([SMALL], story)


def test_what_somebody_else_added_to_a_handle_goes_with_it(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        await take(allocator, "x")
        await take(node(store, "node-1"), "x")

        assert len(await allocator.release_by_handle("x")) == 2
        assert await store.get(Handle, "x") is None
        await check_books(store)

    play([SMALL], story)


def test_a_handle_that_somebody_else_raised_is_lowered(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        given = await allocator.assign(AssignRequest("x"))
        await take(node(store, "node-1"), "x")

        await allocator.release(given.addresses, handle_id="x")

        assert len(await held_by(store, "x")) == 1
        await check_books(store)

    play([SMALL], story)


def test_a_block_that_was_lost_and_won_again_is_used(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        (first,) = await take(allocator, "a")
        assert await node(store).release_affinity(IPv4Network(FIRST))
        # It remembers its block as nobody's now.
        await allocator.release_affinity(IPv4Network(FIRST))
        assert await take(allocator, "b", addresses=(IPv4Address(first) + 1,))
        for handle in "ab":
            await node(store).release_by_handle(handle)
        await take(node(store), "c")

        await take(allocator, "d", is_first=True)

        assert [str(one.value.cidr) for one in (await store.list(Block)).items] == [FIRST]

    play([SMALL], story)


def test_a_handle_that_somebody_else_deleted_is_no_trouble(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        first = await allocator.assign(AssignRequest("x"))
        second = await allocator.assign(AssignRequest("y"))
        for handle in "xy":
            await node(store).release_by_handle(handle)

        assert await allocator.release_by_handle("x", addresses=first.addresses) == ()
        assert (await allocator.release(second.addresses, handle_id="y")).released == ()
        await check_books(store)

    play([SMALL], story)


def test_a_release_believes_no_memory_that_there_is_nothing(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        await take(allocator, "resident")
        await take(node(store), "x")

        # The allocator knows the block, but from before this address was given.
        assert len(await allocator.release_by_handle("x")) == 1
        await check_books(store)

    play([SMALL], story)


def test_addresses_are_released_though_no_handle_tells_of_them(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        given = await allocator.assign(AssignRequest("x"))
        await lose_handle(store, "x")

        released = await node(store).release_by_handle("x", addresses=given.addresses)

        assert released == (given.addresses[0].interface.ip,)
        await check_books(store)

    play([SMALL], story)


def test_memory_is_bounded() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        blocks, handles = Blocks(store), Handles(store, retries=Retries())
        cidrs = list(IPv4Network("10.0.0.0/16").subnets(new_prefix=26))
        for cidr in cidrs[:65]:
            await blocks.create(arithmetic.new_block(cidr, affinity="n", sequence_number=1))
        for number in range(1025):
            assert await handles.create(f"h{number}", cidr=cidrs[0])

        assert blocks.recall(cidrs[0]) is None
        assert handles.recall("h0") is None
        assert blocks.recall(cidrs[64]) == await blocks.get(cidrs[64])
        assert handles.recall("h1024") == await handles.get("h1024")

    asyncio.run(story())
