"""What allocators remember: how few calls that costs, and that it never decides alone."""

import asyncio
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address, IPv4Network

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore
from pycni.errors import Exhausted, PycniError, TryAgain
from pycni.ipam import block as arithmetic
from pycni.ipam.allocator import Allocator
from pycni.ipam.blocks import Blocks
from pycni.ipam.handles import Handles
from pycni.ipam.requests import AssignRequest, DatastoreView
from pycni.ipam.retries import Retries
from pycni.model.resources import Block, BlockAffinity, Handle, IPPool
from pycni.ports import Datastore
from tests.agent.ipam.test_allocator import (
    POOL,
    SIX,
    SMALL,
    Died,
    Failing,
    Play,
    check_books,
    fill,
    node,
    take,
)

FIRST = "10.0.0.12/30"  # the block of SMALL that node-0 tries first


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
        assert events == ["claim", "conflict", "conflict"]
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
        handle = await store.get(Handle, "x")
        assert handle is not None
        await store.delete(Handle, "x", if_revision=handle.revision)

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


# --- what a lost record left under the handle ---------------------------------------------------


async def _nothing(store: Datastore) -> None:
    del store


async def _a_count(store: Datastore) -> None:
    await store.create(Handle("x", ((IPv4Network(FIRST), 1),)))


async def _an_address(store: Datastore) -> None:
    await take(node(store), "x")


async def _an_address_elsewhere(store: Datastore) -> None:
    await take(node(store, "node-1"), "x")


async def _several(store: Datastore) -> None:
    await take(node(store, "node-1"), "x")
    await take(node(store), "x", versions=(4, 6))
    await take(node(store), "x")


LEFTOVERS = [_nothing, _a_count, _an_address, _an_address_elsewhere, _several]
Leave = Callable[[Datastore], Coroutine[None, None, None]]


async def held_by(store: Datastore, handle: str) -> list[str]:
    return [
        str(one.address)
        for stored in (await store.list(Block)).items
        for one in arithmetic.given_to(stored.value, handle)
    ]


@pytest.mark.parametrize("is_warm", [True, False])
@pytest.mark.parametrize("leave", LEFTOVERS)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"versions": (4, 6)},
        {"versions": (6,)},
        {"addresses": (IPv4Address("10.0.0.4"),)},
        {"addresses": (IPv4Address("10.0.0.5"),), "versions": (4, 6)},
    ],
)
def test_a_first_address_is_the_only_one(
    play: Play, leave: Leave, fields: dict[str, object], *, is_warm: bool
) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        if is_warm:
            await take(allocator, "warm", versions=(4, 6))
            await allocator.release_by_handle("warm")
        await leave(store)

        taken = await take(allocator, "x", is_first=True, **fields)

        assert sorted(taken) == sorted(await held_by(store, "x"))
        await check_books(store)

    play([SMALL, SIX], story)


def test_what_was_left_is_freed_before_the_pool_counts_as_full(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        await fill(allocator, 15)
        (left,) = await take(allocator, "x")
        with pytest.raises(Exhausted):
            await take(node(store), "y", is_first=True)

        assert await take(node(store), "x", is_first=True) == [left]
        await check_books(store)

    play([SMALL], story)


@pytest.mark.parametrize("is_atomic", [True, False])
@pytest.mark.parametrize("is_warm", [True, False])
@pytest.mark.parametrize("leave", LEFTOVERS)
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [TryAgain, asyncio.CancelledError, Died])
def test_whatever_fails_wherever_nothing_leaks(
    play: Play,
    error: type[BaseException],
    leave: Leave,
    *,
    late: bool,
    is_warm: bool,
    is_atomic: bool,
) -> None:
    async def story(store: Datastore) -> None:
        for at in range(1, 40):
            failing = Failing(store, at=99, error=error, late=late, is_atomic=is_atomic)
            allocator = node(failing.datastore)
            if is_warm:
                await take(allocator, "warm", versions=(4, 6))
                await allocator.release_by_handle("warm")
            await leave(store)
            failing.left = at
            is_assigned = False
            try:
                await allocator.assign(AssignRequest("x", versions=(4, 6), is_first=True))
                is_assigned = True
                await allocator.release_by_handle("x")
            except (PycniError, asyncio.CancelledError, Died):
                if not is_assigned and leave is _nothing and error is not Died:
                    await check_books(store)
                    assert await store.get(Handle, "x") is None
            is_through = not failing.is_over
            failing.left = 0
            # As the engine does after any error, or whoever comes after a crash.
            await (node(store) if error is Died else allocator).release_by_handle("x")
            await check_books(store)
            assert await held_by(store, "x") == []
            if is_through:
                return
        pytest.fail("the request never got through")

    play([SMALL, SIX], story)


@pytest.mark.parametrize("is_first", [True, False])
def test_undoing_spares_what_a_faster_writer_got(play: Play, *, is_first: bool) -> None:
    async def story(store: Datastore) -> None:
        fast: list[str] = []

        async def overtake(call: Call) -> None:
            if (call.verb, call.kind) == ("update", Block) and is_armed and not fast:
                fast.extend(await take(node(store), "fast"))
                raise asyncio.CancelledError

        is_armed = False
        slow = Allocator(FaultyDatastore(store, before=overtake), node="node-0")
        await take(slow, "resident")
        is_armed = True
        with pytest.raises(asyncio.CancelledError):
            await take(slow, "slow", is_first=is_first)

        assert await held_by(store, "fast") == fast
        assert await held_by(store, "slow") == []
        await check_books(store)

    play([SMALL], story)
