"""Tables of what two peers said, as tests fill and show them."""

from ipaddress import ip_address, ip_network

from pycni.bgp.rib import Rib
from pycni.model.bgp import (
    BgpEvent,
    EndOfRib,
    Family,
    Neighbour,
    Path,
    PathsChanged,
    PeerDown,
    PeerOpened,
    PeerUp,
    SpeakerLost,
)
from pycni.model.network import IPAddress

A, B = ip_address("10.0.0.1"), ip_address("10.0.0.2")
BLOCK, OTHER = ip_network("192.168.1.0/26"), ip_network("192.168.2.0/26")
SIX = ip_network("fd00:1::/122")
BOTH = frozenset({Family.IPV4, Family.IPV6})


def path(nlri: str = "192.168.1.0/26", peer: str = "10.0.0.1", *, med: int = 0) -> Path:
    return Path(ip_network(nlri), ip_address(peer), peer=ip_address(peer), med=med)


def opened(
    *, restart: int | None = 90, preserved: frozenset[Family] = BOTH, families: str = "46"
) -> PeerOpened:
    named = {f for f, digit in ((Family.IPV4, "4"), (Family.IPV6, "6")) if digit in families}
    return PeerOpened(A, restart_time_s=restart, preserved=preserved, families=frozenset(named))


def neighbour(peer: IPAddress = A, *, families: frozenset[Family] = BOTH) -> Neighbour:
    own = ip_address("10.0.0.9")
    return Neighbour(peer, own, 64512, 64512, router_id=own, families=families)


def announce(*paths: Path) -> PathsChanged:
    return PathsChanged(A, announced=paths)


def down(*, graceful: bool = True) -> PeerDown:
    return PeerDown(A, reason="closing connection", is_graceful=graceful)


EOR_4, EOR_6 = EndOfRib(A, Family.IPV4), EndOfRib(A, Family.IPV6)
LOST = SpeakerLost("killed")


def told(*events: BgpEvent, now: float = 0.0) -> Rib:
    rib = Rib()
    for event in events:
        rib.feed(event, now=now)
    return rib


def established(*paths: Path, restart: int | None = 90) -> Rib:
    return told(opened(restart=restart), PeerUp(A), announce(*paths), EOR_4, EOR_6)


def shown(rib: Rib) -> list[str]:
    """Show the table as one would on a router's console."""
    return [
        f"{p.nlri} from {p.peer}{' stale' if p.is_stale else ''}"
        for nlri in sorted(rib.prefixes(), key=str)
        for p in rib.paths(nlri)
    ]
