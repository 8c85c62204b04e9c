"""Reserved addresses are given to those only who ask for them in particular."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.errors import Exhausted
from pycni.ipam.requests import DatastoreView
from pycni.model.resources import Block, BlockAffinity, IPPool, IPReservation, Node
from pycni.ports import Datastore
from tests.agent.ipam.allocators import (
    SIX,
    SMALL,
    affinity,
    check_books,
    new_block,
    node,
    take,
)
from tests.agent.ipam.conftest import Play


async def reserve(store: Datastore, *texts: str) -> None:
    await store.create(IPReservation("kept", tuple(ip_network(text) for text in texts)))


def test_reserved_addresses_are_passed_over(play: Play) -> None:
    async def story(store: Datastore) -> None:
        # The block that node-0 tries first is 10.0.0.12/30.
        await reserve(store, "10.0.0.12/31", "10.0.0.15/32")

        assert await take(node(store), "x") == ["10.0.0.14"]
        # Then one of another block.
        assert await take(node(store), "y") == ["10.0.0.0"]
        await check_books(store)

    play([SMALL], story)


@pytest.mark.parametrize("has_memory", [True, False])
def test_a_block_of_the_node_that_is_reserved_by_now_is_stepped_over_for_its_next(
    play: Play, *, has_memory: bool
) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        given = [(await take(allocator, f"h-{number}"))[0] for number in range(5)]
        assert given[3:] == ["10.0.0.15", "10.0.0.0"]
        await allocator.release_by_handle("h-1")
        await allocator.release_by_handle("h-3")
        # Of its first block, two are free and kept, as are the others.
        await reserve(store, "10.0.0.12/30")

        asking = allocator if has_memory else node(store)
        assert await take(asking, "x") == ["10.0.0.1"]
        assert len((await store.list(Block)).items) == 2
        await check_books(store)

    play([SMALL], story)


def test_who_asks_for_a_reserved_address_gets_it(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await reserve(store, "10.0.0.0/28")

        address = ip_address("10.0.0.13")
        assert await take(node(store), "x", addresses=(address,)) == ["10.0.0.13"]

    play([SMALL], story)


def test_a_block_of_reserved_addresses_is_never_claimed(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await reserve(store, "10.0.0.12/30", "10.0.0.0/29")

        assert await take(node(store), "x") == ["10.0.0.8"]
        assert [str(s.value.cidr) for s in (await store.list(Block)).items] == ["10.0.0.8/30"]

    play([SMALL], story)


def test_a_pool_of_reserved_addresses_is_exhausted_and_stays_whole(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await reserve(store, "10.0.0.0/28")

        with pytest.raises(Exhausted, match="nothing is free"):
            await take(node(store), "x")

        assert (await store.list(Block)).items == ()

    play([SMALL], story)


def test_reserved_addresses_are_not_borrowed(play: Play) -> None:
    async def story(store: Datastore) -> None:
        for number in range(4):
            await take(node(store, f"node-{number}"), f"owner-{number}")
        await reserve(store, "10.0.0.0/28")

        with pytest.raises(Exhausted, match=r"\(12 more in its blocks are reserved\)"):
            await take(node(store, "node-9"), "x")

    play([SMALL], story)


def test_what_is_reserved_later_stays_where_it_is_and_is_not_given_again(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        assert await take(allocator, "x") == ["10.0.0.12"]
        await reserve(store, "10.0.0.12/32")
        assert await take(allocator, "y") == ["10.0.0.13"]
        await allocator.release_by_handle("x")

        given = [(await take(allocator, f"z-{number}"))[0] for number in range(3)]

        assert "10.0.0.12" not in given

    play([SMALL], story)


def test_a_reservation_of_half_a_large_pool_is_stepped_over(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await reserve(store, "fd00:0:0:0:8000::/65")

        for number in range(4):
            (address,) = await take(node(store, f"node-{number}"), f"h-{number}", versions=(6,))
            assert ip_address(address) in ip_network("fd00::/65")

    play([replace(SIX, block_size=122)], story)


def test_a_change_of_reservations_counts_though_pools_stay_as_they_are(play: Play) -> None:
    class Watching(DatastoreView):
        """Hands out the same pools and affinities, and reservations as they are."""

        async def pools(self) -> Sequence[IPPool]:
            return POOLS

        async def affinities(self, node: str) -> Sequence[BlockAffinity]:
            del node
            return AFFINITIES

    async def story(store: Datastore) -> None:
        allocator = node(store, view=Watching(store))
        assert await take(allocator, "x") == ["10.0.0.4"]
        await reserve(store, "10.0.0.5/32")
        assert await take(allocator, "y") == ["10.0.0.6"]

    play([SMALL, new_block(), affinity()], story)


def test_a_change_of_labels_counts_though_pools_stay_as_they_are(play: Play) -> None:
    pools = (replace(SMALL, node_selector="rack == 'a'"),)

    class Watching(DatastoreView):
        async def pools(self) -> Sequence[IPPool]:
            return pools

        async def affinities(self, node: str) -> Sequence[BlockAffinity]:
            del node
            return AFFINITIES

    async def story(store: Datastore) -> None:
        stored = await store.create(Node("node-0", labels=(("rack", "a"),)))
        allocator = node(store, view=Watching(store))
        await take(allocator, "x")
        await store.update(Node("node-0"), if_revision=stored.revision)

        with pytest.raises(Exhausted, match="no enabled pool"):
            await take(allocator, "y")

    play([*pools, new_block(), affinity()], story)


POOLS = (SMALL,)
AFFINITIES = (affinity(),)
