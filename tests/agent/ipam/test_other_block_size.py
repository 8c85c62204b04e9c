"""Pools that are made anew with blocks of another size, while blocks of the former are there."""

from ipaddress import IPv4Network

import pytest

from pycni.errors import AlreadyExists, Exhausted
from pycni.ipam.allocator import Allocator
from pycni.model.resources import AffinityState, BlockAffinity, IPAMConfig
from pycni.ports import Datastore
from tests.agent.ipam.allocators import FIRST, SMALL, change_pool, node, take
from tests.agent.ipam.conftest import Play

FREE = SMALL.cidr[9]  # in the /29 of FIRST, and not in that
HELD, BESIDE = SMALL.cidr[12], SMALL.cidr[13]


async def take_all(allocator: Allocator, prefix: str) -> list[str]:
    taken: list[str] = []
    try:
        while True:
            taken += await take(allocator, f"{prefix}-{len(taken)}")
    except Exhausted:
        return taken


async def leave_a_block(store: Datastore) -> None:
    """Give node-0 an empty block of the former size."""
    await take(node(store), "former")
    await node(store).release_by_handle("former")


@pytest.mark.parametrize("new_size", [28, 29])
def test_blocks_of_two_sizes_never_give_an_address_twice(play: Play, new_size: int) -> None:
    async def story(store: Datastore) -> None:
        await leave_a_block(store)
        await change_pool(store, "small", block_size=new_size)

        taken = await take_all(node(store, "node-1"), "b") + await take_all(node(store), "a")

        assert len(taken) == len(set(taken))
        assert len(taken) >= 4

    play([SMALL], story)


def test_smaller_blocks_fill_what_a_larger_one_leaves(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await change_pool(store, "small", block_size=29)
        await leave_a_block(store)
        await change_pool(store, "small", block_size=30)
        await store.create(IPAMConfig(max_blocks_per_host=2))

        taken = await take_all(node(store, "node-1"), "b") + await take_all(node(store), "a")

        assert len(taken) == len(set(taken)) == 16

    play([SMALL], story)


def test_an_address_is_named_in_a_block_of_the_former_size(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "former", addresses=(HELD,))
        await change_pool(store, "small", block_size=29)

        with pytest.raises(AlreadyExists, match="former holds it"):
            await take(node(store, "node-1"), "b", addresses=(HELD,))
        assert await take(node(store, "node-1"), "b", addresses=(BESIDE,)) == [str(BESIDE)]

    play([SMALL], story)


def test_an_address_whose_block_can_not_be_made_is_refused(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await leave_a_block(store)
        await change_pool(store, "small", block_size=29)

        with pytest.raises(Exhausted, match=f"8/29 can't be made, because block {FIRST}"):
            await take(node(store, "node-1"), "b", addresses=(FREE,))

    play([SMALL], story)


def test_an_unfinished_claim_of_the_former_size_is_not_taken_up(play: Play) -> None:
    async def story(store: Datastore) -> None:
        claim = BlockAffinity("node-0", IPv4Network(FIRST), AffinityState.PENDING)
        await store.create(claim)
        await change_pool(store, "small", block_size=28)

        taken = await take_all(node(store, "node-1"), "b") + await take_all(node(store), "a")

        assert len(taken) == len(set(taken)) == 16

    play([SMALL], story)
