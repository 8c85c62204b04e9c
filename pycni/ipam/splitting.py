"""How a pool is cut into smaller ones: which these are, and what stands in the way.  Pure.

The parts have everything of the pool but its name and range, and a block lies whole in one of them:
so nobody's address, block, route or NAT changes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pycni.errors import InvalidInput, NotFound
from pycni.ipam.pools import describe, holds
from pycni.model.network import IPNetwork
from pycni.model.resources import IPPool
from pycni.model.schema_fields import check_name

MOST_PARTS = 1024
"""Every agent and every request looks through all pools."""


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of a pool, and which of them are still to be made.

    `pool` is None when all was done before.
    """

    pool: IPPool | None
    parts: tuple[IPPool, ...]
    missing: tuple[IPPool, ...] = ()


def is_count(count: int) -> bool:
    """Return whether a pool can be cut into so many parts at all: 2, 4, 8 and so on."""
    return 2 <= count <= MOST_PARTS and count & (count - 1) == 0


def parts_of(pool: IPPool, count: int) -> tuple[IPPool, ...]:
    """Return the parts in the order of their addresses, which is that of their names, too."""
    most = 2 ** (pool.block_size - pool.cidr.prefixlen)
    if count > most:
        advice = f"cut it into {most} at most" if most > 1 else "it can't be cut"
        raise InvalidInput(
            f"cannot split pool {describe(pool)} into {count}: each would be smaller than one of"
            f" its blocks (/{pool.block_size}); {advice}"
        )
    names = _names(pool.name, count)
    for name in names:
        check_name(name, path=f"the name of a part of pool {pool.name}")
    cidrs: Iterable[IPNetwork] = pool.cidr.subnets(prefixlen_diff=count.bit_length() - 1)
    return tuple(
        replace(pool, name=name, cidr=cidr) for name, cidr in zip(names, cidrs, strict=True)
    )


def _names(name: str, count: int) -> list[str]:
    """Return the parts' names: numbers of one width, because pools serve in order of names."""
    width = len(str(count - 1))
    return [f"{name}-{number:0{width}}" for number in range(count)]


def plan_split(
    text: str, count: int, *, pools: Iterable[IPPool], blocks: Iterable[IPNetwork]
) -> Split:
    """Decide what has to be written to split the pool of this name or CIDR.

    Raises `NotFound` without such a pool, `InvalidInput` when it can't be split so.  What an
    interrupted split has made already is not made again.
    """
    known = list(pools)
    pool = next((pool for pool in known if text in (pool.name, str(pool.cidr))), None)
    if pool is None:
        return Split(None, _split_before(text, count, known))
    parts = parts_of(pool, count)
    hindrances = [*_other_pools(pool, parts, known), *_cut_blocks(parts, pool, blocks)]
    if hindrances:
        raise InvalidInput(
            "\n".join(
                [f"cannot split pool {describe(pool)} into {count}: {one}" for one in hindrances]
            )
        )
    return Split(pool, parts, tuple(part for part in parts if part not in known))


def _split_before(text: str, count: int, pools: Sequence[IPPool]) -> tuple[IPPool, ...]:
    """Return the parts of a pool that has been split into so many."""
    doublings = count.bit_length() - 1
    names = _names(text, count)
    for first in pools:
        if first.cidr.prefixlen < doublings:
            continue
        whole = first.cidr.supernet(prefixlen_diff=doublings)
        cidrs = list(whole.subnets(prefixlen_diff=doublings))
        parts = sorted(
            (pool for pool in pools if pool.cidr in cidrs), key=lambda pool: cidrs.index(pool.cidr)
        )
        if len(parts) == count and (text == str(whole) or [part.name for part in parts] == names):
            return tuple(parts)
    raise NotFound(f"there is no pool {text}: see  pycnictl get pools")


def _other_pools(pool: IPPool, parts: Sequence[IPPool], known: Sequence[IPPool]) -> list[str]:
    names = {part.name for part in parts}
    others = [other for other in known if other != pool and other not in parts]
    return [
        f"pool {describe(other)} has the name of a part, and is another; delete it first, or"
        " finish the split that made it by its own number"
        if other.name in names
        else f"pool {describe(other)} lies in the same addresses; delete it first"
        for other in others
        if other.name in names or other.cidr.overlaps(pool.cidr)
    ]


def _cut_blocks(parts: Sequence[IPPool], pool: IPPool, blocks: Iterable[IPNetwork]) -> list[str]:
    return [
        f"block {block} would lie in several parts; see  pycnictl ipam check"
        for block in blocks
        if block.overlaps(pool.cidr) and not any(holds(part.cidr, block) for part in parts)
    ]
