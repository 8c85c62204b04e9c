"""What a Linux kernel holds, as values: links, addresses, routes, and operations on them.

Interfaces are named, never numbered: an index is the kernel adapter's business, because the same
name may carry another index after a restart.  Nothing here performs input or output.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from pycni.model.linklayer import EntryKey, LinkLayerEntry, Vxlan

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network

MAIN_TABLE = 254

PROTOCOL_KERNEL = 2
PROTOCOL_BOOT = 3
PROTOCOL_STATIC = 4
PROTOCOL_BIRD = 12

IPV6_DEFAULT_PRIORITY = 1024
"""What the kernel writes for an IPv6 route without priority: wanted IPv6 keys must say it."""

IPV6_CONNECTED_PRIORITY = 256
"""What the kernel writes for the network of an interface's IPv6 address."""


class RouteType(IntEnum):
    """The kernel's route types (rtm_type, RTN_* in linux/rtnetlink.h)."""

    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    ANYCAST = 4
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8
    THROW = 9
    NAT = 10


class Scope(IntEnum):
    """The kernel's scopes (rtm_scope, RT_SCOPE_*)."""

    UNIVERSE = 0
    SITE = 200
    LINK = 253
    HOST = 254
    NOWHERE = 255

    @classmethod
    def _missing_(cls, value: object) -> "Scope | None":
        """Accept the numbers between, which an administrator may use for routes of their own."""
        if not isinstance(value, int) or not 0 <= value <= 255:
            return None
        member = int.__new__(cls, value)
        member._name_, member._value_ = f"SCOPE_{value}", value
        return member


@dataclass(frozen=True, slots=True)
class RouteKey:
    """What makes two routes compete in the kernel: destination, table, TOS and priority.

    The kernel knows no IPv6 route of priority 0 in the main table: it reads 0 as 1024.  It is
    looked up far more often than made, so the hash is worked out once.
    """

    dst: IPNetwork
    table: int = MAIN_TABLE
    tos: int = 0
    priority: int = 0
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.dst, self.table, self.tos, self.priority)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class NextHop:
    """One way out: an interface, and the gateway behind it if there is one.

    The transient flags `dead` and `linkdown` are left out: they are the link's state, not ours.
    """

    oif: str
    gateway: IPAddress | None = None
    is_onlink: bool = False
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Route:
    """One route of a routing table; a blackhole has no next hops, a multipath route several.

    IPv6 routes have no scope (UNIVERSE), and the `lo` that the kernel shows as the device of an
    IPv6 blackhole is left out.
    """

    key: RouteKey
    type: RouteType = RouteType.UNICAST
    scope: Scope = Scope.UNIVERSE
    next_hops: frozenset[NextHop] = frozenset()
    src: IPAddress | None = None
    protocol: int = PROTOCOL_BOOT
    mtu: int | None = None

    @property
    def oifs(self) -> frozenset[str]:
        """The names of all interfaces by which the route leaves."""
        return frozenset(hop.oif for hop in self.next_hops)


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface as the kernel reports it; `kind` is "veth", "ipip" (IFLA_INFO_KIND).

    `vxlan` are the parameters of one of that kind.
    """

    name: str
    index: int
    kind: str = ""
    mtu: int = 1500
    mac: str = ""
    is_up: bool = False
    has_carrier: bool = True
    alias: str = ""
    vxlan: Vxlan | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """An address on an interface, with its prefix length.

    A temporary one is the kernel's own (RFC 8981): it draws another every day or so.
    """

    ifname: str
    interface: IPInterface
    is_temporary: bool = False


@dataclass(frozen=True, slots=True)
class NatUnavailable:
    """Why this machine can have no nftables table: a lasting state, not a failure to retry."""

    reason: str


@dataclass(slots=True)
class KernelState:
    """Everything the agent looks at in one network namespace, read at one moment.

    Only the reconciler, which owns it, changes it (from events); one route key may hold several
    routes, ours and others', in the kernel's own order: the first one is in effect.  `sysctls`
    holds the watched keys only ("net.ipv4.ip_forward" → "1"); `ruleset` is the digest found in our
    nftables table, None where the table is absent, another text where it was tampered with.
    Where `nat_unavailable` is set, no ruleset can be had: wanting one would retry for ever.
    `gateways` are the interfaces that have the pods' IPv6 gateway address, as of the last snapshot
    and our own operations, `lost_gateways` those that lost it since; other link-local addresses are
    left out, and `addresses` stays small.
    `neighbours` are the permanent entries of VXLAN devices, of others' as well.
    `keys_by_oif` is an index of `routes`, made and kept by `pycni.plan.mirror`.
    """

    links: dict[str, Link] = field(default_factory=dict)
    addresses: set[Address] = field(default_factory=set)
    routes: dict[RouteKey, tuple[Route, ...]] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    ruleset: str | None = None
    nat_unavailable: NatUnavailable | None = None
    gateways: set[str] = field(default_factory=set)
    lost_gateways: set[str] = field(default_factory=set)
    neighbours: dict[EntryKey, LinkLayerEntry] = field(default_factory=dict)
    keys_by_oif: dict[str, set[RouteKey]] | None = field(
        default=None, init=False, repr=False, compare=False
    )


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel device that the agent owns: `kind` "ipip" or "vxlan", its name and MTU.

    One of VXLAN has parameters and a MAC address beside.
    """

    name: str
    kind: str
    mtu: int
    mac: str = ""
    vxlan: Vxlan | None = None


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Our nftables table, rendered whole; `digest` is stored in the table to recognise it."""

    text: str
    digest: str


# --- operations: what a plan is made of ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateTunnel:
    """Make the tunnel device (down, without address)."""

    tunnel: Tunnel


@dataclass(frozen=True, slots=True)
class SetLink:
    """Set an interface up and give it this MTU; `tunnel`: also that VXLAN device's addresses."""

    name: str
    mtu: int
    tunnel: Tunnel | None = None


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """Delete an interface of ours, or set it down where it can't be; absent is success."""

    name: str


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Add an address; present already is success."""

    address: Address


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    """Delete an address; absent is success."""

    address: Address


@dataclass(frozen=True, slots=True)
class SetNeighbour:
    """Write an entry of a VXLAN device, over whatever stands under its key.

    A forwarding entry of somebody else's has to be deleted before, to become ours.
    """

    entry: LinkLayerEntry


@dataclass(frozen=True, slots=True)
class DeleteNeighbour:
    """Delete an entry of a VXLAN device; absent is success."""

    entry: LinkLayerEntry


@dataclass(frozen=True, slots=True)
class AddRoute:
    """Create a route exclusively: a route under the same key is an error, never overwritten."""

    route: Route


@dataclass(frozen=True, slots=True)
class ReplaceRoute:
    """Replace our own route `old` by `new` under the same key, without a gap.

    A route of somebody else under that key stays; an `old` that is gone already is no error.
    """

    old: Route
    new: Route


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    """Delete exactly this route (key, type, protocol, next hops); absent is success."""

    route: Route


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Write one sysctl, dotted name as in sysctl(8) ("net.ipv4.conf.tunl0.rp_filter")."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class SetRuleset:
    """Replace our nftables table by this one in a single transaction."""

    ruleset: Ruleset


@dataclass(frozen=True, slots=True)
class DeleteRuleset:
    """Delete our nftables table; absent is success."""


Op = (
    CreateTunnel
    | SetLink
    | DeleteLink
    | AddAddress
    | DeleteAddress
    | SetNeighbour
    | DeleteNeighbour
    | AddRoute
    | ReplaceRoute
    | DeleteRoute
    | SetSysctl
    | SetRuleset
    | DeleteRuleset
)


# --- events: what the kernel tells --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """An interface is new or has changed."""

    link: Link


@dataclass(frozen=True, slots=True)
class LinkGone:
    """An interface is gone (or was renamed: then a LinkChanged of the new name follows)."""

    name: str


@dataclass(frozen=True, slots=True)
class AddressChanged:
    """An address was added or removed."""

    address: Address
    is_present: bool


@dataclass(frozen=True, slots=True)
class RouteChanged:
    """A route was added (perhaps replacing another of its key) or removed."""

    route: Route
    is_present: bool
    is_replacement: bool = False


@dataclass(frozen=True, slots=True)
class RulesetChanged:
    """Somebody wrote to our nftables table: the digest that it shows now, None when it is gone."""

    digest: str | None


@dataclass(frozen=True, slots=True)
class NeighbourChanged:
    """A permanent entry of a VXLAN device was written or removed."""

    entry: LinkLayerEntry
    is_present: bool


KernelEvent = (
    LinkChanged | LinkGone | AddressChanged | RouteChanged | RulesetChanged | NeighbourChanged
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An operation that the kernel refused: its errno and a sentence."""

    op: Op
    errno: int
    message: str
