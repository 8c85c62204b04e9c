"""A pod's first address is its only one, whatever a lost record left under its handle."""

import asyncio
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address, IPv4Network

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.errors import Exhausted, PycniError, TryAgain
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.model.resources import Block, Handle
from pycni.ports import Datastore
from tests.agent.death import Died
from tests.agent.ipam.allocators import FIRST, SIX, SMALL, check_books, fill, held_by, node, take
from tests.agent.ipam.conftest import Play
from tests.agent.ipam.faults import Failing


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


async def warm(allocator: Allocator) -> None:
    """Let it remember its blocks."""
    await take(allocator, "warm", versions=(4, 6))
    await allocator.release_by_handle("warm")


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
            await warm(allocator)
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
                await warm(allocator)
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
