"""Failures at every call of the datastore: nothing leaks, and all can be repeated."""

import asyncio

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore, Hook
from pycni.errors import PycniError, TryAgain
from pycni.ipam.requests import AssignRequest
from pycni.model.network import IPAddress
from pycni.model.resources import Block, BlockAffinity, Handle
from pycni.ports import Datastore
from tests.agent.death import Died
from tests.agent.ipam.allocators import (
    SIX,
    SMALL,
    affinities,
    affinity,
    check_books,
    new_block,
    node,
    take,
)
from tests.agent.ipam.conftest import Play
from tests.agent.ipam.faults import Failing


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [TryAgain, asyncio.CancelledError, Died])
@pytest.mark.parametrize("is_first", [True, False])
def test_whatever_fails_wherever_nothing_leaks(
    play: Play, error: type[BaseException], *, late: bool, is_first: bool
) -> None:
    async def story(store: Datastore) -> None:
        if not is_first:
            await take(node(store), "resident")
        for at in range(1, 60):
            failing = Failing(store, at=at, error=error, late=late)
            try:
                await node(failing.datastore).assign(AssignRequest("x", versions=(4, 6)))
            except (PycniError, asyncio.CancelledError, Died):
                await check_books_unless(store, is_dead=error is Died)
            await node(store).release_by_handle("x")
            await check_books(store)
            # The next request is served, from one block, whatever was left half done.
            await take(node(store), "y")
            assert len({cidr for _, cidr, _ in await affinities(store) if "." in cidr}) == 1
            await node(store).release_by_handle("y")
            if is_first:
                await reset(store)
            if not failing.is_over:
                assert at > 5
                return
        pytest.fail("the request never got through")

    play([SMALL, SIX], story)


async def check_books_unless(store: Datastore, *, is_dead: bool) -> None:
    if not is_dead:
        await check_books(store)
        assert await store.get(Handle, "x") is None


async def reset(store: Datastore) -> None:
    for stored in (await store.list(BlockAffinity)).items:
        await node(store).release_affinity(stored.value.cidr)
    assert (await store.list(Block)).items == ()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [TryAgain, asyncio.CancelledError, Died])
def test_a_failed_release_can_be_repeated(
    play: Play, error: type[BaseException], *, late: bool
) -> None:
    async def story(store: Datastore) -> None:
        for at in range(1, 10):
            await take(node(store), "x", versions=(4, 6))
            failing = Failing(store, at=at, error=error, late=late)
            try:
                await node(failing.datastore).release_by_handle("x")
            except (PycniError, asyncio.CancelledError, Died):
                await node(store).release_by_handle("x")
            await check_books(store)
            assert await store.get(Handle, "x") is None
            if not failing.is_over:
                return
        pytest.fail("the release never got through")

    play([SMALL, SIX], story)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("reason", ["the other IP version", "the address itself"])
def test_who_is_cancelled_while_undoing_a_failure_leaves_nothing(
    play: Play, reason: str, *, late: bool
) -> None:
    address = SMALL.cidr[1]
    request = AssignRequest("x", versions=(4, 6))
    if reason == "the address itself":
        request = AssignRequest("x", addresses=(address,))

    async def story(store: Datastore) -> None:
        await take(node(store), "resident")
        for at in range(1, 40):
            failing = Failing(store, at=at, error=asyncio.CancelledError, late=late)
            if reason == "the address itself":
                failing.datastore.before = taken_meanwhile(store, address, failing.datastore.before)

            with pytest.raises((PycniError, asyncio.CancelledError)):
                await node(failing.datastore).assign(request)

            await node(store).release_by_handle("rival")
            await check_books_unless(store, is_dead=False)
            if not failing.is_over:
                assert at > 5
                return
        pytest.fail("the request never got through")

    play([SMALL], story)


def taken_meanwhile(store: Datastore, address: IPAddress, then: Hook) -> Hook:
    """Let somebody else have an address just before it is written for the first time."""
    is_taken = False

    async def hook(call: Call) -> None:
        nonlocal is_taken
        if (call.verb, call.kind) == ("update", Block) and not is_taken:
            is_taken = True
            await node(store).assign(AssignRequest("rival", addresses=(address,)))
        await then(call)

    return hook


def test_a_failing_repair_is_told_beside_the_error(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "first")
        is_broken = False

        async def fail(call: Call) -> None:
            nonlocal is_broken
            is_broken = is_broken or (call.verb, call.kind) == ("update", Block)
            if is_broken:
                raise TryAgain("disk full")

        with pytest.raises(TryAgain, match="disk full") as caught:
            await take(node(FaultyDatastore(store, before=fail)), "x")

        assert "releasing by the handle repairs that" in caught.value.__notes__[0]
        await node(store).release_by_handle("x")
        await check_books(store)

    play([SMALL], story)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("holds_more", [False, True])
def test_who_is_cancelled_while_stepping_back_from_a_full_block_leaves_no_count(
    play: Play, *, late: bool, holds_more: bool
) -> None:
    async def story(store: Datastore) -> None:
        cancelled: list[bool] = []

        async def cancel(call: Call) -> None:
            is_lowering = call.verb == ("update" if holds_more else "delete")
            if is_lowering and call.kind is Handle and not cancelled:
                cancelled.append(True)
                raise asyncio.CancelledError

        faulty = FaultyDatastore(store)
        allocator = node(faulty)
        (first,) = await take(allocator, "x" if holds_more else "resident")
        for name in "ab":
            await take(allocator, name)
        await take(node(store), "c")  # the last of four, and the allocator does not know
        if late:
            faulty.after = cancel
        else:
            faulty.before = cancel

        with pytest.raises(asyncio.CancelledError):
            await allocator.assign(AssignRequest("x"))

        assert (first, cancelled) == ("10.0.0.4", [True])
        await check_books(store)

    play([SMALL, new_block(), affinity()], story)
