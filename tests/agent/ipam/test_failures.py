"""Failures at every call of the datastore: nothing leaks, and all can be repeated."""

import asyncio

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.errors import PycniError, TryAgain
from pycni.ipam.requests import AssignRequest
from pycni.model.resources import Block, BlockAffinity, Handle
from pycni.ports import Datastore
from tests.agent.death import Died
from tests.agent.ipam.allocators import SIX, SMALL, affinities, check_books, node, take
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
