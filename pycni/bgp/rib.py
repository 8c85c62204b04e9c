"""The Adj-RIB-In of all peers, with graceful restart as the receiving speaker (RFC 4724).

Pure: time is an argument, in seconds of any monotonic clock.  Every method returns the prefixes
whose set of paths changed.  ExaBGP keeps no table for us and knows nothing of stale paths, so both
are here; which of the paths is used is decided elsewhere (`pycni.plan.imports`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import inf
from typing import assert_never

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
    SpeakerUp,
)
from pycni.model.network import IPAddress, IPNetwork

MAX_RESTART_TIME_S = 120.0
"""The longest that a peer's paths outlive its session, whatever it asks for."""
MAX_PATHS = 200_000
"""From one peer, some 150 MB; a cluster of 5,000 nodes has a tenth of that."""


@dataclass(slots=True)
class PeerState:
    """What is known of one peer.

    `restart_time_s` is None for a peer without graceful restart.  `stale_until` is the moment at
    which stale paths go; inf when there are none.  `is_own_restart` says that they are stale
    since our speaker died, so the peer need not have preserved anything.  `back_until` is when a
    peer must be back that has restarted itself since its last End-of-RIB or, if later, our
    speaker's death; inf where it has not.  `has_spoken` says that this session has told anything,
    `is_full` that prefixes beyond `MAX_PATHS` were left out of it.  `since` is the moment when the
    session came up or went down.
    """

    is_up: bool = False
    since: float | None = None
    restart_time_s: float | None = None
    stale_until: float = inf
    is_own_restart: bool = False
    back_until: float = inf
    has_spoken: bool = False
    families: frozenset[Family] = frozenset({Family.IPV4})
    finished: set[Family] = field(default_factory=set)
    last_error: str = ""
    is_full: bool = False
    paths: dict[IPNetwork, Path] = field(default_factory=dict)


class Rib:
    """All peers' paths; feed it events, ask it for the paths to a prefix."""

    def __init__(self) -> None:
        self.peers: dict[IPAddress, PeerState] = {}
        self._by_prefix: dict[IPNetwork, dict[IPAddress, Path]] = {}

    def paths(self, nlri: IPNetwork) -> tuple[Path, ...]:
        """Return all paths to a prefix, in the order of their peers' addresses."""
        by_peer = self._by_prefix.get(nlri, {})
        if len(by_peer) <= 1:
            return tuple(by_peer.values())
        return tuple(by_peer[p] for p in sorted(by_peer, key=lambda a: (a.version, int(a))))

    def prefixes(self) -> Iterable[IPNetwork]:
        """Return every prefix that has a path."""
        return self._by_prefix.keys()

    def next_deadline(self) -> float:
        """Return when `expire` has something to do; inf when never."""
        return min((p.stale_until for p in self.peers.values()), default=inf)

    def has_heard_all(self, neighbours: Iterable[Neighbour]) -> bool:
        """Tell whether each of these has sent End-of-RIB for each family of its session.

        Those are the families that both ends speak: a peer may know one that we don't ask for.
        """
        known = ((self.peers.get(n.peer), n.families) for n in neighbours)
        return all(p is not None and p.is_up and p.families & f <= p.finished for p, f in known)

    def feed(self, event: BgpEvent, *, now: float) -> set[IPNetwork]:
        """Apply one event; return the prefixes whose paths changed."""
        match event:
            case PathsChanged():
                return self._update(event)
            case PeerOpened():
                return self._opened(event, now=now)
            case PeerUp():
                peer = self._peer(event.peer)
                peer.is_up, peer.since, peer.has_spoken = True, now, False
                return set()
            case PeerDown():
                return self._down(event, now=now)
            case EndOfRib():
                return self._end_of_rib(event)
            case SpeakerLost():
                return self._speaker_lost(event, now=now)
            case SpeakerUp():
                return set()
            case _:
                assert_never(event)

    def expire(self, *, now: float) -> set[IPNetwork]:
        """Drop stale paths whose time is over."""
        touched: set[IPNetwork] = set()
        for address, peer in self.peers.items():
            if peer.stale_until <= now:
                peer.stale_until = inf
                touched |= self._drop(address, _stale(peer.paths.values()))
        return touched

    def forget(self, address: IPAddress) -> set[IPNetwork]:
        """Remove a peer that is no longer configured, and all its paths at once."""
        peer = self.peers.get(address)
        if peer is None:
            return set()
        touched = self._drop(address, list(peer.paths))
        del self.peers[address]
        return touched

    # --- one event each -------------------------------------------------------------------------

    def _update(self, event: PathsChanged) -> set[IPNetwork]:
        peer = self._peer(event.peer)
        peer.has_spoken = True
        touched = self._drop(event.peer, [n for n in event.withdrawn if n in peer.paths])
        for path in event.announced:
            known = peer.paths.get(path.nlri)
            if known is None and len(peer.paths) >= MAX_PATHS:
                peer.is_full = True
                continue
            if known != path:
                touched.add(path.nlri)
            peer.paths[path.nlri] = path
            self._by_prefix.setdefault(path.nlri, {})[event.peer] = path
        return touched

    def _opened(self, event: PeerOpened, *, now: float) -> set[IPNetwork]:
        peer = self._peer(event.peer)
        peer.finished.clear()
        peer.is_full = False
        peer.families = event.families
        if event.restart_time_s is None:
            peer.restart_time_s = None
            return self._drop(event.peer, _stale(peer.paths.values()))
        if peer.stale_until != inf:
            # The restart timer stops here (RFC 4724, 4.2); from now on End-of-RIB is waited for.
            peer.stale_until = now + MAX_RESTART_TIME_S
        peer.restart_time_s = min(float(event.restart_time_s), MAX_RESTART_TIME_S)
        if peer.is_own_restart:
            return set()
        # RFC 4724, 4.2: a family whose forwarding state the peer did not preserve goes at once.
        return self._drop(
            event.peer,
            [n for n in _stale(peer.paths.values()) if Family.of(n) not in event.preserved],
        )

    def _down(self, event: PeerDown, *, now: float) -> set[IPNetwork]:
        peer = self.peers.get(event.peer)
        # A failed attempt to connect says nothing about the last session's paths, nor does the end
        # of one whose peer we have forgotten.
        if peer is None or not peer.is_up:
            self._note_failure(event)
            return set()
        peer.is_up, peer.since = False, now
        peer.last_error = event.reason
        peer.finished.clear()
        if not event.is_graceful or peer.restart_time_s is None:
            peer.stale_until = inf
            return self._drop(event.peer, list(peer.paths))
        touched: set[IPNetwork] = set()
        if peer.back_until == inf:
            peer.back_until = now + peer.restart_time_s
        elif peer.has_spoken or peer.back_until <= now:
            # RFC 4724, 4.2: what was stale already when the peer restarts once more goes at last.
            touched = self._drop(event.peer, _stale(peer.paths.values()))
            peer.back_until = now + peer.restart_time_s
        # Else one of two connections that both ends have made at once (RFC 4271, 6.8) was given
        # up: that is no restart, and the wait goes on as it was.
        peer.is_own_restart = False
        return touched | self._mark_stale(event.peer, until=peer.back_until)

    def _note_failure(self, event: PeerDown) -> None:
        """Keep why no session comes up: what one end tells the other says most, and stays."""
        is_told = event.reason.startswith("notification")
        peer = self._peer(event.peer) if is_told else self.peers.get(event.peer)
        if peer is not None and (is_told or not peer.last_error):
            peer.last_error = event.reason

    def _speaker_lost(self, event: SpeakerLost, *, now: float) -> set[IPNetwork]:
        touched: set[IPNetwork] = set()
        for address, peer in self.peers.items():
            if peer.is_up:
                peer.is_up, peer.since = False, now
                peer.is_own_restart = True
                peer.last_error = event.reason
                touched |= self._mark_stale(address, until=now + MAX_RESTART_TIME_S)
            peer.finished.clear()
            # Whatever we break off by restarting, the peer's next restart is its first one again.
            peer.back_until = inf
        return touched

    def _end_of_rib(self, event: EndOfRib) -> set[IPNetwork]:
        peer = self._peer(event.peer)
        peer.has_spoken = True
        peer.finished.add(event.family)
        stale = [n for n in _stale(peer.paths.values()) if Family.of(n) is event.family]
        touched = self._drop(event.peer, stale)
        if not any(path.is_stale for path in peer.paths.values()):
            peer.stale_until = inf
            peer.back_until = inf
        return touched

    # --- the tables -----------------------------------------------------------------------------

    def _peer(self, address: IPAddress) -> PeerState:
        return self.peers.setdefault(address, PeerState())

    def _mark_stale(self, address: IPAddress, *, until: float) -> set[IPNetwork]:
        peer = self.peers[address]
        peer.stale_until = until if peer.paths else inf
        for nlri, path in peer.paths.items():
            stale = replace(path, is_stale=True)
            peer.paths[nlri] = stale
            self._by_prefix[nlri][address] = stale
        return set(peer.paths)

    def _drop(self, address: IPAddress, prefixes: Iterable[IPNetwork]) -> set[IPNetwork]:
        touched = set()
        for nlri in prefixes:
            del self.peers[address].paths[nlri]
            by_peer = self._by_prefix[nlri]
            del by_peer[address]
            if not by_peer:
                del self._by_prefix[nlri]
            touched.add(nlri)
        return touched


def _stale(paths: Iterable[Path]) -> list[IPNetwork]:
    return [path.nlri for path in paths if path.is_stale]
