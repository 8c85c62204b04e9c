"""Arithmetic on one block of addresses: every function takes a `Block` and returns a new one.

The rules are Calico's, because its controllers read and write the same blocks:

* free ordinals form a queue; a released one goes to its end, so that it rests as long as possible;
* equal attributes are kept once; those that nobody uses any more are dropped, the rest renumbered;
* an address may rest after its release: it is in use, by an attribute without a handle that says
  since when, until `awake` finds that long enough ago;
* each update adds one to the block's sequence number, and an allocated ordinal remembers the
  number that the block had before that update.  A release that names another number is refused:
  the address was given to somebody else meanwhile.

Pure: knows nothing of datastores, nodes' choices or retries.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from pycni.errors import AlreadyExists, InvalidInput
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import AllocationAttribute, Block


@dataclass(frozen=True, slots=True)
class Given:
    """An address of a block in use: by which handle, with which details and sequence number."""

    address: IPAddress
    attribute: AllocationAttribute
    sequence_number: int | None


@dataclass(frozen=True, slots=True)
class Release:
    """What a release came to: the block afterwards, and what became of each address.

    `refused` are in use under another handle or sequence number; addresses that were free already
    appear in neither list.
    """

    block: Block
    released: tuple[IPAddress, ...]
    refused: tuple[IPAddress, ...] = ()


def new_block(cidr: IPNetwork, *, affinity: str | None, sequence_number: int) -> Block:
    """Return a block with every address free, in ascending order.

    The sequence number must not repeat when a block is deleted and made again: pass the clock in
    nanoseconds, as Calico does.
    """
    size = cidr.num_addresses
    return Block(
        cidr=cidr,
        affinity=affinity,
        allocations=(None,) * size,
        unallocated=tuple(range(size)),
        sequence_number=sequence_number,
        sequence_numbers=(None,) * size,
    )


def free_count(block: Block) -> int:
    """Return how many addresses are free."""
    return len(block.unallocated)


def resting_count(block: Block) -> int:
    """Return how many addresses rest: in use, and nobody's."""
    return sum(
        at is not None and block.attributes[at].released_at is not None for at in block.allocations
    )


def is_empty(block: Block) -> bool:
    """Return whether every address is free; one that rests is not."""
    return len(block.unallocated) == len(block.allocations)


def may_have_room(block: Block) -> bool:
    """Return whether an address is free, or may have rested long enough by now."""
    return bool(block.unallocated) or any(one.released_at for one in block.attributes)


def is_held(block: Block) -> bool:
    """Return whether anybody holds an address of a block."""
    return any(one.released_at is None for one in block.attributes)


def address_of(block: Block, ordinal: int) -> IPAddress:
    """Return the address with this ordinal."""
    return block.cidr.network_address + ordinal


def ordinal_of(block: Block, address: IPAddress) -> int:
    """Return the ordinal of an address; raise `InvalidInput` when it lies elsewhere."""
    ordinal = int(address) - int(block.cidr.network_address)
    if address.version != block.cidr.version or not 0 <= ordinal < len(block.allocations):
        raise InvalidInput(f"cannot find {address} in block {block.cidr}: it lies outside")
    return ordinal


def sequence_number_of(block: Block, address: IPAddress) -> int | None:
    """Return the number with which an address was given; None while it is free."""
    return block.sequence_numbers[ordinal_of(block, address)]


def given(block: Block) -> tuple[Given, ...]:
    """Return all addresses in use, in ascending order."""
    return tuple(
        Given(address_of(block, ordinal), block.attributes[at], block.sequence_numbers[ordinal])
        for ordinal, at in enumerate(block.allocations)
        if at is not None and block.attributes[at].released_at is None
    )


def resting(block: Block) -> tuple[tuple[IPAddress, str], ...]:
    """Return the addresses that rest, in ascending order, each with the time of its release."""
    return tuple(
        (address_of(block, ordinal), since)
        for ordinal, at in enumerate(block.allocations)
        if at is not None and (since := block.attributes[at].released_at) is not None
    )


def given_to(block: Block, handle_id: str) -> tuple[Given, ...]:
    """Return the addresses that a handle holds, in ascending order."""
    return tuple(
        Given(address_of(block, ordinal), block.attributes[at], block.sequence_numbers[ordinal])
        for ordinal in _ordinals_of(block, handle_id)
        if (at := block.allocations[ordinal]) is not None
    )


def auto_assign(
    block: Block,
    *,
    count: int,
    handle_id: str,
    attributes: Iterable[tuple[str, str]] = (),
    reserved: Container[IPAddress] | None = None,
) -> tuple[Block, tuple[IPAddress, ...]]:
    """Give up to `count` addresses, the longest free first, passing over reserved ones."""
    ordinals = list(_next_free(block, count, reserved))
    if not ordinals:
        return block, ()
    after = _allocate(block, ordinals, attribute=_attribute(handle_id, attributes))
    return after, tuple([address_of(block, ordinal) for ordinal in ordinals])


def assign(
    block: Block,
    address: IPAddress,
    *,
    handle_id: str,
    attributes: Iterable[tuple[str, str]] = (),
) -> Block:
    """Give one particular address; raise `AlreadyExists` when it is in use."""
    ordinal = ordinal_of(block, address)
    at = block.allocations[ordinal]
    if at is not None and block.attributes[at].released_at is not None:
        # Who names an address knows it, and mostly had it before.
        block, at = _free(block, [ordinal]), None
    if at is not None:
        holder = block.attributes[at].handle_id
        raise AlreadyExists(f"cannot assign {address} to {handle_id}: {holder} holds it")
    return _allocate(block, [ordinal], attribute=_attribute(handle_id, attributes))


@dataclass(frozen=True, slots=True)
class Rested:
    """Which releases are long enough ago: up to `by`, or in the future (a clock was set back)."""

    by: str
    now: str

    def __contains__(self, released_at: object) -> bool:
        return isinstance(released_at, str) and not self.by < released_at <= self.now


def awake(block: Block, *, rested: Rested) -> Block:
    """Return the block with those addresses free that have rested."""
    over = {
        at: one.released_at
        for at, one in enumerate(block.attributes)
        if one.released_at is not None and one.released_at in rested
    }
    if not over:
        return block
    ordinals = [ordinal for ordinal, at in enumerate(block.allocations) if at in over]
    # In the order of their releases, as they would have joined the queue.
    ordinals.sort(key=lambda ordinal: (over[block.allocations[ordinal] or 0], ordinal))
    return _free(block, ordinals)


EVERYTHING = Rested(by="~", now="~")
"""As if each address had rested long enough: what is text compares less."""


def release(
    block: Block,
    wanted: Mapping[IPAddress, int | None],
    *,
    handle_id: str | None = None,
    resting_since: str | None = None,
) -> Release:
    """Free addresses, or let them rest; refuse those whose sequence number or handle differs.

    A sequence number of None, or no handle, is not compared.  Addresses that are free already
    count as done.
    """
    ordinals: list[int] = []
    released: list[IPAddress] = []
    refused: list[IPAddress] = []
    for address, sequence_number in wanted.items():
        ordinal = ordinal_of(block, address)
        at = block.allocations[ordinal]
        if at is None or block.attributes[at].released_at is not None:
            continue
        is_same_turn = sequence_number in (None, block.sequence_numbers[ordinal])
        if is_same_turn and handle_id in (None, block.attributes[at].handle_id):
            ordinals.append(ordinal)
            released.append(address)
        else:
            refused.append(address)
    return Release(
        block=_released(block, ordinals, resting_since),
        released=tuple(released),
        refused=tuple(refused),
    )


def release_by_handle(
    block: Block,
    handle_id: str,
    *,
    attachment: Sequence[tuple[str, str]] = (),
    resting_since: str | None = None,
) -> Release:
    """Free all addresses that a handle holds, or let them rest.

    Those stay beside which something else is written than `attachment` says: attachments of
    different names may have the same handle.
    """
    ordinals = _ordinals_of(block, handle_id, attachment)
    return Release(
        block=_released(block, ordinals, resting_since),
        released=tuple([address_of(block, ordinal) for ordinal in ordinals]),
    )


def without_affinity(block: Block) -> Block:
    """Return the block without an owner: it disappears when its last address is released.

    Nothing rests in it any more, or that would be the last, and nobody would release it.
    """
    after = awake(block, rested=EVERYTHING)
    return replace(after, affinity=None, sequence_number=after.sequence_number + 1)


def _attribute(handle_id: str, attributes: Iterable[tuple[str, str]]) -> AllocationAttribute:
    # Sorted, as Go writes the keys of a map, so that equal attributes compare equal.
    return AllocationAttribute(handle_id=handle_id, secondary=tuple(sorted(attributes)))


def _ordinals_of(
    block: Block, handle_id: str, attachment: Sequence[tuple[str, str]] = ()
) -> list[int]:
    indexes = [
        at
        for at, one in enumerate(block.attributes)
        if one.handle_id == handle_id and not _contradicts(one, attachment)
    ]
    if not indexes:
        return []
    return [ordinal for ordinal, at in enumerate(block.allocations) if at in indexes]


def _contradicts(attribute: AllocationAttribute, attachment: Sequence[tuple[str, str]]) -> bool:
    said = dict(attribute.secondary)
    return any(said.get(name, value) != value for name, value in attachment)


def _next_free(block: Block, count: int, reserved: Container[IPAddress] | None) -> Iterable[int]:
    if reserved is None:
        return block.unallocated[:count]
    allowed = (one for one in block.unallocated if address_of(block, one) not in reserved)
    return islice(allowed, count)


# Below, each step walks a block of 64 once at most, and in C where it can: every ADD and DEL of a
# pod passes here.  Blocks are made by their constructor, because `replace` costs thrice as much.


def _allocate(block: Block, ordinals: list[int], *, attribute: AllocationAttribute) -> Block:
    attributes = block.attributes
    at = _index_of(attributes, attribute)
    if at == len(attributes):
        attributes = (*attributes, attribute)
    allocations = list(block.allocations)
    sequence_numbers = list(block.sequence_numbers)
    for ordinal in ordinals:
        allocations[ordinal] = at
        sequence_numbers[ordinal] = block.sequence_number
    unallocated = list(block.unallocated)
    for ordinal in ordinals:
        unallocated.remove(ordinal)
    return Block(
        cidr=block.cidr,
        affinity=block.affinity,
        allocations=tuple(allocations),
        unallocated=tuple(unallocated),
        attributes=attributes,
        sequence_number=block.sequence_number + 1,
        sequence_numbers=tuple(sequence_numbers),
        is_deleted=block.is_deleted,
    )


def _index_of(attributes: Sequence[AllocationAttribute], wanted: AllocationAttribute) -> int:
    """Return where an attribute stands, or where the next one would."""
    handle_id = wanted.handle_id
    for at, one in enumerate(attributes):
        # The handle first: whole attributes are long in comparing.
        if one.handle_id == handle_id and one == wanted:
            return at
    return len(attributes)


def _released(block: Block, ordinals: list[int], resting_since: str | None) -> Block:
    after = _free(block, ordinals)
    # A block without owner goes with its last address, which nobody would wait for.
    if resting_since is None or not ordinals or block.affinity is None:
        return after
    resting = AllocationAttribute(handle_id=None, released_at=resting_since)
    at = _index_of(after.attributes, resting)
    allocations = list(after.allocations)
    for ordinal in ordinals:
        allocations[ordinal] = at
    is_new = at == len(after.attributes)
    return replace(
        after,
        allocations=tuple(allocations),
        unallocated=after.unallocated[: -len(ordinals)],
        attributes=(*after.attributes, resting) if is_new else after.attributes,
    )


def _free(block: Block, ordinals: list[int]) -> Block:
    if not ordinals:
        return block
    allocations = list(block.allocations)
    sequence_numbers = list(block.sequence_numbers)
    for ordinal in ordinals:
        allocations[ordinal] = None
        sequence_numbers[ordinal] = None
    attributes = block.attributes
    used = set(allocations)
    kept = [at for at in range(len(attributes)) if at in used]
    if len(kept) < len(attributes):
        renumbered: dict[int | None, int | None] = dict(zip(kept, range(len(kept)), strict=True))
        renumbered[None] = None
        allocations = list(map(renumbered.__getitem__, allocations))
        attributes = tuple(map(attributes.__getitem__, kept))
    return Block(
        cidr=block.cidr,
        affinity=block.affinity,
        allocations=tuple(allocations),
        unallocated=(*block.unallocated, *ordinals),
        attributes=attributes,
        sequence_number=block.sequence_number + 1,
        sequence_numbers=tuple(sequence_numbers),
        is_deleted=block.is_deleted,
    )
