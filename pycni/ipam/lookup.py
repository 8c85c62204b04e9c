"""Questions about allocations that need no decision: who holds what."""

from collections.abc import Sequence

from pycni.model.network import IPAddress
from pycni.model.resources import Block
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


async def handles_on(datastore: Datastore, *, node: str, prefix: str) -> Sequence[str]:
    """Return the handles of a node's allocations that begin with a prefix."""
    found = set()
    for stored in (await datastore.list(Block)).items:
        for attribute in stored.value.attributes:
            handle_id = attribute.handle_id
            if (
                handle_id is not None
                and handle_id.startswith(prefix)
                and dict(attribute.secondary).get("node") == node
            ):
                found.add(handle_id)
    return sorted(found)
