"""Whether a stored block is one: whoever wrote it, everything of it is checked before it is used.

A block that contradicts itself fails what needs that very block, and nothing else.
"""

from pycni.errors import DatastoreUnusable
from pycni.model.resources import Block

# By type alone, `isinstance` would take True for a number.
_ORDINALS: frozenset[type] = frozenset({int})
_NUMBERS: frozenset[type] = frozenset({int, type(None)})


def verify(block: Block) -> None:
    """Raise `DatastoreUnusable` when a block contradicts itself; never repair it silently."""
    size = block.cidr.num_addresses
    if not _ORDINALS.issuperset(map(type, block.unallocated)):
        raise _corrupt(block, "unallocated holds what is no number")
    for what, there in (
        ("allocations", block.allocations),
        ("sequence numbers", block.sequence_numbers),
    ):
        if not _NUMBERS.issuperset(map(type, there)):
            raise _corrupt(block, f"{what} hold what is no number")
        if len(there) != size:
            raise _corrupt(block, f"{len(there)} {what} instead of {size}")
    free = [ordinal for ordinal, at in enumerate(block.allocations) if at is None]
    if len(block.unallocated) != len(free) or set(block.unallocated) != set(free):
        raise _corrupt(block, "unallocated and allocations disagree")
    known = range(len(block.attributes))
    if any(at is not None and at not in known for at in set(block.allocations)):
        raise _corrupt(block, "an allocation points to no attribute")


def _corrupt(block: Block, what: str) -> DatastoreUnusable:
    return DatastoreUnusable(
        f"block {block.cidr} is corrupt: {what};"
        " restore it from a backup, or delete it once no pod uses its addresses"
    )
