"""Releases that come together, also with assignments, share a write of the block."""

import asyncio
from collections import Counter

import pytest

from pycni.errors import Conflict, TryAgain
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.model.resources import Block, Handle
from pycni.ports import Datastore
from tests.agent.ipam.allocators import POOL, check_books, node, take
from tests.agent.ipam.conftest import Play
from tests.agent.ipam.test_together import (
    Watched,
    allocator_in_company,
    ask,
    flat,
    held,
)


async def give(allocator: Allocator, names: str) -> None:
    """Give each name an address, so that handles and block are remembered."""
    for name in names:
        await allocator.assign(AssignRequest(name, is_first=True))


def release(allocator: Allocator, names: str) -> list["asyncio.Task[int]"]:
    """Start one release for each name; none has run yet."""

    async def one(name: str) -> int:
        return len(await allocator.release_by_handle(name))

    return [asyncio.create_task(one(name)) for name in names]


def test_a_block_is_written_once_for_all_releases(play: Play) -> None:
    async def story(store: Datastore) -> None:
        watched = Watched(store)
        events: Counter[str] = Counter()
        allocator = allocator_in_company(watched.datastore, observe=lambda e: events.update([e]))
        await give(allocator, "abcdefgh")
        watched.calls.clear()
        events.clear()

        results = await asyncio.gather(*release(allocator, "abcdefg"))

        assert results == [1] * 7
        assert watched.calls.count(("update", Block)) == 1
        assert watched.calls.count(("delete", Handle)) == 7
        # A crash may come between two of them: the block has it back before the handle goes.
        assert watched.calls.index(("update", Block)) < watched.calls.index(("delete", Handle))
        assert events == {"block-written": 1, "address-released": 7}
        assert await held(store) == {"h"}
        await check_books(store)

    play([POOL], story)


def test_releases_and_assignments_share_a_write(play: Play) -> None:
    async def story(store: Datastore) -> None:
        watched = Watched(store)
        allocator = allocator_in_company(watched.datastore)
        await give(allocator, "abc")
        watched.calls.clear()

        given, released = ask(allocator, "xy"), release(allocator, "ab")
        await asyncio.gather(*given, *released)

        assert [task.result() for task in released] == [1, 1]
        assert len(set(flat([task.result() for task in given]))) == 2
        assert [call for call in watched.calls if call[0] in {"create", "update", "delete"}] == [
            *[("create", Handle)] * 2,
            ("update", Block),
            *[("delete", Handle)] * 2,
        ]
        assert await held(store) == {"c", "x", "y"}
        await check_books(store)

    play([POOL], story)


def test_a_handle_that_is_gone_holds_up_nobody(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = allocator_in_company(store)
        await give(allocator, "abcd")
        await node(store).release_by_handle("b")

        results = await asyncio.gather(*release(allocator, "abc"))

        assert results == [1, 0, 1]
        assert await held(store) == {"d"}
        await check_books(store)

    play([POOL], story)


def test_a_writer_who_was_faster_costs_the_releases_a_repetition(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = allocator_in_company(store)
        await give(allocator, "abc")
        await take(node(store), "faster")

        results = await asyncio.gather(*release(allocator, "ab"))

        assert results == [1, 1]
        assert await held(store) == {"c", "faster"}
        await check_books(store)

    play([POOL], story)


@pytest.mark.parametrize("victim", [0, 1, 3])
@pytest.mark.parametrize("turns", range(5))
def test_a_cancelled_release_takes_nobody_along(play: Play, victim: int, turns: int) -> None:
    async def story(store: Datastore) -> None:
        allocator = allocator_in_company(store)
        await give(allocator, "abcde")
        tasks = release(allocator, "abcd")

        for _ in range(turns):
            await asyncio.sleep(0)
        tasks[victim].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert await held(store) <= {"e", "abcd"[victim]}
        # Whoever was cancelled comes again.
        await allocator.release_by_handle("abcd"[victim])
        assert await held(store) == {"e"}
        await check_books(store)

    play([POOL], story)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [TryAgain("away for a moment"), Conflict("changed meanwhile")])
@pytest.mark.parametrize("call", [("update", Block), ("delete", Handle)])
def test_an_error_of_the_shared_write_is_made_good(
    play: Play, call: tuple[str, type[object]], error: Exception, *, late: bool
) -> None:
    async def story(store: Datastore) -> None:
        watched = Watched(store)
        allocator = allocator_in_company(watched.datastore)
        await give(allocator, "abcd")

        async def refuse() -> None:
            raise error

        (watched.late_steps if late else watched.steps)[call] = refuse
        results = await asyncio.gather(*release(allocator, "abc"), return_exceptions=True)

        failed = [name for name, one in zip("abc", results, strict=True) if one is error]
        assert len(failed) <= 1
        for name in failed:
            await allocator.release_by_handle(name)
        assert await held(store) == {"d"}
        await check_books(store)

    play([POOL], story)
