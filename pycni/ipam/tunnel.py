"""The address of a node's IP-in-IP tunnel: an ordinary allocation under a handle of its own."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from pycni.errors import AlreadyExists, Exhausted, InvalidInput
from pycni.ipam import block as arithmetic
from pycni.ipam.allocator import Allocator
from pycni.ipam.block import Given
from pycni.ipam.books import TUNNEL_TYPE
from pycni.ipam.giving import assigned
from pycni.ipam.own import node_labels
from pycni.ipam.pools import eligible, holds, pool_of
from pycni.ipam.requests import AssignRequest, DatastoreView
from pycni.model.endpoints import AssignedAddress
from pycni.model.network import IPAddress
from pycni.model.resources import (
    AllocationAttribute,
    Block,
    Handle,
    IPPool,
    Node,
    PoolUse,
    TunnelMode,
    cidr_name,
)
from pycni.ports import Creation, Datastore, Replacement, Stored

_VERSION = 4


async def ensure_tunnel_address(
    allocator: Allocator, datastore: Datastore, *, node: str
) -> AssignedAddress | None:
    """Return the address of the node's IP-in-IP tunnel, giving one if it has none.

    One that lies in no enabled pool with IP-in-IP any more, or is not what it says to be, is
    replaced.  One that the Node object names and nobody holds, as old releases of Calico gave them,
    is taken over, or let go; one that it names and that is free, or rests, is the first choice, for
    it is what the other nodes know.  None: no such pool exists, so nothing is to be tunnelled.
    """
    attributes = (("node", node), TUNNEL_TYPE)
    handle_id = tunnel_handle(node)
    view = DatastoreView(datastore)
    known = await view.pools()
    labels = await node_labels(view, known, node)
    pools = [
        pool
        for pool in eligible(known, labels=labels, use=PoolUse.TUNNEL, version=_VERSION)
        if pool.ipip_mode is not TunnelMode.NEVER
    ]
    held = await allocator.held_by(handle_id)
    described = [one.attribute.secondary for one in held if pool_of(pools, one.address)]
    if len(held) == 1 and described == [attributes]:
        return assigned(held[0].address, held[0].sequence_number)
    await allocator.release_by_handle(handle_id, was_used=True)
    request = AssignRequest(
        handle_id=handle_id,
        attributes=attributes,
        ipv4_pools=tuple(pool.name for pool in pools),
        use=PoolUse.TUNNEL,
    )
    return await _give(
        allocator, datastore, request, pools=pools, named=await _named(datastore, node)
    )


async def _named(datastore: Datastore, node: str) -> IPAddress | None:
    """Return the address that the Node object names."""
    known = await datastore.get(Node, node)
    return None if known is None else known.value.ipip_tunnel_address


async def _give(
    allocator: Allocator,
    datastore: Datastore,
    request: AssignRequest,
    *,
    pools: Sequence[IPPool],
    named: IPAddress | None,
) -> AssignedAddress | None:
    if named is not None and (unheld := await _find_unheld(datastore, named)):
        stored, one = unheld
        if pool_of(pools, named) is None:
            await _let_go(datastore, stored, one)
        else:
            return await _take_over(datastore, stored, one, request=request)
    if not pools:
        return None
    if named is not None and pool_of(pools, named):
        with contextlib.suppress(AlreadyExists, Exhausted, InvalidInput):
            return (await allocator.assign(replace(request, addresses=(named,)))).addresses[0]
    return (await allocator.assign(request)).addresses[0]


async def _find_unheld(
    datastore: Datastore, address: IPAddress
) -> tuple[Stored[Block], Given] | None:
    """Return the allocation of an address, if it is in use and nothing says by whom."""
    for stored in (await datastore.list(Block)).items:
        for one in arithmetic.given(stored.value) if holds(stored.value.cidr, address) else ():
            if (one.address, one.attribute) == (address, AllocationAttribute(None)):
                return stored, one
    return None


async def _let_go(datastore: Datastore, stored: Stored[Block], one: Given) -> None:
    block = _freed(stored.value, one)
    if block.affinity is None and arithmetic.is_empty(block):
        name = cidr_name(block.cidr)
        await datastore.delete(Block, name, if_revision=stored.revision)
    else:
        await datastore.update(block, if_revision=stored.revision)


async def _take_over(
    datastore: Datastore, stored: Stored[Block], one: Given, *, request: AssignRequest
) -> AssignedAddress:
    """Give an address that the node uses already its handle and details, without a gap."""
    block = arithmetic.assign(
        _freed(stored.value, one),
        one.address,
        handle_id=request.handle_id,
        attributes=request.attributes,
    )
    # The handle first: what it counts too much after a crash, its next release drops.
    handle = Handle(request.handle_id, ((block.cidr, 1),))
    await datastore.write([Creation(handle), Replacement(block, stored.revision)])
    return assigned(one.address, arithmetic.sequence_number_of(block, one.address))


def _freed(block: Block, one: Given) -> Block:
    return arithmetic.release(block, {one.address: one.sequence_number}).block


def tunnel_handle(node: str) -> str:
    """Return the handle that holds the address of a node's IP-in-IP tunnel."""
    return f"ipip-tunnel-addr-{node}"
