"""Requests that come together share a write; what becomes of one is no other's trouble."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.errors import Conflict, Exhausted, TryAgain
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.ipam.retries import Observe, observe_nothing
from pycni.model.resources import Block, Handle
from pycni.ports import Datastore
from tests.agent.ipam.allocators import POOL, SMALL, check_books, fill, node, take
from tests.agent.ipam.conftest import Play

Step = Callable[[], Awaitable[None]]


def allocator_in_company(store: Datastore, *, observe: Observe = observe_nothing) -> Allocator:
    return node(store, has_company=lambda: True, observe=observe)


def ask(allocator: Allocator, names: str) -> list["asyncio.Task[list[str]]"]:
    """Start one request for each name; none has run yet."""

    async def one(name: str) -> list[str]:
        given = await allocator.assign(AssignRequest(name, is_first=True))
        return [str(a.interface.ip) for a in given.addresses]

    return [asyncio.create_task(one(name)) for name in names]


def flat(results: Sequence[list[str] | BaseException]) -> list[str]:
    return [address for one in results if isinstance(one, list) for address in one]


async def held(store: Datastore) -> set[str]:
    return {stored.value.id for stored in (await store.list(Handle)).items}


class Watched:
    """A datastore that notes its calls and may do something around one of them."""

    def __init__(self, store: Datastore, *, is_far: bool = False) -> None:
        self.is_far = is_far
        self.events: Counter[str] = Counter()
        self.calls: list[tuple[str, type[object]]] = []
        self.steps: dict[tuple[str, type[object]], Step] = {}
        self.late_steps: dict[tuple[str, type[object]], Step] = {}
        self.datastore = FaultyDatastore(store, before=self.before, after=self.after)

    def allocator(self) -> Allocator:
        """Return a server's allocator over it, whose events are counted."""
        return allocator_in_company(
            self.datastore, observe=lambda event: self.events.update([event])
        )

    async def warm_allocator(self) -> Allocator:
        """Return one that knows its block; what that took doesn't count."""
        allocator = self.allocator()
        await take(allocator, "warm", is_first=True)
        self.calls.clear()
        self.events.clear()
        return allocator

    async def before(self, call: Call) -> None:
        self.calls.append((call.verb, call.kind))
        if step := self.steps.pop((call.verb, call.kind), None):
            await step()
        for _ in range(3 if self.is_far else 0):
            await asyncio.sleep(0)

    async def after(self, call: Call) -> None:
        if step := self.late_steps.pop((call.verb, call.kind), None):
            await step()


def test_a_block_is_written_once_for_all(play: Play) -> None:
    async def story(store: Datastore) -> None:
        (before,) = await take(node(store), "resident")
        watched = Watched(store)
        allocator = await watched.warm_allocator()

        results = await asyncio.gather(*ask(allocator, "abcdefgh"))

        assert before == "192.168.39.192"
        assert flat(results) == [f"192.168.39.{n}" for n in range(194, 202)]
        assert watched.calls.count(("update", Block)) == 1
        assert watched.calls.count(("create", Handle)) == 8
        assert watched.events == {"block-written": 1, "address-given": 8}
        await check_books(store)

    play([POOL], story)


def test_who_comes_while_the_block_is_written_shares_the_next_write(play: Play) -> None:
    async def story(store: Datastore) -> None:
        watched = Watched(store)
        allocator = await watched.warm_allocator()
        late: list[asyncio.Task[list[str]]] = []

        async def others_come() -> None:
            late.extend(ask(allocator, "defgh"))
            for _ in range(20):  # a store that is far away takes its time
                await asyncio.sleep(0)

        watched.steps["update", Block] = others_come
        early = await asyncio.gather(*ask(allocator, "abc"))
        results = await asyncio.gather(*late)

        assert len(set(flat(early) + flat(results))) == 8
        assert watched.calls.count(("update", Block)) == 2
        assert watched.events == {"block-written": 2, "address-given": 8}
        await check_books(store)

    play([POOL], story)


def test_whoever_goes_the_careful_way_waits_for_its_turn(play: Play) -> None:
    async def story(store: Datastore) -> None:
        watched = Watched(store, is_far=True)
        allocator = watched.allocator()
        names = "abcdefgh"
        for name in names:  # each has an address already, so none is a handle's first
            await take(allocator, name)
        watched.events.clear()

        given = await asyncio.gather(*(take(allocator, name) for name in names))
        taken = await asyncio.gather(*(allocator.release_by_handle(name) for name in names))

        assert len({address for one in given for address in one}) == 8
        assert sum(map(len, taken)) == 16
        assert watched.events["conflict"] == 0
        await check_books(store)

    play([POOL], story)


def test_who_finds_no_room_left_in_the_block_gets_another(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await fill(node(store), 2)  # of four

        results = await asyncio.gather(*ask(allocator_in_company(store), "abcde"))

        assert len(set(flat(results))) == 5
        assert len((await store.list(Block)).items) == 2
        await check_books(store)

    play([SMALL], story)


def test_a_full_pool_refuses_only_whom_it_cannot_serve(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await fill(node(store), 13)  # of sixteen

        tasks = ask(allocator_in_company(store), "abcde")
        results = await asyncio.gather(*tasks, return_exceptions=True)

        assert len(set(flat(results))) == 3
        assert [type(r) for r in results if isinstance(r, BaseException)] == [Exhausted] * 2
        await check_books(store)

    play([SMALL], story)


def test_a_handle_that_holds_something_already_holds_up_nobody(play: Play) -> None:
    async def story(store: Datastore) -> None:
        (old,) = await take(node(store), "c")

        results = await asyncio.gather(*ask(allocator_in_company(store), "abcd"))

        assert len(set(flat(results))) == 4
        assert len(await held(store)) == 4
        await check_books(store)
        assert old  # released, and perhaps given again

    play([SMALL], story)


def test_a_writer_who_was_faster_costs_a_repetition(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "resident")
        allocator = allocator_in_company(store)
        await take(allocator, "warm", is_first=True)
        tasks = ask(allocator, "abc")
        await take(node(store), "faster")

        results = await asyncio.gather(*tasks)

        assert len(set(flat(results))) == 3
        assert await held(store) == {"resident", "warm", "faster", "a", "b", "c"}
        await check_books(store)

    play([POOL], story)


@pytest.mark.parametrize("victim", [0, 1, 3])
@pytest.mark.parametrize("turns", range(6))
def test_whoever_is_cancelled_leaves_nothing_and_takes_nobody_along(
    play: Play, victim: int, turns: int
) -> None:
    async def story(store: Datastore) -> None:
        watched = Watched(store)
        allocator = allocator_in_company(watched.datastore)
        await take(allocator, "warm", is_first=True)
        tasks = ask(allocator, "abcd")

        for _ in range(turns):
            await asyncio.sleep(0)
        tasks[victim].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)

        served = {"abcd"[n] for n, one in enumerate(results) if isinstance(one, list)}
        assert served >= set("abcd") - {"abcd"[victim]}
        assert await held(store) == served | {"warm"}
        await check_books(store)

    play([POOL], story)


@pytest.mark.parametrize("victim", [0, 2])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("call", [("create", Handle), ("update", Block)])
def test_whoever_is_cancelled_in_the_middle_of_the_write_leaves_nothing(
    play: Play, victim: int, call: tuple[str, type[object]], *, late: bool
) -> None:
    async def story(store: Datastore) -> None:
        watched = Watched(store)
        allocator = allocator_in_company(watched.datastore)
        await take(allocator, "warm", is_first=True)
        tasks = ask(allocator, "abcd")

        async def cancel() -> None:
            tasks[victim].cancel()
            await asyncio.sleep(0)

        (watched.late_steps if late else watched.steps)[call] = cancel
        results = await asyncio.gather(*tasks, return_exceptions=True)

        served = {"abcd"[n] for n, one in enumerate(results) if isinstance(one, list)}
        assert served == set("abcd") - {"abcd"[victim]}
        assert await held(store) == served | {"warm"}
        await check_books(store)

    play([POOL], story)


@pytest.mark.parametrize("error", [TryAgain, Conflict])
@pytest.mark.parametrize("call", [("create", Handle), ("update", Block)])
def test_whoever_is_cancelled_leaves_nothing_though_no_answer_comes(
    play: Play, call: tuple[str, type[object]], error: type[Exception]
) -> None:
    """As beside an API server that takes longer than a request may: it is done all the same."""

    async def story(store: Datastore) -> None:
        watched = Watched(store)
        allocator = allocator_in_company(watched.datastore)
        await take(allocator, "warm", is_first=True)
        tasks = ask(allocator, "abcd")

        async def lose() -> None:
            tasks[2].cancel()
            for _ in range(5):
                await asyncio.sleep(0)
            raise error("no answer")

        watched.late_steps[call] = lose
        results = await asyncio.gather(*tasks, return_exceptions=True)

        served = {"abcd"[n] for n, one in enumerate(results) if isinstance(one, list)}
        assert served >= {"b", "d"}
        assert await held(store) == served | {"warm"}
        await check_books(store)

    play([POOL], story)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("call", [("create", Handle), ("update", Block)])
def test_an_error_of_the_shared_write_meets_one_at_most(
    play: Play, call: tuple[str, type[object]], *, late: bool
) -> None:
    async def story(store: Datastore) -> None:
        watched = Watched(store)
        allocator = allocator_in_company(watched.datastore)
        await take(allocator, "warm", is_first=True)

        async def refuse() -> None:
            raise TryAgain("away for a moment")

        (watched.late_steps if late else watched.steps)[call] = refuse
        tasks = ask(allocator, "abcd")
        results = await asyncio.gather(*tasks, return_exceptions=True)

        served = {"abcd"[n] for n, one in enumerate(results) if isinstance(one, list)}
        assert len(served) == 3
        assert await held(store) == served | {"warm"}
        await check_books(store)

    play([POOL], story)


def test_who_is_alone_waits_for_nobody(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        await take(allocator, "warm", is_first=True)
        (task,) = ask(allocator, "a")

        await asyncio.sleep(0)

        assert task.done()

    play([POOL], story)
