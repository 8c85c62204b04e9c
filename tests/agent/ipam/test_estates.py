"""What a gone node has left is taken back, whoever else is at it, and even if the node returns."""

import asyncio
import contextlib
from collections.abc import Coroutine, Generator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from pycni.agent.registration import Registration
from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore
from pycni.errors import Conflict, PycniError, TryAgain
from pycni.ipam import block as arithmetic
from pycni.ipam.audit import audit
from pycni.ipam.estates import Estates
from pycni.ipam.findings import Kind
from pycni.ipam.gone import Estate, estates
from pycni.ipam.lookup import read_books
from pycni.ipam.mending import Mending
from pycni.ipam.requests import DatastoreView
from pycni.model.resources import Block, BlockAffinity, Handle, IPAMConfig, Node
from pycni.ports import Datastore
from tests.agent.death import Died
from tests.agent.ipam.allocators import (
    OWN,
    TUNNELLED,
    affinities,
    affinity,
    check_books,
    held_by,
    leave,
    new_block,
    no_sleep,
    node,
    take,
)
from tests.agent.ipam.conftest import Play
from tests.agent.ipam.faults import Failing


async def estate_of(store: Datastore, name: str = "node-0") -> Estate:
    books = await read_books(store)
    return estates(books.blocks, books.affinities)[name]


async def collect(store: Datastore, estate: Estate | None = None) -> list[str]:
    taken = Estates(store, view=DatastoreView(store), sleep=no_sleep)
    wanted = await estate_of(store) if estate is None else estate
    return [what async for what in taken.collect(wanted)]


async def kinds(store: Datastore) -> list[Kind]:
    return [one.kind for one in audit(await read_books(store))]


async def everything(store: Datastore) -> list[object]:
    books = await read_books(store)
    return [books.blocks, books.handles, books.affinities]


# --- one collects -------------------------------------------------------------------------------


def test_everything_of_the_node_goes_and_everything_of_others_stays(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await leave(store)

        done = await collect(store)

        assert done == [
            "addresses in 10.0.0.8/30 of node node-0, which is gone",
            "block 10.0.0.12/30 of node node-0, which is gone",
        ]
        assert [one[0] for one in await affinities(store)] == ["node-1"]
        assert len(await held_by(store, "guest")) == len(await held_by(store, "their-pod")) == 1
        owners = {
            str(one.value.cidr): one.value.affinity for one in (await store.list(Block)).items
        }
        assert owners == {"10.0.0.8/30": "node-1", "10.0.0.12/30": None}
        await check_books(store)
        assert await kinds(store) == []

    play([TUNNELLED], story)


def test_empty_block_of_the_node_goes_too(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await leave(store)
        await take(node(store), "x", addresses=(IPv4Address("10.0.0.0"),), **OWN)
        await node(store).release_by_handle("x")

        done = await collect(store)

        assert "block 10.0.0.0/30 of node node-0, which is gone" in done
        assert "10.0.0.0/30" not in {str(s.value.cidr) for s in (await store.list(Block)).items}
        assert [one[0] for one in await affinities(store)] == ["node-1"]
        await check_books(store)

    play([TUNNELLED], story)


def test_ownerless_block_goes_with_the_last_address_that_others_have_in_it(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await leave(store)
        await collect(store)

        await node(store, "node-1").release_by_handle("guest")

        assert [str(one.value.cidr) for one in (await store.list(Block)).items] == ["10.0.0.8/30"]

    play([TUNNELLED], story)


def test_second_time_nothing_is_left_to_do(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await leave(store)
        estate = await estate_of(store)
        await collect(store, estate)

        assert await collect(store, estate) == []

    play([TUNNELLED], story)


def test_what_it_had_borrowed_rests_where_that_is_wanted(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await leave(store)
        await store.create(IPAMConfig(cooldown_s=60))

        await collect(store)

        (lent,) = [one.value for one in (await store.list(Block)).items if one.value.affinity]
        assert arithmetic.resting_count(lent) == 1

    play([TUNNELLED], story)


@pytest.mark.parametrize("has_block", [False, True])
def test_claim_on_what_is_not_its_own_is_dropped(play: Play, *, has_block: bool) -> None:
    async def story(store: Datastore) -> None:
        await store.create(affinity())
        if has_block:
            await store.create(new_block(owner="node-1"))

        done = await collect(store)

        assert done == ["affinity for 10.0.0.4/30 of node node-0, which is gone"]
        assert await affinities(store) == []
        assert len((await store.list(Block)).items) == has_block

    play([], story)


# --- the node returns ---------------------------------------------------------------------------


def test_node_with_an_object_keeps_everything(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await leave(store)
        estate, before = await estate_of(store), await everything(store)
        await store.create(Node("node-0"))

        with pytest.raises(TryAgain, match="node node-0 is back"):
            await collect(store, estate)

        assert await everything(store) == before

    play([TUNNELLED], story)


@pytest.mark.parametrize("what", ["an address", "a block"])
def test_node_that_was_given_more_since_it_was_looked_at_keeps_that(play: Play, what: str) -> None:
    async def story(store: Datastore) -> None:
        await leave(store)
        estate = await estate_of(store)
        if what == "an address":
            await take(node(store), "later", **OWN)
        else:
            estate = replace(estate, blocks=frozenset())

        with pytest.raises(TryAgain, match="is back"):
            await collect(store, estate)

        if what == "an address":
            assert len(await held_by(store, "later")) == 1
        assert "node-0" in [one[0] for one in await affinities(store)]

    play([TUNNELLED], story)


def test_block_that_is_made_for_a_dropped_affinity_gets_it_back(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await store.create(affinity())

        async def make_block(call: Call) -> None:
            if call.is_write and call.kind is BlockAffinity and call.verb == "delete":
                await store.create(new_block())

        await collect(FaultyDatastore(store, after=make_block))

        assert await affinities(store) == [("node-0", "10.0.0.4/30", "confirmed")]

    play([], story)


class Suspension:
    def __await__(self) -> Generator[None, None, None]:
        yield


def in_turns(store: Datastore, *, is_atomic: bool) -> Datastore:
    """Return a store that waits before each call until the test goes on."""

    async def wait(_: Call) -> None:
        await Suspension()

    return FaultyDatastore(store, before=wait, is_atomic=is_atomic)


def step(work: Coroutine[Any, Any, Any], times: int) -> bool:
    """Go on so many calls; return whether the work has ended."""
    for _ in range(times):
        try:
            work.send(None)
        except (StopIteration, TryAgain):
            return True
    return False


def finish(work: Coroutine[Any, Any, Any]) -> None:
    assert step(work, 10_000)


def registration(store: Datastore) -> Registration:
    return Registration(
        store,
        node(store),
        node="node-0",
        addresses=(),
        report=lambda _what, _why: None,
        sleep=no_sleep,
    )


def prepared() -> tuple[MemoryDatastore, Estate]:
    """Return books with what node-0 has left."""
    store = MemoryDatastore()

    async def story() -> Estate:
        await store.create(TUNNELLED)
        await leave(store)
        return await estate_of(store)

    return store, asyncio.run(story())


async def check_return(store: Datastore) -> None:
    """Hold what the node says of itself against the books."""
    stored = await store.get(Node, "node-0")
    assert stored is not None
    assert await held_by(store, "ipip-tunnel-addr-node-0") == [
        str(stored.value.ipip_tunnel_address)
    ]
    await take(node(store), "new", **OWN)
    assert [kind for kind in await kinds(store) if kind is not Kind.HANDLE_MISCOUNTS] == []


@pytest.mark.parametrize("is_atomic", [True, False])
def test_node_that_returns_at_any_moment_finds_its_books_in_order(*, is_atomic: bool) -> None:
    first = 0
    while True:
        second = 0
        while True:
            store, estate = prepared()
            collecting = collect(in_turns(store, is_atomic=is_atomic), estate)
            returning = registration(in_turns(store, is_atomic=is_atomic)).once()
            is_collected = step(collecting, first)
            is_back = step(returning, second)
            for work, is_over in ((collecting, is_collected), (returning, is_back)):
                if not is_over:
                    finish(work)
            asyncio.run(check_return(store))
            if is_back:
                break
            second += 1
        if is_collected:
            assert first > 10
            return
        first += 1


@pytest.mark.parametrize("is_atomic", [True, False])
def test_two_who_collect_at_once_do_it_once(*, is_atomic: bool) -> None:
    first = 0
    while True:
        store, estate = prepared()
        one, other = (collect(in_turns(store, is_atomic=is_atomic), estate) for _ in range(2))
        is_over = step(one, first)
        finish(other)
        if not is_over:
            finish(one)
        # One by one, a handle may be left that counts too much, as after a crash.
        left = set() if is_atomic else {Kind.HANDLE_MISCOUNTS}
        assert set(asyncio.run(kinds(store))) <= left
        if is_over:
            return
        first += 1


# --- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_atomic", [True, False])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [TryAgain, Conflict, Died])
def test_whatever_fails_wherever_the_next_look_does_the_rest(
    error: type[BaseException], *, late: bool, is_atomic: bool
) -> None:
    async def story(at: int) -> bool:
        store = MemoryDatastore()
        await store.create(TUNNELLED)
        await leave(store)
        estate = await estate_of(store)
        failing = Failing(store, at=at, error=error, late=late, is_atomic=is_atomic)
        with contextlib.suppress(PycniError, Died):
            await collect(failing.datastore, estate)
        await collect(store, estate)
        findings = audit(await read_books(store))
        if is_atomic:
            assert findings == ()
        await Mending(store, sleep=no_sleep).mend(findings)
        await check_books(store)
        assert await kinds(store) == []
        assert [one[0] for one in await affinities(store)] == ["node-1"]
        return failing.is_over

    at = 1
    while asyncio.run(story(at)):
        at += 1
    assert at > 2


def test_handle_that_was_lost_is_no_hindrance(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await leave(store)
        for stored in (await store.list(Handle)).items:
            await store.delete(Handle, stored.value.id, if_revision=stored.revision)

        await collect(store)

        assert [one[0] for one in await affinities(store)] == ["node-1"]

    play([TUNNELLED], story)
