"""The order in which a host tries the blocks of a pool: Calico's, a function of the names alone.

A host starts at a pseudo-random block, seeded by its own name, and goes on block by block with
wrap-around.  So two hosts rarely want the same block, one host retries in the same order, and
everybody can predict the outcome.  Pure: knows nothing of which blocks exist.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from pycni.errors import InvalidInput
from pycni.ipam.gorand import Source
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import BLOCK_SIZES

_FNV_OFFSET = 2166136261
_FNV_PRIME = 16777619


def fnv1_32(text: bytes) -> int:
    """Return the 32-bit FNV-1 hash: multiply, then exclusive-or (FNV-1a does it the other way)."""
    value = _FNV_OFFSET
    for byte in text:
        value = value * _FNV_PRIME & 0xFFFF_FFFF ^ byte
    return value


def block_count(pool: IPNetwork, *, block_size: int) -> int:
    """Return how many blocks of /block_size a pool holds."""
    sizes = BLOCK_SIZES[pool.version]
    if block_size not in sizes:
        raise InvalidInput(
            f"cannot divide {pool} into blocks of /{block_size}:"
            f" choose a block size of {sizes.start} to {sizes.stop - 1} for IPv{pool.version}"
        )
    if block_size < pool.prefixlen:
        raise InvalidInput(
            f"cannot divide {pool} into blocks of /{block_size}:"
            " the pool is smaller than one block; choose a longer block size"
        )
    return 1 << block_size - pool.prefixlen


@lru_cache(maxsize=256)
def _start_index(seed: int, count: int) -> int:
    return Source(seed).below(count)


def start_index(pool: IPNetwork, *, block_size: int, host: str, seed: int | None = None) -> int:
    """Return the index in the pool of the block that the host tries first.

    Calico seeds pools with blocks of one address (/32, /128) by the clock, so that hosts don't
    search long among single addresses; the caller passes that seed, and the host counts where it
    passes none.
    """
    count = block_count(pool, block_size=block_size)
    if seed is None:
        seed = fnv1_32(host.encode())
    return _start_index(seed, count)


def nth_block(pool: IPNetwork, index: int, *, block_size: int) -> IPNetwork:
    """Return the block with this index in a pool."""
    address = int(pool.network_address) + (index << pool.max_prefixlen - block_size)
    if isinstance(pool, IPv4Network):
        return IPv4Network((address, block_size))
    return IPv6Network((address, block_size))


def block_of(address: IPAddress, *, block_size: int) -> IPNetwork:
    """Return the block of /block_size that an address lies in."""
    shift = address.max_prefixlen - block_size
    start = int(address) >> shift << shift
    if isinstance(address, IPv4Address):
        return IPv4Network((start, block_size))
    return IPv6Network((start, block_size))


def none(_: IPNetwork) -> int:
    """Pass over no block."""
    return 0


def candidates(
    pool: IPNetwork,
    block_size: int,
    host: str,
    *,
    seed: int | None = None,
    passed_over: Callable[[IPNetwork], int] = none,
) -> Iterator[IPNetwork]:
    """Yield all blocks of a pool, each once, in the order in which the host tries them.

    `passed_over` tells how many blocks in a row, from one on, are not to be tried.
    """
    count = block_count(pool, block_size=block_size)
    first = start_index(pool, block_size=block_size, host=host, seed=seed)
    step = 0
    while step < count:
        index = (first + step) % count
        block = nth_block(pool, index, block_size=block_size)
        if passed := passed_over(block):
            step += min(passed, count - index)
            continue
        yield block
        step += 1


def rank(block: IPNetwork, *, pool: IPNetwork, host: str, seed: int | None = None) -> int:
    """Return how many blocks of its size the host tries before this one; 0 is the first."""
    count = block_count(pool, block_size=block.prefixlen)
    offset = int(block.network_address) - int(pool.network_address)
    index = offset >> pool.max_prefixlen - block.prefixlen
    return (index - start_index(pool, block_size=block.prefixlen, host=host, seed=seed)) % count
