"""The books of address management as they were read, and what the blocks in them say.

Blocks decide who holds what; handles are the reverse index and affinities the claims, and both may
be behind after a crash.  Pure: knows nothing of datastores.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pycni.errors import DatastoreUnusable
from pycni.ipam import block as arithmetic
from pycni.ipam.block import Given, Rested
from pycni.ipam.soundness import verify
from pycni.model.endpoints import EndpointKey, PendingRelease, WorkloadEndpoint
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.prefix import network_order
from pycni.model.resources import (
    AllocationAttribute,
    Block,
    BlockAffinity,
    Handle,
    IPPool,
    resource_name,
)
from pycni.model.tunnels import TunnelKind

TUNNEL_TYPES = {
    TunnelKind.IPIP: ("type", "ipipTunnelAddress"),
    TunnelKind.VXLAN: ("type", "vxlanTunnelAddress"),
    TunnelKind.VXLAN_V6: ("type", "vxlanV6TunnelAddress"),
}
"""What stands beside the address of a node's tunnel."""

Held = Mapping[IPNetwork, tuple[Given, ...]]


@dataclass(frozen=True, slots=True)
class NodeRecords:
    """The endpoint records of one node, and the releases that its journal still owes.

    `aliases` are the ifaliases of its interfaces, `routed` the addresses to which it has a route by
    a pod's interface: a record may be lost, and its pod live on.  `gone` are the keys of records
    whose pod, of another plugin's making, is certainly gone; `namespaces` the paths of network
    namespaces, of those that stand beside the addresses of such pods, that are there.  `damaged`
    says of each record that can't be read why, and `unreadable` are those whose record is one of
    them.
    """

    node: str
    endpoints: tuple[WorkloadEndpoint, ...] = ()
    debts: tuple[PendingRelease, ...] = ()
    aliases: frozenset[str] = frozenset()
    routed: frozenset[IPAddress] = frozenset()
    gone: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    damaged: tuple[str, ...] = ()
    unreadable: frozenset[EndpointKey] = frozenset()


@dataclass(frozen=True, slots=True)
class Books:
    """Everything that address management has written; `nodes` are the names of Node objects.

    `records` are those of the nodes whose records are known, by far not of all.
    """

    pools: tuple[IPPool, ...] = ()
    blocks: tuple[Block, ...] = ()
    handles: tuple[Handle, ...] = ()
    affinities: tuple[BlockAffinity, ...] = ()
    nodes: frozenset[str] = frozenset()
    records: tuple[NodeRecords, ...] = ()

    @property
    def sound_blocks(self) -> list[Block]:
        """The blocks that don't contradict themselves: nothing follows from the others."""
        return sound(self.blocks)


def sound(blocks: Iterable[Block]) -> list[Block]:
    """Leave out the blocks that contradict themselves, which concern their own requests alone."""
    return [block for block in blocks if not corruption_of(block)]


def awake(books: Books, *, rested: Rested) -> Books:
    """Return the books as a request finds them: what has rested long enough is free."""
    blocks = [
        block if corruption_of(block) else arithmetic.awake(block, rested=rested)
        for block in books.blocks
    ]
    return replace(books, blocks=tuple(blocks))


def corruption_of(block: Block) -> str:
    """Return how a block contradicts itself, as a sentence; "" when it doesn't."""
    try:
        verify(block)
    except DatastoreUnusable as exc:
        return str(exc)
    return ""


def handle_name(handle_id: str) -> str:
    """Return the name under which a handle is stored, which capital letters don't tell apart."""
    return resource_name(Handle(handle_id))


def held_by_name(blocks: Iterable[Block]) -> dict[str, dict[IPNetwork, tuple[Given, ...]]]:
    """Return what each handle's name holds, block by block; what rests is held by nobody.

    Handles that differ in capital letters share one object, which counts the addresses of both.
    """
    result: dict[str, dict[IPNetwork, tuple[Given, ...]]] = {}
    for block in blocks:
        for one in arithmetic.given(block):
            if one.attribute.handle_id is not None:
                held = result.setdefault(handle_name(one.attribute.handle_id), {})
                held[block.cidr] = (*held.get(block.cidr, ()), one)
    return result


def recounted(stored: Handle | None, held: Held) -> Handle | None:
    """Return a handle as the blocks say that it should be; None when it should not be."""
    if not held:
        return None
    spellings = (one.attribute.handle_id or "" for some in held.values() for one in some)
    handle_id = min(spellings) if stored is None else stored.id
    counts = ((cidr, len(some)) for cidr, some in held.items())
    return Handle(handle_id, tuple(sorted(counts, key=lambda count: network_order(count[0]))))


def with_count(handle: Handle, cidr: IPNetwork, count: int) -> Handle:
    """Return a handle that counts so many addresses of a block."""
    blocks = dict(handle.blocks)
    blocks.pop(cidr, None)
    if count > 0:
        blocks[cidr] = count
    return replace(
        handle, blocks=tuple(sorted(blocks.items(), key=lambda one: network_order(one[0])))
    )


def node_of(attribute: AllocationAttribute) -> str | None:
    """Return the node for which an address is held, where that is written beside it."""
    return dict(attribute.secondary).get("node")


def key_of(attribute: AllocationAttribute) -> EndpointKey | None:
    """Return the attachment for which we gave an address; None for what others gave."""
    said = dict(attribute.secondary)
    if not {"network", "container", "interface"} <= said.keys():
        return None
    return EndpointKey(said["network"], said["container"], said["interface"])


def attachment_of(key: EndpointKey | None) -> tuple[tuple[str, str], ...]:
    """Return what is written beside an address that is given for an attachment."""
    if key is None:
        return ()
    return (
        ("network", key.network),
        ("container", key.container_id),
        ("interface", key.ifname),
    )


def is_tunnels(attribute: AllocationAttribute) -> bool:
    """Tell whether an address is held for a node's tunnel."""
    return any(one in attribute.secondary for one in TUNNEL_TYPES.values())


def netns_of(attribute: AllocationAttribute) -> str | None:
    """Return the network namespace for which an address is held, where another plugin uses it."""
    return dict(attribute.secondary).get("netns")


def pod_of(attribute: AllocationAttribute) -> str | None:
    """Return the pod for which an address is held, as namespace/name."""
    said = dict(attribute.secondary)
    return f"{said.get('namespace', '')}/{said['pod']}" if "pod" in said else None
