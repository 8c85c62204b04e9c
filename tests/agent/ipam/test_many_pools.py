"""What an address costs where there are hundreds of pools, and with blocks of any size."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore
from pycni.model.resources import IPPool
from pycni.ports import Datastore
from tests.agent.ipam.allocators import check_books, node, take
from tests.agent.ipam.conftest import Play

POOLS = [IPPool(f"p{n:03}", IPv4Network((0x0A000000 + (n << 12), 20))) for n in range(250)]
SIZES = pytest.mark.parametrize(
    "block_size", [32, 26, 20], ids=["of one", "of 64", "of 4096 addresses"]
)


def calls_for_two(pools: Sequence[IPPool], block_size: int) -> list[tuple[str, str]]:
    """Return what is asked of the datastore while two addresses come and go."""
    calls: list[tuple[str, str]] = []

    async def note(call: Call) -> None:
        calls.append((call.verb, call.kind.__name__))

    async def story() -> None:
        store = MemoryDatastore()
        for pool in pools:
            await store.create(replace(pool, block_size=block_size))
        now = iter(range(1, 1000))  # by which a block of one address is chosen
        noted = FaultyDatastore(store, before=note, is_atomic=True)
        allocator = node(noted, clock_ns=lambda: next(now))
        for name in ("x", "y"):
            (address,) = await take(allocator, name)
            assert IPv4Address(address) in pools[0].cidr
        for name in ("x", "y"):
            assert len(await allocator.release_by_handle(name)) == 1
        await check_books(store)

    asyncio.run(story())
    return calls


@SIZES
def test_an_address_costs_the_same_calls_among_250_pools_as_with_one(block_size: int) -> None:
    assert calls_for_two(POOLS, block_size) == calls_for_two(POOLS[:1], block_size)


@SIZES
def test_an_address_among_250_pools_is_given_well_within_a_second(
    play: Play, block_size: int
) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        for number in range(3):
            began = time.process_time()  # of this process alone: others may be busy

            await take(allocator, f"x{number}")

            assert time.process_time() - began < 1

    play([replace(pool, block_size=block_size) for pool in POOLS], story)
