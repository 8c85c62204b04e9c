"""The address of a node's end of a tunnel: an ordinary allocation under a handle of its own."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from pycni.errors import AlreadyExists, Exhausted, InvalidInput
from pycni.ipam import block as arithmetic
from pycni.ipam.allocator import Allocator
from pycni.ipam.block import Given
from pycni.ipam.books import TUNNEL_TYPES
from pycni.ipam.giving import assigned
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
    cidr_name,
)
from pycni.model.tunnels import TunnelKind, address_in, tunnel_of
from pycni.ports import Creation, Datastore, Replacement, Stored


async def ensure_tunnel_addresses(
    allocator: Allocator,
    datastore: Datastore,
    *,
    node: str,
    keeps: Callable[[TunnelKind], bool] = lambda _kind: False,
) -> tuple[dict[TunnelKind, IPAddress | None], Exhausted | None]:
    """Return the addresses of the node's ends of all kinds of tunnels, giving those that it lacks.

    `keeps` is asked of a kind that no pool wants any more: whether other nodes may still send to
    the address that the node has.  One full pool costs no other kind its address: there the
    Node keeps what it says, and why there is nothing else is returned beside them.
    """
    known = await DatastoreView(datastore).pools()
    stored = await datastore.get(Node, node)
    own = Node(node) if stored is None else stored.value
    wanted = {tunnel_of(pool) for pool in known}
    found: dict[TunnelKind, IPAddress | None] = {}
    lacking: Exhausted | None = None
    for kind in TunnelKind:
        named = address_in(own, kind)
        if kind not in wanted and named is not None and keeps(kind):
            found[kind] = named
            continue
        try:
            assignment = await _ensure(allocator, datastore, own, kind=kind, known=known)
        except Exhausted as exc:
            found[kind], lacking = named, exc
        else:
            found[kind] = None if assignment is None else assignment.interface.ip
    return found, lacking


async def _ensure(
    allocator: Allocator,
    datastore: Datastore,
    own: Node,
    *,
    kind: TunnelKind,
    known: Sequence[IPPool],
) -> AssignedAddress | None:
    """Return the address of the node's end of a tunnel, giving one if it has none.

    One that lies in no enabled pool with that tunnel any more, or is not what it says to be, is
    replaced; in one of VXLAN it stays, for that is where the other nodes send to.  One that the
    Node object names and nobody holds, as old releases of Calico gave them, is taken over, or let
    go; one that it names and that is free, or rests, is the first choice, for it is what the other
    nodes know.  None: no such pool exists, so nothing is to be tunnelled.
    """
    attributes = (("node", own.name), TUNNEL_TYPES[kind])
    handle_id = tunnel_handle(own.name, kind)
    with_it = [pool for pool in known if tunnel_of(pool) is kind]
    serving = eligible(with_it, labels=dict(own.labels), use=PoolUse.TUNNEL, version=kind.version)
    # A disabled pool still has pods, and by VXLAN they are reached by their nodes' addresses.
    holding = with_it if kind.is_vxlan else serving
    held = await allocator.held_by(handle_id)
    described = [one.attribute.secondary for one in held if pool_of(holding, one.address)]
    if len(held) == 1 and described == [attributes]:
        return assigned(held[0].address, held[0].sequence_number)
    named = address_in(own, kind)
    if kind.is_vxlan and not (with_it or held or named):
        return None  # as in most clusters: nothing is looked for that nobody has asked for
    await allocator.release_by_handle(handle_id, was_used=True)
    request = AssignRequest(
        handle_id=handle_id,
        attributes=attributes,
        versions=(kind.version,),
        ipv4_pools=_names(serving) if kind.version == 4 else (),
        ipv6_pools=_names(serving) if kind.version == 6 else (),
        use=PoolUse.TUNNEL,
    )
    return await _give(allocator, datastore, request, pools=serving, named=named)


def _names(pools: Sequence[IPPool]) -> tuple[str, ...]:
    return tuple(pool.name for pool in pools)


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


def tunnel_handle(node: str, kind: TunnelKind = TunnelKind.IPIP) -> str:
    """Return the handle that holds the address of a node's end of a tunnel."""
    return f"{kind.value}-tunnel-addr-{node}"
