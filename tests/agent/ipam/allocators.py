"""Pools, the allocators of nodes, and what the books must say afterwards."""

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any

from pycni.ipam import block as arithmetic
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.ipam.soundness import verify
from pycni.ipam.tunnel import ensure_tunnel_addresses
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    Handle,
    IPPool,
    Node,
    TunnelMode,
)
from pycni.model.tunnels import TunnelKind
from pycni.ports import Datastore

if TYPE_CHECKING:
    from pycni.model.network import IPAddress, IPNetwork


POOL = IPPool("default", IPv4Network("192.168.0.0/16"), ipip_mode=TunnelMode.ALWAYS)
SMALL = IPPool("small", IPv4Network("10.0.0.0/28"), block_size=30)
SIX = IPPool("six", IPv6Network("fd00::/64"), block_size=126)
CIDR = IPv4Network("10.0.0.4/30")  # of a block of SMALL
TUNNELLED = replace(SMALL, ipip_mode=TunnelMode.ALWAYS)
FIRST = "10.0.0.12/30"  # the block of SMALL that node-0 tries first

OWN = {"attributes": (("node", "node-0"),)}
THEIRS = {"attributes": (("node", "node-1"),)}


async def no_sleep(_: float) -> None:
    """Stand in for a pause."""


def node(datastore: Datastore, name: str = "node-0", **options: object) -> Allocator:
    return Allocator(datastore, node=name, sleep=no_sleep, **options)  # type: ignore[arg-type]


async def take(allocator: Allocator, handle: str, **fields: object) -> list[str]:
    assignment = await allocator.assign(AssignRequest(handle, **fields))  # type: ignore[arg-type]
    return [str(one.interface.ip) for one in assignment.addresses]


async def tunnel_of(store: Datastore, name: str) -> "IPAddress | None":
    """Return the address of a node's end of the IP-in-IP tunnel, given where it has none."""
    found, lacking = await ensure_tunnel_addresses(node(store, name), store, node=name)
    if lacking is not None:
        raise lacking
    return found[TunnelKind.IPIP]


async def fill(allocator: Allocator, count: int) -> list[str]:
    return [(await take(allocator, f"fill-{number}"))[0] for number in range(count)]


def new_block(*, owner: str = "node-0") -> Block:
    return arithmetic.new_block(CIDR, affinity=owner, sequence_number=1)


def affinity(state: AffinityState = AffinityState.CONFIRMED) -> BlockAffinity:
    return BlockAffinity("node-0", CIDR, state)


async def change_pool(store: Datastore, name: str, **changes: Any) -> None:  # noqa: ANN401 - any field.
    pool = await store.get(IPPool, name)
    assert pool is not None
    await store.update(replace(pool.value, **changes), if_revision=pool.revision)


async def lose_handle(store: Datastore, name: str) -> None:
    """Delete a handle while its addresses are still given."""
    handle = await store.get(Handle, name)
    assert handle is not None
    await store.delete(Handle, name, if_revision=handle.revision)


async def affinities(datastore: Datastore) -> list[tuple[str, str, str]]:
    items = (await datastore.list(BlockAffinity)).items
    return [(one.value.node, str(one.value.cidr), one.value.state.value) for one in items]


async def held_by(store: Datastore, handle: str) -> list[str]:
    return [
        str(one.address)
        for stored in (await store.list(Block)).items
        for one in arithmetic.given_to(stored.value, handle)
    ]


async def check_books(datastore: Datastore) -> None:
    """Compare what handles count with what blocks record."""
    counted = {
        (stored.value.id, cidr): count
        for stored in (await datastore.list(Handle)).items
        for cidr, count in stored.value.blocks
    }
    recorded: Counter[tuple[str | None, IPNetwork]] = Counter()
    for stored in (await datastore.list(Block)).items:
        verify(stored.value)
        recorded.update(
            (one.attribute.handle_id, stored.value.cidr) for one in arithmetic.given(stored.value)
        )
    assert counted == recorded


async def leave(store: Datastore) -> None:
    """Let node-0 have a tunnel, two pods and half a claim, and then go; node-1 lives beside it."""
    await store.create(Node("node-1"))
    await tunnel_of(store, "node-0")
    (pod,) = await take(node(store), "pod", **OWN)
    (theirs,) = await take(node(store, "node-1"), "their-pod", **THEIRS)
    # Each has borrowed of the other.
    await take(node(store, "node-1"), "guest", addresses=(IPv4Address(pod) + 1,), **THEIRS)
    await take(node(store), "pod-abroad", addresses=(IPv4Address(theirs) + 1,), **OWN)
