"""Why a node gets no address, in words.  Pure; docs/addresses.md explains each sentence."""

from collections.abc import Iterable, Sequence

from pycni.errors import Exhausted
from pycni.ipam import block as arithmetic
from pycni.ipam.books import sound
from pycni.ipam.pools import describe, pool_of
from pycni.ipam.reserved import Reserved
from pycni.model.network import IPNetwork
from pycni.model.resources import Block, IPAMConfig, IPPool

_SHOW = "see `pycnictl ipam show`"


def nothing_free(
    what: str,
    *,
    node: str,
    pools: Sequence[IPPool],
    config: IPAMConfig,
    blocks: Iterable[Block],
    reserved: Reserved,
) -> Exhausted:
    """Return the refusal of a node that found no address in any block that it may use.

    `what` says for whom which address was wanted.
    """
    return Exhausted(
        f"cannot assign {what} on {node}: nothing is free in {_names(pools)}{_within(config)}"
        f"{_held_back(_inside(blocks, pools), reserved)}; add a pool, or {_SHOW}"
    )


def limit_reached(
    what: str,
    *,
    node: str,
    pools: Sequence[IPPool],
    owned: int,
    limit: int,
    blocks: Iterable[Block],
    reserved: Reserved,
) -> Exhausted:
    """Return the refusal of a node that has as many blocks as it may, and no address in them."""
    own = [block for block in _inside(blocks, pools) if block.affinity == node]
    why = (
        f"nothing is free in those of {_names(pools)}{_held_back(own, reserved)}"
        if own
        else f"none of them lies in {_names(pools)}"
    )
    return Exhausted(
        f"cannot assign {what}: {node} owns {owned} blocks, the limit is {limit}"
        f" (maxBlocksPerHost of IPAMConfiguration), and {why}; {_SHOW}"
    )


def cut_otherwise(what: str, *, cidr: IPNetwork, other: IPNetwork) -> Exhausted:
    """Return the refusal of an address whose block can't be made beside one of another size."""
    return Exhausted(
        f"cannot assign {what}: its block {cidr} can't be made, because block {other}, of another"
        f" size, is there; delete that one once no pod uses its addresses, or {_SHOW}"
    )


def _names(pools: Iterable[IPPool]) -> str:
    return ", ".join(map(describe, pools))


def _inside(blocks: Iterable[Block], pools: Sequence[IPPool]) -> list[Block]:
    return [block for block in sound(blocks) if pool_of(pools, block.cidr) is not None]


def _within(config: IPAMConfig) -> str:
    if not config.is_auto_allocating_blocks:
        return " within this node's blocks (autoAllocateBlocks is off)"
    if config.is_strict_affinity:
        return " within this node's blocks (strictAffinity is on)"
    return ""


def _held_back(blocks: Sequence[Block], reserved: Reserved) -> str:
    """Say what is nobody's and yet not given."""
    resting = sum(map(arithmetic.resting_count, blocks))
    kept = sum(
        arithmetic.address_of(block, ordinal) in reserved
        for block in blocks
        for ordinal in block.unallocated
    )
    said = [f"{resting} rest after their last use"] if resting else []
    said += [f"{kept} more in its blocks are reserved"] if kept else []
    return f" ({', '.join(said)})" if said else ""
