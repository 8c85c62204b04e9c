"""Gateways for other plugins' pods: one address of a block, held for a network on this node.

`bridge` and `ptp` put the gateway on interfaces of the host, and `bridge` leaves it there when its
last pod is gone.  So it is held until neither a record nor an interface of the host has it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_interface

from pycni.cni.protocol import Request
from pycni.cni.tools import LOCK_TIMEOUT_S, Engine
from pycni.errors import Exhausted, InvalidInput
from pycni.ipam import block as arithmetic
from pycni.ipam import lookup
from pycni.ipam.books import node_of
from pycni.ipam.giving import assigned
from pycni.ipam.pools import pool_of
from pycni.ipam.requests import Assignment, AssignRequest, DatastoreView
from pycni.model.endpoints import (
    AssignedAddress,
    EndpointKey,
    EndpointState,
    Subnet,
    WorkloadEndpoint,
)
from pycni.model.resources import Block

KIND = "gateway"
"""What the attribute `type` of such an address says."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """An address that says of itself that it is a network's gateway on this node."""

    network: str
    address: AssignedAddress
    handle_id: str

    def __str__(self) -> str:
        return f"{self.address.interface.ip}, the gateway of {self.network}"


def handle_of(network: str, *, node: str) -> str:
    """Return the handle of a network's gateways on a node."""
    return f"pycni-gateway-{node}.{network}"


def beside(request: Request, *, node: str) -> str:
    """Return the handle that needs an address in the block of the pod's; empty: none does."""
    has_gateway = request.config.subnet is Subnet.BLOCK
    return handle_of(request.key.network, node=node) if has_gateway else ""


def lock_key(network: str) -> EndpointKey:
    """Return the key under which a network's gateways are locked; no container has it."""
    return EndpointKey(network, "", KIND)


# --- giving ---------------------------------------------------------------------------------------


async def with_prefixes(engine: Engine, assignment: Assignment) -> tuple[AssignedAddress, ...]:
    """Return the addresses with their pools' prefix lengths."""
    pools = await DatastoreView(engine.datastore).pools()
    found = []
    for address in assignment.addresses:
        pool = pool_of(pools, address.interface.ip)
        if pool is None:  # deleted by hand at this very moment
            raise Exhausted(f"the pool of {address.interface.ip} is gone: try again")
        interface = ip_interface((address.interface.ip, pool.cidr.prefixlen))
        found.append(replace(address, interface=interface))
    return tuple(found)


async def with_gateways(
    engine: Engine, request: Request, assignment: Assignment
) -> tuple[AssignedAddress, ...]:
    """Return the addresses with their blocks' prefix lengths, each with the gateway beside it."""
    if assignment.borrowed:
        some = ", ".join(sorted(map(str, assignment.borrowed)))
        raise Exhausted(
            f"cannot give {some} a gateway: it lies in a block of another node, so this node has"
            " none left: add a pool, or see `pycnictl ipam show`"
        )
    async with engine.endpoints.lock(lock_key(request.key.network), timeout_s=LOCK_TIMEOUT_S):
        return tuple([await _with_gateway(engine, request, one) for one in assignment.addresses])


async def _with_gateway(
    engine: Engine, request: Request, address: AssignedAddress
) -> AssignedAddress:
    ip = address.interface.ip
    block = await lookup.block_of(engine.datastore, ip, expected=request.handle_id)
    if block is None:  # deleted by hand at this very moment
        raise Exhausted(f"the block of {ip} is gone: try again")
    gateway = await _gateway_of(engine, request, block)
    interface = ip_interface((ip, block.cidr.prefixlen))
    return replace(address, interface=interface, gateway=gateway.interface.ip)


async def _gateway_of(engine: Engine, request: Request, block: Block) -> AssignedAddress:
    """Return the gateway that is held in a block, or take one."""
    network = request.key.network
    handle_id = handle_of(network, node=engine.node)
    for one in arithmetic.given_to(block, handle_id):
        return assigned(one.address, one.sequence_number)
    if block.cidr.num_addresses < 2:
        raise InvalidInput(
            f"block {block.cidr} has no room for a gateway: name a pool with larger blocks, or set"
            " ipam.subnet to 'none'"
        )
    wanted = AssignRequest(
        handle_id=handle_id,
        attributes=(("network", network), ("node", engine.node), ("type", KIND)),
        versions=(block.cidr.version,),
        ipv4_pools=request.config.ipv4_pools,
        ipv6_pools=request.config.ipv6_pools,
        subnet=Subnet.BLOCK,
    )
    gateway = await engine.allocator.assign_in(block.cidr, wanted)
    if gateway is None:
        raise Exhausted(f"block {block.cidr} is full, and has no gateway: try again later")
    return gateway


# --- taking back ----------------------------------------------------------------------------------


def gateways_in(blocks: Iterable[Block], *, node: str) -> Iterator[Gateway]:
    """Yield what a node holds as gateways."""
    for block in blocks:
        for one in arithmetic.given(block):
            said = dict(one.attribute.secondary)
            if said.get("type") == KIND and node_of(one.attribute) == node:
                address = assigned(one.address, one.sequence_number)
                yield Gateway(said.get("network", ""), address, one.attribute.handle_id or "")


def is_idle(engine: Engine, gateway: Gateway) -> bool:
    """Tell whether nobody uses a gateway: no pod by its record, and no interface of the host."""
    records, complaints = engine.endpoints.readable()
    if complaints or any(_may_use(record, gateway) for record in records):
        return False
    return not engine.podnet.has_address(gateway.address.interface.ip)


def _may_use(record: WorkloadEndpoint, gateway: Gateway) -> bool:
    if record.has_interface or record.key.network != gateway.network:
        return False
    # An unfinished ADD may have been told of it already.
    is_unfinished = record.state is EndpointState.INTENT
    return is_unfinished or any(
        address.gateway == gateway.address.interface.ip for address in record.addresses
    )


async def release(engine: Engine, gateway: Gateway) -> bool:
    """Take a gateway back unless somebody uses it; tell whether that was done."""
    async with engine.endpoints.lock(lock_key(gateway.network), timeout_s=LOCK_TIMEOUT_S):
        if not is_idle(engine, gateway):
            return False
        outcome = await engine.allocator.release(
            [gateway.address], handle_id=gateway.handle_id, was_used=True
        )
        return bool(outcome.released)
