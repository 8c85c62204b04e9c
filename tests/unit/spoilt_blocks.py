"""Each way in which a stored block may contradict itself."""

from collections.abc import Callable
from dataclasses import replace

from pycni.model.resources import Block

Spoil = Callable[[Block], Block]


def points_nowhere(block: Block) -> Block:
    """Let allocations point to no attribute."""
    return replace(block, attributes=())


def too_long(block: Block) -> Block:
    """Let a block have more allocations than addresses."""
    return replace(block, allocations=(*block.allocations, 0))


def too_short(block: Block) -> Block:
    """Let a block have fewer allocations than addresses."""
    return replace(block, allocations=block.allocations[:1])


def free_and_given(block: Block) -> Block:
    """Let an address be free and given at once."""
    return replace(block, unallocated=(*block.unallocated, 0))


def no_number(block: Block) -> Block:
    """Let an ordinal be none."""
    return replace(block, unallocated=(*block.unallocated, "0"))  # type: ignore[arg-type]  # as it may be stored


def a_list(block: Block) -> Block:
    """Let an ordinal be something that can't even be compared."""
    return replace(block, unallocated=(*block.unallocated[1:], [0]))  # type: ignore[arg-type]  # as it may be stored


def a_truth(block: Block) -> Block:
    """Let an allocation be true, which Python takes for a one."""
    return replace(block, allocations=(True, *block.allocations[1:]))


def no_sequence(block: Block) -> Block:
    """Let a sequence number be a text."""
    return replace(block, sequence_numbers=("1", *block.sequence_numbers[1:]))  # type: ignore[arg-type]  # as it may be stored


SPOILS: tuple[Spoil, ...] = (
    points_nowhere,
    too_long,
    too_short,
    free_and_given,
    no_number,
    a_list,
    a_truth,
    no_sequence,
)
