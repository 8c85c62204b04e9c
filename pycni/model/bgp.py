"""BGP as values: paths, neighbours and what a session tells, without any engine's spelling."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from pycni.errors import InvalidInput
from pycni.model.network import IPAddress, IPNetwork

BGP_PORT = 179
MAX_TTL = 255
_COMMUNITY_LIMITS = {2: 1 << 16, 3: 1 << 32}


class Family(Enum):
    """An address family with SAFI unicast (RFC 4760)."""

    IPV4 = "ipv4 unicast"
    IPV6 = "ipv6 unicast"

    @classmethod
    def of(cls, prefix: IPNetwork) -> "Family":
        """Return the family of a prefix."""
        return cls.IPV4 if prefix.version == 4 else cls.IPV6


class Origin(Enum):
    """ORIGIN in the order of preference of RFC 4271, 9.1.2.2 c."""

    IGP = 0
    EGP = 1
    INCOMPLETE = 2


def parse_community(text: str) -> str:
    """Return a community as it is usually written, "AA:NN" (RFC 1997) or "AA:NN:MM" (RFC 8092).

    Raise `InvalidInput` when it is neither.
    """
    parts = text.split(":")
    limit = _COMMUNITY_LIMITS.get(len(parts), 0)
    if not all(part.isascii() and part.isdecimal() and int(part) < limit for part in parts):
        raise InvalidInput(
            f"{text!r} is no community: write AA:NN, of numbers up to 65535, or AA:NN:MM, of"
            " numbers up to 4294967295"
        )
    return ":".join(str(int(part)) for part in parts)


def is_large(community: str) -> bool:
    """Tell a large community (RFC 8092) from a standard one."""
    return community.count(":") == 2


@dataclass(frozen=True, slots=True)
class Path:
    """One path of an Adj-RIB-In: a prefix as one peer announced it (RFC 4271, section 5.1)."""

    nlri: IPNetwork
    next_hop: IPAddress
    peer: IPAddress
    as_path: tuple[int, ...] = ()
    local_pref: int = 100
    med: int = 0
    origin: Origin = Origin.IGP
    communities: frozenset[str] = frozenset()
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One session that we want: where, with which AS numbers, timers and secrets."""

    peer: IPAddress
    local: IPAddress
    local_as: int
    peer_as: int
    router_id: IPAddress
    hold_time_s: int = 90
    restart_time_s: int = 120
    port: int = BGP_PORT
    password: str | None = None
    is_passive: bool = False
    families: frozenset[Family] = frozenset({Family.IPV4, Family.IPV6})
    hops: int | None = None
    """How far away the peer may be, where its packets' TTL proves that (GTSM, RFC 5082)."""

    @property
    def has_extended_next_hop(self) -> bool:
        """Tell whether IPv4 prefixes go by this session with IPv6 next hops (RFC 8950)."""
        return self.local.version == 6 and Family.IPV4 in self.families

    @property
    def least_ttl(self) -> int | None:
        """Return the lowest TTL that the peer's packets may have, None for any."""
        return None if self.hops is None else MAX_TTL + 1 - self.hops


@dataclass(frozen=True, slots=True)
class Advertisement:
    """A prefix of ours, announced with this next hop and these communities."""

    nlri: IPNetwork
    next_hop: IPAddress
    communities: frozenset[str] = frozenset()

    @property
    def family(self) -> Family:
        """Return the family whose sessions carry it."""
        return Family.of(self.nlri)


@dataclass(frozen=True, slots=True)
class AdjRibsOut:
    """What each neighbour is to hear (RFC 4271, 1.1), of the families that its session carries.

    Nearly always that is the same for all, however many there are; `particular` has the others.
    """

    common: frozenset[Advertisement] = frozenset()
    particular: Mapping[IPAddress, frozenset[Advertisement]] = field(default_factory=dict)

    def to(self, peer: IPAddress) -> frozenset[Advertisement]:
        """Return what one neighbour is to hear."""
        return self.particular.get(peer, self.common)


# --- what the speaker tells ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpeakerUp:
    """The BGP engine runs and listens to us (again): every session starts from nothing."""


@dataclass(frozen=True, slots=True)
class SpeakerLost:
    """The BGP engine is gone: all sessions are down, peers keep our routes by graceful restart."""

    reason: str


@dataclass(frozen=True, slots=True)
class PeerOpened:
    """A peer's OPEN: its families, restart time, and where it kept its forwarding state.

    `restart_time_s` None: it does not support graceful restart (RFC 4724, section 3).
    """

    peer: IPAddress
    restart_time_s: int | None
    preserved: frozenset[Family]
    families: frozenset[Family] = frozenset({Family.IPV4})


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A session is established."""

    peer: IPAddress


@dataclass(frozen=True, slots=True)
class PeerDown:
    """A session ended; not gracefully when a NOTIFICATION ended it (RFC 4724, section 4)."""

    peer: IPAddress
    reason: str
    is_graceful: bool


@dataclass(frozen=True, slots=True)
class PathsChanged:
    """One UPDATE of a peer: paths announced and prefixes withdrawn."""

    peer: IPAddress
    announced: tuple[Path, ...] = ()
    withdrawn: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class EndOfRib:
    """The peer has sent all that it has of one family (RFC 4724, section 2)."""

    peer: IPAddress
    family: Family


BgpEvent = SpeakerUp | SpeakerLost | PeerOpened | PeerUp | PeerDown | PathsChanged | EndOfRib
