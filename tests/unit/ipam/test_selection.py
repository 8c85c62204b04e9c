"""The order of blocks: Calico's own results, and what holds for any pool and host."""

import itertools
import json
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycni.errors import InvalidInput
from pycni.ipam import gorand
from pycni.ipam.selection import (
    block_count,
    block_of,
    candidates,
    fnv1_32,
    nth_block,
    rank,
    start_index,
)

# [pool, block size, host, index of the first block, the first block], computed by Go.
VECTORS = json.loads((Path(__file__).parent / "block_vectors.json").read_text())


@pytest.mark.parametrize(("pool", "block_size", "host", "index", "block"), VECTORS)
def test_first_block_is_the_one_that_calico_takes(
    pool: str, block_size: int, host: str, index: int, block: str
) -> None:
    network = ip_network(pool)

    first = next(candidates(network, block_size, host))

    assert (start_index(network, block_size=block_size, host=host), str(first)) == (index, block)


def test_the_table_begins_and_ends_as_go_prints_it() -> None:
    table = gorand.mixing_table()

    assert len(table) == 607
    assert table[:2] == (2**64 - 4181792142133755926, 2**64 - 4576982950128230565)
    assert table[-1] == 4152330101494654406


def test_the_stream_is_that_of_go() -> None:
    source = gorand.Source(1)

    words = [source.uint64() & (2**63 - 1) for _ in range(3)]

    # rand.New(rand.NewSource(1)).Int63(), three times.
    assert words == [5577006791947779410, 8674665223082153551, 6129484611666145821]


def test_seed_zero_is_replaced_as_go_does() -> None:
    assert gorand.Source(0).uint64() == gorand.Source(89482311).uint64()


def test_numbers_wider_than_a_word_are_drawn_whole() -> None:
    limit = 2**74

    numbers = {gorand.Source(seed).below(limit) for seed in range(1, 50)}

    assert len(numbers) == 49
    assert max(numbers) < limit
    assert max(numbers) > 2**70


@pytest.mark.parametrize(
    ("text", "value"), [("", 0x811C9DC5), ("a", 0x050C5D7E), ("foobar", 0x31F0B262)]
)
def test_hash_is_fnv1_not_fnv1a(text: str, value: int) -> None:
    assert fnv1_32(text.encode()) == value


def test_order_goes_on_block_by_block_and_wraps() -> None:
    pool = IPv4Network("10.0.0.0/24")

    order = [str(block) for block in candidates(pool, 26, "node-1")]

    start = start_index(pool, block_size=26, host="node-1")
    assert order == [str(nth_block(pool, (start + i) % 4, block_size=26)) for i in range(4)]


def test_a_pool_of_one_block_yields_it_once() -> None:
    pool = IPv6Network("fd00::/122")

    assert list(candidates(pool, 122, "node-0")) == [pool]


def test_single_address_blocks_take_the_seed_given() -> None:
    pool = IPv4Network("10.0.0.0/20")

    by_clock = [start_index(pool, block_size=32, host="a", seed=seed) for seed in (1, 2, 1)]

    assert by_clock[0] == by_clock[2] != by_clock[1]


def test_huge_pools_are_not_enumerated() -> None:
    pool = IPv6Network("fd00::/48")

    first, second = itertools.islice(candidates(pool, 122, "node-0"), 2)

    assert rank(first, pool=pool, host="node-0") == 0
    assert rank(second, pool=pool, host="node-0") == 1


@pytest.mark.parametrize(
    ("pool", "block_size", "words"),
    [
        ("10.0.0.0/27", 26, "smaller than one block"),
        ("10.0.0.0/16", 33, "block size of 20 to 32 for IPv4"),
        ("10.0.0.0/16", 19, "block size of 20 to 32 for IPv4"),
        ("fd00::/64", 64, "block size of 116 to 128 for IPv6"),
    ],
)
def test_impossible_divisions_are_refused(pool: str, block_size: int, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        block_count(ip_network(pool), block_size=block_size)


@settings(deadline=None)
@given(
    host=st.text(min_size=1, max_size=20),
    length=st.integers(16, 26),
    base=st.integers(0, 2**16 - 1),
)
def test_every_block_comes_once_and_rank_counts_them(host: str, length: int, base: int) -> None:
    pool = IPv4Network((base << 16 & -1 << (32 - length), length))

    order = list(candidates(pool, 26, host))

    assert len(set(order)) == block_count(pool, block_size=26)
    assert [rank(block, pool=pool, host=host) for block in order] == list(range(len(order)))


@settings(deadline=None, max_examples=30)
@given(
    host=st.text(min_size=1, max_size=20),
    version=st.sampled_from([4, 6]),
    host_bits=st.sampled_from([0, 1, 6, 12]),
    pool_bits=st.integers(0, 8),
    base=st.integers(0, 2**10),
)
def test_blocks_of_every_size_in_both_families_come_once_and_fill_the_pool(
    host: str, version: int, host_bits: int, pool_bits: int, base: int
) -> None:
    bits, family = (32, IPv4Network) if version == 4 else (128, IPv6Network)
    size = host_bits + pool_bits
    pool = family(((base << size) % 2**bits, bits - size))

    order = list(candidates(pool, bits - host_bits, host, seed=base))

    assert {block.prefixlen for block in order} == {bits - host_bits}
    assert set(order) == set(pool.subnets(new_prefix=bits - host_bits))
    assert len(order) == 2**pool_bits


@settings(deadline=None)
@given(address=st.ip_addresses(), host_bits=st.integers(0, 12))
def test_block_of_an_address_holds_it(address: object, host_bits: int) -> None:
    value = ip_address(str(address))

    block = block_of(value, block_size=value.max_prefixlen - host_bits)

    assert value in block
    assert block.prefixlen == value.max_prefixlen - host_bits
