"""An in-memory BGP network with the real speaker's contract, for tests.

Sessions come up between speakers that name each other; each then hears all that the other
announces, and End-of-RIB.  The methods of `FakeNetwork` beyond the door act as fate would:
speakers die, links are cut.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

from pycni.model.bgp import (
    AdjRibsOut,
    Advertisement,
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
from pycni.model.network import IPAddress


class FakeSpeaker:
    """Implements `pycni.ports.Speaker`, at one address of a network for each IP version."""

    def __init__(self, network: "FakeNetwork", *addresses: IPAddress) -> None:
        self.addresses = addresses
        self.neighbours: tuple[Neighbour, ...] = ()
        self.advertisements = AdjRibsOut()
        self.told: dict[IPAddress, frozenset[Advertisement]] = {}
        """What was announced to each peer whose session is up."""
        self._network = network
        self._queue: asyncio.Queue[BgpEvent] = asyncio.Queue()
        network.join(self)

    def configure(self, *, neighbours: Sequence[Neighbour], advertisements: AdjRibsOut) -> None:
        """State what is wanted from now on."""
        self.neighbours, self.advertisements = tuple(neighbours), advertisements
        self._network.converge()

    def has_told(self, peer: IPAddress) -> bool:
        """Tell whether a session is up: what is stated is told at once."""
        return peer in self.told

    async def events(self) -> AsyncIterator[BgpEvent]:
        """Yield what happens, without end."""
        while True:
            yield await self._queue.get()

    def tell(self, *events: BgpEvent) -> None:
        """Let the speaker report something."""
        for event in events:
            self._queue.put_nowait(event)


@dataclass(frozen=True, slots=True)
class _End:
    """One end of a session: a speaker, by one of its addresses."""

    speaker: FakeSpeaker
    address: IPAddress

    def towards(self, peer: "_End") -> Neighbour | None:
        """Return how the session is configured here, None when it isn't."""
        asked = (self.address, peer.address)
        return next((n for n in self.speaker.neighbours if (n.local, n.peer) == asked), None)

    def agrees_with(self, peer: "_End") -> bool:
        """Say whether both ends are configured for a session, with each other's AS number."""
        here, there = self.towards(peer), peer.towards(self)
        if here is None or there is None:
            return False
        return (here.local_as, here.peer_as) == (there.peer_as, there.local_as)

    def families(self, peer: "_End") -> frozenset[Family]:
        """Return the families that this end speaks to another."""
        here = self.towards(peer)
        return here.families if here is not None else frozenset()

    def for_peer(self, peer: "_End") -> frozenset[Advertisement]:
        """Return what this end has to announce in the families that both speak."""
        common = self.families(peer) & peer.families(self)
        wanted = self.speaker.advertisements.to(peer.address)
        return frozenset(a for a in wanted if a.family in common)

    def update(self, adverts: Iterable[Advertisement]) -> tuple[Path, ...]:
        """Turn this end's advertisements into paths as its peer hears them."""
        return tuple(
            Path(a.nlri, a.next_hop, peer=self.address, communities=a.communities)
            for a in sorted(adverts, key=lambda one: str(one.nlri))
        )


class FakeNetwork:
    """The wire between speakers."""

    def __init__(self) -> None:
        self._speakers: dict[IPAddress, FakeSpeaker] = {}
        self._cut: set[frozenset[IPAddress]] = set()

    def join(self, speaker: FakeSpeaker) -> None:
        """Put a speaker in the place of whatever had its addresses, and start it."""
        for address in speaker.addresses:
            if address in self._speakers:
                self.kill(address)
        self._speakers |= dict.fromkeys(speaker.addresses, speaker)
        speaker.tell(SpeakerUp())

    def kill(self, address: IPAddress) -> None:
        """Let a speaker die without a word: its peers keep its routes by graceful restart."""
        dead = self._speakers[address]
        for own in dead.addresses:
            del self._speakers[own]
        dead.told.clear()
        dead.tell(SpeakerLost("it was killed"))
        for end in self._ends():
            for own in dead.addresses:
                if end.speaker.told.pop(own, None) is not None:
                    end.speaker.tell(PeerDown(own, reason="closing connection", is_graceful=True))

    def revive(self, speaker: FakeSpeaker) -> None:
        """Start a speaker anew that had died."""
        self.join(speaker)
        self.converge()

    def cut(self, one: IPAddress, other: IPAddress) -> None:
        """Break the link between two addresses until both ends notice by their hold timers."""
        self._cut.add(frozenset({one, other}))
        for here, there in ((one, other), (other, one)):
            speaker = self._speakers.get(here)
            if speaker is not None and speaker.told.pop(there, None) is not None:
                reason = "notification sent (4,0)"
                speaker.tell(PeerDown(there, reason=reason, is_graceful=False))

    def join_again(self, one: IPAddress, other: IPAddress) -> None:
        """Repair a link."""
        self._cut.discard(frozenset({one, other}))
        self.converge()

    def converge(self) -> None:
        """Bring sessions up and down, and carry what changed."""
        for one, other in permutations(self._ends(), 2):
            if one.address.version != other.address.version:
                continue
            is_wanted = one.agrees_with(other)
            if other.address in one.speaker.told and one.address in other.speaker.told:
                if is_wanted:
                    self._carry(one, other)
                else:
                    self._end(one, other)
            elif is_wanted and frozenset({one.address, other.address}) not in self._cut:
                self._establish(one, other)

    def _ends(self) -> list[_End]:
        return [_End(speaker, address) for address, speaker in self._speakers.items()]

    @staticmethod
    def _end(one: _End, other: _End) -> None:
        for end, peer in ((one, other), (other, one)):
            end.speaker.told.pop(peer.address, None)
            is_own = end.towards(peer) is None
            reason = "stop, message [removed]" if is_own else "closing connection"
            end.speaker.tell(PeerDown(peer.address, reason=reason, is_graceful=not is_own))

    @staticmethod
    def _establish(one: _End, other: _End) -> None:
        for end, peer in ((one, other), (other, one)):
            families = peer.families(end)
            opened = PeerOpened(
                peer.address, restart_time_s=120, preserved=families, families=families
            )
            end.speaker.tell(opened, PeerUp(peer.address))
        for end, peer in ((one, other), (other, one)):
            told = end.for_peer(peer)
            end.speaker.told[peer.address] = told
            if told:
                peer.speaker.tell(PathsChanged(end.address, announced=end.update(told)))
            ends = (f for f in Family if f in end.families(peer))
            peer.speaker.tell(*(EndOfRib(end.address, family) for family in ends))

    @staticmethod
    def _carry(one: _End, other: _End) -> None:
        told, wanted = one.speaker.told[other.address], one.for_peer(other)
        if told == wanted:
            return
        one.speaker.told[other.address] = wanted
        withdrawn = {a.nlri for a in told} - {a.nlri for a in wanted}
        other.speaker.tell(
            PathsChanged(
                one.address,
                announced=one.update(wanted - told),
                withdrawn=tuple(sorted(withdrawn, key=str)),
            )
        )
