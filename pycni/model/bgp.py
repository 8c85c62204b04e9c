"""BGP as values: paths, neighbours and what a session tells, without any engine's spelling."""

from dataclasses import dataclass
from enum import Enum

from pycni.model.network import IPAddress, IPNetwork


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
    port: int = 179
    password: str | None = None
    is_passive: bool = False
    families: frozenset[Family] = frozenset({Family.IPV4, Family.IPV6})


@dataclass(frozen=True, slots=True)
class Advertisement:
    """A prefix of ours, announced with this next hop to every neighbour that takes its family."""

    nlri: IPNetwork
    next_hop: IPAddress

    @property
    def family(self) -> Family:
        """Return the family whose sessions carry it."""
        return Family.of(self.nlri)


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
