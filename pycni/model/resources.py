"""The objects of the datastore as values, with Calico's meanings.

`projectcalico.org/v3` (what people write) and `crd.projectcalico.org/v1` (what is stored) are two
spellings of these; `pycni.model.schema` translates.  A value that exists is valid: constructors
check.  Field names follow Calico's, in Python's spelling.
"""

from dataclasses import dataclass, field
from enum import Enum

from pycni.errors import InvalidInput
from pycni.model.network import IPAddress, IPInterface, IPNetwork
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer
from pycni.model.service_ranges import VIRTUAL
from pycni.model.vxlan import NO_VXLAN, VxlanEnd

DEFAULT_BLOCK_SIZE = {4: 26, 6: 122}
_NAME_LIMIT = 253
_HASH_DIGITS = 11
BLOCK_SIZES = {4: range(20, 33), 6: range(116, 129)}


class TunnelMode(Enum):
    """When traffic between nodes is encapsulated."""

    ALWAYS = "Always"
    CROSS_SUBNET = "CrossSubnet"
    NEVER = "Never"


class PoolUse(Enum):
    """What addresses of a pool may be used for (`allowedUses`)."""

    WORKLOAD = "Workload"
    TUNNEL = "Tunnel"
    LOAD_BALANCER = "LoadBalancer"


class AssignmentMode(Enum):
    """Whether a pool serves requests that do not name it."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


@dataclass(frozen=True, slots=True)
class IPPool:
    """A range of pod addresses and how traffic to it travels."""

    name: str
    cidr: IPNetwork
    block_size: int = 26
    ipip_mode: TunnelMode = TunnelMode.NEVER
    vxlan_mode: TunnelMode = TunnelMode.NEVER
    nat_outgoing: bool = False
    is_disabled: bool = False
    disable_bgp_export: bool = False
    node_selector: str = "all()"
    allowed_uses: frozenset[PoolUse] = frozenset({PoolUse.WORKLOAD, PoolUse.TUNNEL})
    assignment_mode: AssignmentMode = AssignmentMode.AUTOMATIC

    def __post_init__(self) -> None:
        sizes = BLOCK_SIZES[self.cidr.version]
        if self.block_size not in sizes:
            raise InvalidInput(
                f"pool {self.name}: blockSize {self.block_size} is outside"
                f" {sizes.start} to {sizes.stop - 1} for IPv{self.cidr.version}"
            )
        if self.cidr.prefixlen > self.block_size:
            raise InvalidInput(
                f"pool {self.name}: {self.cidr} is smaller than one block of /{self.block_size}"
            )
        if self.ipip_mode is not TunnelMode.NEVER and self.cidr.version == 6:
            raise InvalidInput(f"pool {self.name}: ipipMode must be Never for an IPv6 pool")
        if TunnelMode.NEVER not in (self.ipip_mode, self.vxlan_mode):
            raise InvalidInput(f"pool {self.name}: ipipMode and vxlanMode exclude each other")


@dataclass(frozen=True, slots=True)
class Node:
    """A node as its peers know it; the addresses carry the prefix of the node's own subnet.

    `internal_ips` are its kubelet's (Kubernetes's InternalIP), the first of each IP version: read
    in a cluster, and never written.  So is the `uid`, which tells a Node from an earlier one of its
    name.  A node with a `reflector_cluster_id` (RFC 4456) is no part of the mesh.  `unread` names
    the annotations that say nothing which can be, and count as absent.
    """

    name: str
    ipv4: IPInterface | None = None
    ipv6: IPInterface | None = None
    as_number: int | None = None
    ipip_tunnel_address: IPAddress | None = None
    vxlan: VxlanEnd = NO_VXLAN
    vxlan6: VxlanEnd = NO_VXLAN
    labels: tuple[tuple[str, str], ...] = ()
    internal_ips: tuple[IPAddress, ...] = ()
    reflector_cluster_id: IPAddress | None = None
    uid: str = field(default="", compare=False)
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IPAMConfig:
    """Settings of address management for all nodes (named `default`); 0 blocks means 20.

    `cooldown_s` (`ipCooldownSeconds`): how long a released address rests before it is given again.
    """

    name: str = "default"
    is_strict_affinity: bool = False
    is_auto_allocating_blocks: bool = True
    max_blocks_per_host: int = 0
    cooldown_s: int = 0


@dataclass(frozen=True, slots=True)
class IPReservation:
    """Addresses that are given to those who ask for them in particular only."""

    name: str
    cidrs: tuple[IPNetwork, ...]


class AffinityState(Enum):
    """The life of a block affinity; only CONFIRMED ones are routed or advertised."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    PENDING_DELETION = "pendingDeletion"


@dataclass(frozen=True, slots=True)
class BlockAffinity:
    """The claim of one node on one block."""

    node: str
    cidr: IPNetwork
    state: AffinityState
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class AllocationAttribute:
    """Who holds an address: a handle and free-form details (Calico's `handle_id`, `secondary`).

    One with `released_at` (RFC 3339) is held by nobody: it rests, so that nobody else gets it yet.
    `text` is how it is spelled where it is stored: each change of a block repeats all of them.
    """

    handle_id: str | None
    secondary: tuple[tuple[str, str], ...] = ()
    released_at: str | None = None
    text: str = field(default="", init=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of addresses; the arithmetic on it lives in `pycni.ipam.block`.

    `allocations[ordinal]` is None or an index into `attributes`; `unallocated` holds the free
    ordinals, next one first; `sequence_numbers[ordinal]` is the block's sequence number at the
    moment the ordinal was given (None while it is free).  `affinity` names the owning node; None
    is a block without owner.
    """

    cidr: IPNetwork
    affinity: str | None
    allocations: tuple[int | None, ...]
    unallocated: tuple[int, ...]
    attributes: tuple[AllocationAttribute, ...] = ()
    sequence_number: int = 0
    sequence_numbers: tuple[int | None, ...] = ()
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Handle:
    """The reverse index: how many addresses a handle holds in which block, sorted by block."""

    id: str
    blocks: tuple[tuple[IPNetwork, int], ...] = ()
    is_deleted: bool = False


Resource = (
    IPPool
    | IPReservation
    | Node
    | BGPPeer
    | BGPFilter
    | BGPConfiguration
    | IPAMConfig
    | BlockAffinity
    | Block
    | Handle
)


_DASHES = str.maketrans("./:", "---")


def cidr_name(cidr: IPNetwork) -> str:
    """Spell a CIDR as Calico does in object names ("192-168-39-192-26")."""
    return str(cidr).translate(_DASHES)


def affinity_name(node: str, *, cidr: IPNetwork) -> str:
    """Return the name of a node's affinity for a block, cut to Kubernetes's limit as Calico does.

    A cut name ends in 11 digits of a hash, so that two long node names don't meet.
    """
    block, node = cidr_name(cidr), node.removeprefix(VIRTUAL)
    name = f"{node}-{block}"
    if len(name) < _NAME_LIMIT:
        return name
    # Imported late: hardly any node has such a name, and the module is on the path of every ADD.
    from hashlib import sha256

    digest = sha256(f"{node}+{block}".encode()).hexdigest()[:_HASH_DIGITS]
    # The limit, minus the separators and the hash; Calico counts one character more than needed.
    return f"{node[: _NAME_LIMIT - 1 - len(block) - _HASH_DIGITS - 2]}-{block}-{digest}"


def resource_name(value: Resource) -> str:
    """Return the name under which a value is stored."""
    match value:
        case Block():
            return cidr_name(value.cidr)
        case BlockAffinity():
            return affinity_name(value.node, cidr=value.cidr)
        case Handle():
            return value.id.lower()
        case _:
            return value.name
