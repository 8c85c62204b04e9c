"""A burst of requests that finds its node's blocks full: what it costs to go beyond them."""

import asyncio
from collections import Counter

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.errors import Exhausted
from pycni.ipam.allocator import Allocator
from pycni.ipam.retries import Observe
from pycni.model.resources import BlockAffinity, Handle
from pycni.ports import Datastore
from tests.agent.ipam.allocators import SMALL, affinities, check_books, take
from tests.agent.ipam.conftest import Play


def busy(
    store: Datastore, seen: Counter[str], *, announced: asyncio.Event | None = None
) -> Allocator:
    """Return a server's allocator, over a datastore that takes its time and whose writes count."""

    async def let_others(call: Call) -> None:
        if call.is_write:
            seen[f"{call.verb} {call.kind.__name__}"] += 1
        for _ in range(5):
            await asyncio.sleep(0)
        if announced and call.kind is BlockAffinity and call.is_write:
            announced.set()

    slow = FaultyDatastore(store, before=let_others, is_atomic=False)
    return Allocator(slow, node="node-0", has_company=lambda: True, observe=_counting(seen))


def _counting(seen: Counter[str]) -> Observe:
    def observe(event: str) -> None:
        seen[event] += 1

    return observe


def test_no_handle_is_made_in_vain_for_a_block_that_others_fill(play: Play) -> None:
    async def story(store: Datastore) -> None:
        seen: Counter[str] = Counter()
        allocator = busy(store, seen)
        await take(allocator, "warm")  # of four
        seen.clear()

        given = await asyncio.gather(*(take(allocator, f"h{number}") for number in range(6)))

        assert len({address for (address,) in given}) == 6
        assert (seen["create Handle"], seen["delete Handle"]) == (6, 0)
        await check_books(store)

    play([SMALL], story)


def test_a_burst_over_full_blocks_claims_each_next_block_once(play: Play) -> None:
    async def story(store: Datastore) -> None:
        seen: Counter[str] = Counter()
        allocator = busy(store, seen)
        await take(allocator, "warm", is_first=True)
        seen.clear()

        given = await asyncio.gather(
            *(take(allocator, f"h{number}", is_first=True) for number in range(15))
        )

        assert len({address for (address,) in given}) == 15
        assert len(await affinities(store)) == 4
        assert (seen["conflict"], seen["claim-conflict"]) == (0, 0)
        # Three claims: announced and confirmed.
        assert seen["create BlockAffinity"] == seen["update BlockAffinity"] == 3
        # As many handles as addresses, each made once; and they share the blocks' writes.
        assert (seen["create Handle"], seen["delete Handle"]) == (15, 0)
        assert seen["create Block"] == 3
        assert seen["update Block"] <= 8
        await check_books(store)

    play([SMALL], story)


def test_of_a_burst_for_more_than_there_is_the_rest_is_refused(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = busy(store, Counter())

        ended = await asyncio.gather(
            *(take(allocator, f"h{number}", is_first=True) for number in range(20)),
            return_exceptions=True,
        )

        given = [one[0] for one in ended if isinstance(one, list)]
        assert len(given) == len(set(given)) == 16
        assert sum(isinstance(one, Exhausted) for one in ended) == 4
        assert len((await store.list(Handle)).items) == 16
        await check_books(store)

    play([SMALL], story)


def test_who_claims_for_others_and_is_cancelled_holds_nobody_up(play: Play) -> None:
    async def story(store: Datastore) -> None:
        announced = asyncio.Event()
        allocator = busy(store, Counter(), announced=announced)
        claiming = asyncio.create_task(take(allocator, "gone", is_first=True))
        waiting = asyncio.create_task(take(allocator, "stays", is_first=True))
        await announced.wait()

        claiming.cancel()

        assert len(await waiting) == 1
        with pytest.raises(asyncio.CancelledError):
            await claiming
        assert [stored.value.id for stored in (await store.list(Handle)).items] == ["stays"]
        await check_books(store)

    play([SMALL], story)
