"""IPv6 from the blocks: as IPv4, beside it, and counted for itself."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest

from pycni.errors import AlreadyExists, Exhausted
from pycni.model.resources import Block, Handle, IPAMConfig, IPPool
from pycni.ports import Datastore
from tests.agent.ipam.allocators import SIX, SMALL, affinities, check_books, node, take
from tests.agent.ipam.conftest import Play

TINY_SIX = IPPool("tiny-six", IPv6Network("fd00::/126"), block_size=127)


def pools_of_256(*, host_bits: int) -> Sequence[IPPool]:
    return (
        IPPool("four", IPv4Network("10.0.0.0/24"), block_size=32 - host_bits),
        IPPool("six", IPv6Network("fd00::/120"), block_size=128 - host_bits),
    )


@pytest.mark.parametrize("is_first", [True, False])
def test_without_an_ipv4_pool_no_ipv6_address_is_given_either(
    play: Play, *, is_first: bool
) -> None:
    async def story(store: Datastore) -> None:
        with pytest.raises(Exhausted, match="IPv4"):
            await take(node(store), "x", versions=(4, 6), is_first=is_first)

        assert await store.get(Handle, "x") is None
        assert (await store.list(Block)).items == ()

    play([SIX], story)


def test_a_full_ipv6_pool_refuses_and_names_itself(play: Play) -> None:
    async def story(store: Datastore) -> None:
        given = [(await take(node(store), f"x{n}", versions=(6,)))[0] for n in range(4)]
        assert sorted(given) == ["fd00::", "fd00::1", "fd00::2", "fd00::3"]

        with pytest.raises(Exhausted, match=r"nothing is free in tiny-six \(fd00::/126\)"):
            await take(node(store), "y", versions=(6,))
        # IPv4 is not what is missing, and none of it stays behind.
        with pytest.raises(Exhausted, match="tiny-six"):
            await take(node(store), "y", versions=(4, 6))
        assert await store.get(Handle, "y") is None
        await check_books(store)

    play([SMALL, TINY_SIX], story)


def test_a_particular_ipv6_address_claims_its_block_and_is_given_once(play: Play) -> None:
    async def story(store: Datastore) -> None:
        wanted = (ip_address("fd00::1234"),)

        assert await take(node(store), "x", addresses=wanted, versions=()) == ["fd00::1234"]
        assert await affinities(store) == [("node-0", "fd00::1234/126", "confirmed")]
        with pytest.raises(AlreadyExists, match="x holds it"):
            await take(node(store, "node-1"), "y", addresses=wanted, versions=())
        await check_books(store)

    play([SMALL, SIX], story)


def test_particular_addresses_of_both_families_come_together_or_not_at_all(play: Play) -> None:
    async def story(store: Datastore) -> None:
        wanted = (ip_address("10.0.0.6"), ip_address("fd00::6"))

        assert await take(node(store), "x", addresses=wanted) == ["10.0.0.6", "fd00::6"]
        # The second one is in use: the first, which was free, is given back.
        with pytest.raises(AlreadyExists, match="fd00::6"):
            await take(node(store), "y", addresses=(ip_address("10.0.0.7"), wanted[1]))
        assert await store.get(Handle, "y") is None
        await check_books(store)

    play([SMALL, SIX], story)


@pytest.mark.parametrize("host_bits", [6, 2], ids=["blocks of 64", "blocks of four"])
def test_pools_of_both_families_are_given_to_the_last_address(
    play: Play, *, host_bits: int
) -> None:
    pools = pools_of_256(host_bits=host_bits)

    async def story(store: Datastore) -> None:
        pairs = [await take(node(store), f"x{n}", versions=(4, 6)) for n in range(256)]

        for pool, given in zip(pools, zip(*pairs, strict=True), strict=True):
            assert set(given) == set(map(str, pool.cidr))
        with pytest.raises(Exhausted, match="nothing is free in four"):
            await take(node(store), "y", versions=(4, 6))
        await check_books(store)

    play([*pools, IPAMConfig(max_blocks_per_host=100)], story)


@pytest.mark.parametrize("limit", [1, 2])
def test_as_many_addresses_of_each_family_as_the_blocks_of_the_limit_hold(
    play: Play, *, limit: int
) -> None:
    async def story(store: Datastore) -> None:
        # The blocks of one family do not count for the other.
        for number in range(4 * limit):
            await take(node(store), f"x{number}", versions=(4, 6))

        for version in (4, 6):
            with pytest.raises(Exhausted, match=f"node-0 owns {limit} blocks, the limit"):
                await take(node(store), "y", versions=(version,))
        assert len(await affinities(store)) == 2 * limit
        await check_books(store)

    play([SMALL, SIX, IPAMConfig(max_blocks_per_host=limit)], story)
