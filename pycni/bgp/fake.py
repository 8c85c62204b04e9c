"""An in-memory BGP network with the real speaker's contract, for tests.

Sessions come up between speakers that name each other; each then hears all that the other
announces, and End-of-RIB.  The methods of `FakeNetwork` beyond the door act as fate would:
speakers die, links are cut.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import permutations

from pycni.model.bgp import (
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
    """Implements `pycni.ports.Speaker`, at one address of a network."""

    def __init__(self, network: "FakeNetwork", address: IPAddress) -> None:
        self.address = address
        self.neighbours: tuple[Neighbour, ...] = ()
        self.advertisements: frozenset[Advertisement] = frozenset()
        self.told: dict[IPAddress, frozenset[Advertisement]] = {}
        """What was announced to each peer whose session is up."""
        self._network = network
        self._queue: asyncio.Queue[BgpEvent] = asyncio.Queue()
        network.join(self)

    def configure(
        self, *, neighbours: Sequence[Neighbour], advertisements: frozenset[Advertisement]
    ) -> None:
        """State what is wanted from now on."""
        self.neighbours, self.advertisements = tuple(neighbours), advertisements
        self._network.converge()

    async def events(self) -> AsyncIterator[BgpEvent]:
        """Yield what happens, without end."""
        while True:
            yield await self._queue.get()

    def tell(self, *events: BgpEvent) -> None:
        """Let the speaker report something."""
        for event in events:
            self._queue.put_nowait(event)

    def wants(self, peer: IPAddress) -> bool:
        """Say whether a session with this peer is configured."""
        return self.neighbour(peer) is not None

    def neighbour(self, peer: IPAddress) -> Neighbour | None:
        """Return how a session is configured, None when it isn't."""
        return next((n for n in self.neighbours if n.peer == peer), None)

    def agrees_with(self, other: "FakeSpeaker") -> bool:
        """Say whether both ends are configured for a session, with each other's AS number."""
        here, there = self.neighbour(other.address), other.neighbour(self.address)
        if here is None or there is None:
            return False
        return (here.local_as, here.peer_as) == (there.peer_as, there.local_as)

    def update(self, sender: IPAddress, adverts: Iterable[Advertisement]) -> tuple[Path, ...]:
        """Turn a peer's advertisements into paths as this speaker hears them."""
        return tuple(Path(a.nlri, a.next_hop, peer=sender) for a in sorted(adverts, key=str))


class FakeNetwork:
    """The wire between speakers."""

    def __init__(self) -> None:
        self._speakers: dict[IPAddress, FakeSpeaker] = {}
        self._cut: set[frozenset[IPAddress]] = set()

    def join(self, speaker: FakeSpeaker) -> None:
        """Put a speaker in the place of whatever had its address, and start it."""
        if speaker.address in self._speakers:
            self.kill(speaker.address)
        self._speakers[speaker.address] = speaker
        speaker.tell(SpeakerUp())

    def kill(self, address: IPAddress) -> None:
        """Let a speaker die without a word: its peers keep its routes by graceful restart."""
        dead = self._speakers.pop(address)
        dead.told.clear()
        dead.tell(SpeakerLost("it was killed"))
        for other in self._speakers.values():
            if other.told.pop(address, None) is not None:
                other.tell(PeerDown(address, reason="closing connection", is_graceful=True))

    def revive(self, speaker: FakeSpeaker) -> None:
        """Start a speaker anew that had died."""
        self.join(speaker)
        self.converge()

    def cut(self, one: IPAddress, other: IPAddress) -> None:
        """Break the link between two speakers until both notice by their hold timers."""
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
        for one, other in permutations(list(self._speakers.values()), 2):
            is_wanted = one.agrees_with(other)
            if other.address in one.told and not is_wanted:
                self._end(one, other)
            elif is_wanted and frozenset({one.address, other.address}) not in self._cut:
                if other.address not in one.told:
                    self._establish(one, other)
                self._carry(one, other)

    @staticmethod
    def _end(one: FakeSpeaker, other: FakeSpeaker) -> None:
        for speaker, peer in ((one, other), (other, one)):
            speaker.told.pop(peer.address, None)
            is_own = not speaker.wants(peer.address)
            reason = "stop, message [removed]" if is_own else "closing connection"
            speaker.tell(PeerDown(peer.address, reason=reason, is_graceful=not is_own))

    @staticmethod
    def _establish(one: FakeSpeaker, other: FakeSpeaker) -> None:
        families = frozenset(Family)
        for speaker, peer in ((one, other), (other, one)):
            opened = PeerOpened(
                peer.address, restart_time_s=120, preserved=families, families=families
            )
            speaker.tell(opened, PeerUp(peer.address))
        for speaker, peer in ((one, other), (other, one)):
            speaker.told[peer.address] = speaker.advertisements
            announced = peer.update(speaker.address, speaker.advertisements)
            if announced:
                peer.tell(PathsChanged(speaker.address, announced=announced))
            peer.tell(*(EndOfRib(speaker.address, family) for family in Family))

    @staticmethod
    def _carry(one: FakeSpeaker, other: FakeSpeaker) -> None:
        told = one.told[other.address]
        if told == one.advertisements:
            return
        one.told[other.address] = one.advertisements
        announced = other.update(one.address, one.advertisements - told)
        kept = {a.nlri for a in one.advertisements}
        withdrawn = tuple(sorted({a.nlri for a in told} - kept, key=str))
        other.tell(PathsChanged(one.address, announced=announced, withdrawn=withdrawn))
