"""Several addresses by one release: of many blocks, nodes and families, or named twice."""

from ipaddress import IPv4Network, ip_address
from typing import TYPE_CHECKING

import pytest

from pycni.errors import Exhausted
from pycni.ipam import block as arithmetic
from pycni.ipam.requests import AssignRequest
from pycni.model.resources import Block, Handle, IPPool
from pycni.ports import Datastore
from tests.agent.ipam.allocators import (
    POOL,
    SIX,
    SMALL,
    affinities,
    check_books,
    fill,
    held_by,
    node,
    take,
)
from tests.agent.ipam.conftest import Play

if TYPE_CHECKING:
    from pycni.model.endpoints import AssignedAddress


async def occupied(store: Datastore) -> int:
    """Return how many addresses anybody has."""
    return sum(len(arithmetic.given(stored.value)) for stored in (await store.list(Block)).items)


@pytest.mark.parametrize("has_memory", [True, False])
def test_addresses_of_two_blocks_are_released_by_one_call(play: Play, *, has_memory: bool) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        given: list[AssignedAddress] = []
        for _ in range(66):
            given += (await allocator.assign(AssignRequest("x"))).addresses
        assert len(await affinities(store)) == 2

        releasing = allocator if has_memory else node(store)
        outcome = await releasing.release(given, handle_id="x")

        assert sorted(map(int, outcome.released)) == sorted(int(one.interface.ip) for one in given)
        assert outcome.refused == ()
        assert await occupied(store) == 0
        assert await store.get(Handle, "x") is None
        await check_books(store)

    play([POOL], story)


def test_a_hundred_addresses_of_many_blocks_nodes_and_both_families_go_at_once(play: Play) -> None:
    async def story(store: Datastore) -> None:
        given: list[AssignedAddress] = []
        for number in range(50):
            request = AssignRequest("x", versions=(4, 6))
            given += (await node(store, f"node-{number % 5}").assign(request)).addresses
        (kept,) = await take(node(store, "node-1"), "neighbour")

        outcome = await node(store, "node-4").release(given, handle_id="x")

        assert set(outcome.released) == {one.interface.ip for one in given}
        assert len(outcome.released) == 100
        assert await occupied(store) == 1
        assert await held_by(store, "neighbour") == [kept]
        await check_books(store)

    play([IPPool("four", IPv4Network("10.0.0.0/22"), block_size=30), SIX], story)


def test_an_address_that_is_named_twice_is_freed_once(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        await fill(allocator, 15)
        given = (await allocator.assign(AssignRequest("x"))).addresses
        (address,) = [one.interface.ip for one in given]

        outcome = await allocator.release([*given, *given], handle_id="x")

        assert (outcome.released, outcome.refused) == ((address,), ())
        await check_books(store)
        # It can be given once; then the pool is full as before.
        assert await take(allocator, "y") == [str(address)]
        with pytest.raises(Exhausted):
            await take(allocator, "z")
        assert (await allocator.release([*given, *given], handle_id="x")).released == ()
        assert await held_by(store, "y") == [str(address)]
        await check_books(store)

    play([SMALL], story)


@pytest.mark.parametrize("is_current_first", [True, False])
def test_an_address_that_is_named_with_an_old_and_its_own_number_is_freed_once(
    play: Play, *, is_current_first: bool
) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        wanted = (ip_address("10.0.0.13"),)
        (old,) = (await allocator.assign(AssignRequest("x", addresses=wanted))).addresses
        await allocator.release([old], handle_id="x")
        (current,) = (await allocator.assign(AssignRequest("x", addresses=wanted))).addresses

        both = [current, old] if is_current_first else [old, current]
        outcome = await allocator.release(both, handle_id="x")

        assert outcome.released == wanted
        assert await occupied(store) == 0
        await check_books(store)

    play([SMALL], story)


def test_a_late_release_frees_nothing_in_a_block_that_was_made_anew(play: Play) -> None:
    async def story(store: Datastore) -> None:
        wanted = (ip_address("10.0.0.13"),)
        allocator = node(store)
        old = await allocator.assign(AssignRequest("x", addresses=wanted))
        await allocator.release_by_handle("x")
        assert await allocator.release_affinity(IPv4Network("10.0.0.12/30"), only_if_empty=True)
        assert (await store.list(Block)).items == ()
        new = await allocator.assign(AssignRequest("x", addresses=wanted))

        outcome = await allocator.release(old.addresses, handle_id="x")

        assert (outcome.released, outcome.refused) == ((), wanted)
        assert await held_by(store, "x") == ["10.0.0.13"]
        assert (await allocator.release(new.addresses, handle_id="x")).released == wanted
        await check_books(store)

    play([SMALL], story)
