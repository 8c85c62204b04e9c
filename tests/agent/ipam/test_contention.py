"""Other writers meanwhile: conflicts are retried, and nobody's work is undone."""

import asyncio

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore
from pycni.errors import Conflict, TryAgain
from pycni.ipam import block as arithmetic
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.model.resources import Block, Handle
from pycni.ports import Datastore
from tests import virtual_time
from tests.agent.ipam.allocators import CIDR, SMALL, affinity, check_books, new_block, node, take
from tests.agent.ipam.conftest import Play
from tests.agent.ipam.faults import Failing


def test_conflicts_are_retried_and_counted(play: Play) -> None:
    async def story(store: Datastore) -> None:
        # From the second write on: the first creates a handle, which has no revision to differ.
        for at in range(2, 5):
            events: list[str] = []
            failing = Failing(store, at=at, error=Conflict, late=False)
            allocator = node(failing.datastore, observe=events.append)
            await take(allocator, "x")
            await allocator.release_by_handle("x")
            await check_books(store)
            assert failing.is_over
            assert events.count("conflict") == 1
            assert events.count("address-given") == 1

    play([SMALL, new_block(), affinity()], story)


def test_undoing_spares_the_same_address_of_a_faster_writer(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "first")
        fast: list[str] = []

        async def overtake(call: Call) -> None:
            if (call.verb, call.kind) == ("update", Block) and not fast:
                fast.extend(await take(node(store), "fast"))
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await take(node(FaultyDatastore(store, before=overtake)), "slow")

        (block,) = (await store.list(Block)).items
        held = arithmetic.given_to(block.value, "fast")
        assert [str(one.address) for one in held] == fast
        await check_books(store)

    play([SMALL], story)


def test_endless_conflicts_end(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "first")

        async def refuse(call: Call) -> None:
            if (call.verb, call.kind) == ("update", Block):
                raise Conflict("somebody else, always")

        with pytest.raises(TryAgain, match="100 attempts met other writers"):
            await take(node(FaultyDatastore(store, before=refuse)), "x")
        assert await store.get(Handle, "x") is None
        await check_books(store)

    play([SMALL], story)


def test_many_at_once_from_three_nodes_get_different_addresses(play: Play) -> None:
    async def story(store: Datastore) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(take(node(store, f"n{number % 3}"), f"h{number}"))
                for number in range(16)
            ]

        assert len({task.result()[0] for task in tasks}) == 16
        await check_books(store)

    play([SMALL], story)


@pytest.mark.parametrize("count", [0, 1])
def test_a_handle_that_appears_or_disappears_meanwhile_is_met_again(play: Play, count: int) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "x")
        rounds = 0

        async def interfere(call: Call) -> None:
            nonlocal rounds
            stored = await store.get(Handle, "x")
            if (call.verb, call.kind) == ("update", Handle) and rounds < 2 and stored:
                rounds += 1
                await store.delete(Handle, "x", if_revision=stored.revision)
                if count:
                    await store.create(stored.value)

        await take(node(FaultyDatastore(store, before=interfere)), "x")

        stored = await store.get(Handle, "x")
        assert stored is not None
        assert stored.value.blocks == ((CIDR, 2 if count else 1),)

    play([SMALL, new_block(), affinity()], story)


def test_real_sleep_is_the_default() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        for value in (SMALL, new_block(), affinity()):
            await store.create(value)
        failing = Failing(store, at=2, error=Conflict, late=False)
        allocator = Allocator(failing.datastore, node="node-0")
        clock = asyncio.get_running_loop().time  # where time passes by sleeping alone
        began = clock()

        await allocator.assign(AssignRequest("x"))

        assert failing.is_over
        assert 0.0005 <= clock() - began <= 0.0015  # the first pause, with its jitter
        await check_books(store)

    virtual_time.run(story())
