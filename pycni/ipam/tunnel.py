"""The address of a node's IP-in-IP tunnel: an ordinary allocation under a handle of its own."""

from pycni.ipam.allocator import Allocator
from pycni.ipam.giving import assigned
from pycni.ipam.own import node_labels
from pycni.ipam.pools import eligible, pool_of
from pycni.ipam.requests import AssignRequest, DatastoreView
from pycni.model.endpoints import AssignedAddress
from pycni.model.resources import PoolUse, TunnelMode
from pycni.ports import Datastore

_VERSION = 4


async def ensure_tunnel_address(
    allocator: Allocator, datastore: Datastore, *, node: str
) -> AssignedAddress | None:
    """Return the address of the node's IP-in-IP tunnel, giving one if it has none.

    One that lies in no enabled pool with IP-in-IP any more, or is not what it says to be, is
    replaced.  None: no such pool exists, so nothing is to be tunnelled.
    """
    attributes = (("node", node), ("type", "ipipTunnelAddress"))
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
    if not pools:
        return None
    request = AssignRequest(
        handle_id=handle_id,
        attributes=attributes,
        ipv4_pools=tuple(pool.name for pool in pools),
        use=PoolUse.TUNNEL,
    )
    return (await allocator.assign(request)).addresses[0]


def tunnel_handle(node: str) -> str:
    """Return the handle that holds the address of a node's IP-in-IP tunnel."""
    return f"ipip-tunnel-addr-{node}"
