"""Questions about allocations that need no decision: who holds what."""

from collections.abc import Sequence

from pycni.model.network import IPAddress
from pycni.model.resources import AllocationAttribute, Block
from pycni.ports import Datastore


async def holder(datastore: Datastore, address: IPAddress) -> str | None:
    """Return the handle that holds an address; None when it is free or in no block."""
    for stored in (await datastore.list(Block)).items:
        block = stored.value
        if address in block.cidr:
            ordinal = int(address) - int(block.cidr.network_address)
            index = block.allocations[ordinal]
            return block.attributes[index].handle_id if index is not None else None
    return None


async def attributes_on(datastore: Datastore, *, node: str) -> Sequence[AllocationAttribute]:
    """Return what is written beside each address that a node's pods hold."""
    return [
        attribute
        for stored in (await datastore.list(Block)).items
        for attribute in stored.value.attributes
        if dict(attribute.secondary).get("node") == node
    ]
