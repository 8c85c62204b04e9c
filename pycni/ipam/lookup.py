"""Questions about allocations that need no decision: who holds what."""

from collections.abc import Sequence

from pycni.ipam.block import ordinal_of
from pycni.ipam.books import Books, node_of
from pycni.ipam.soundness import verify
from pycni.model.network import IPAddress
from pycni.model.resources import (
    AllocationAttribute,
    Block,
    BlockAffinity,
    Handle,
    IPPool,
    Node,
    cidr_name,
    resource_name,
)
from pycni.ports import Datastore


async def holder(datastore: Datastore, address: IPAddress, *, expected: str) -> str | None:
    """Return the handle that holds an address; None when it is free or in no block.

    The `expected` handle leads to the block; where it does not, all blocks are looked through.
    """
    block = await block_of(datastore, address, expected=expected)
    if block is None:
        return None
    index = block.allocations[ordinal_of(block, address)]
    return None if index is None else block.attributes[index].handle_id


async def block_of(datastore: Datastore, address: IPAddress, *, expected: str) -> Block | None:
    """Return the block that has an address, found as `holder` finds it.

    Raises `DatastoreUnusable` when it contradicts itself.
    """
    block = await _find_block(datastore, address, expected=expected)
    if block is not None:
        verify(block)
    return block


async def _find_block(datastore: Datastore, address: IPAddress, *, expected: str) -> Block | None:
    handle = await datastore.get(Handle, resource_name(Handle(expected)))
    for cidr, _ in handle.value.blocks if handle else ():
        stored = await datastore.get(Block, cidr_name(cidr)) if address in cidr else None
        if stored is not None:
            return stored.value
    for stored in (await datastore.list(Block)).items:
        if address in stored.value.cidr:
            return stored.value
    return None


async def attributes_on(datastore: Datastore, *, node: str) -> Sequence[AllocationAttribute]:
    """Return what is written beside each address that a node's pods hold."""
    return [
        attribute
        for stored in (await datastore.list(Block)).items
        for attribute in stored.value.attributes
        if node_of(attribute) == node
    ]


async def read_books(datastore: Datastore) -> Books:
    """Read all that address management has written, one kind after the other.

    Requests go on meanwhile, so that two kinds may seem to disagree: who finds that reads again.
    """
    return Books(
        pools=tuple([one.value for one in (await datastore.list(IPPool)).items]),
        blocks=tuple([one.value for one in (await datastore.list(Block)).items]),
        handles=tuple([one.value for one in (await datastore.list(Handle)).items]),
        affinities=tuple([one.value for one in (await datastore.list(BlockAffinity)).items]),
        nodes=frozenset([one.value.name for one in (await datastore.list(Node)).items]),
    )
