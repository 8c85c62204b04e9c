"""Tells one ExaBGP what to announce to whom, and remembers what it was told.

What has to be told is decided in `pycni.bgp.adj_out`.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from pycni.bgp import codec
from pycni.bgp.adj_out import Change, changes, prefixes
from pycni.bgp.unsent import Unsent
from pycni.model.bgp import AdjRibsOut, Neighbour
from pycni.model.network import IPAddress


class Announcer:
    """Kept beside an ExaBGP; `tell` hands it a command."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.up: set[IPAddress] = set()
        self._tell = tell
        self._told = AdjRibsOut()
        self._unsent = Unsent()

    def begin(self, wanted: AdjRibsOut) -> None:
        """Note that an ExaBGP begins: each peer hears all of this when it comes up."""
        self._told = wanted

    def clear(self) -> None:
        """Note that ExaBGP ended, and all sessions with it."""
        self._told = AdjRibsOut()
        self._unsent.clear()
        self.up.clear()

    def change(
        self,
        wanted: AdjRibsOut,
        *,
        configured: Sequence[Neighbour],
        staying: AbstractSet[IPAddress],
    ) -> None:
        """Tell peers what changed; those that are down hear everything when they come up.

        A withdrawal is sent in any case, because ExaBGP keeps what it once announced for the
        next session of a peer.
        """
        for one in changes(self._told, wanted, configured=configured, staying=staying):
            if one.is_withdrawal:
                self._unsent.withdraw(one.advertisement.nlri, one.peers)
            if one.is_withdrawal or self.up:
                self._tell(_command(one, is_for_all=len(one.peers) == len(configured)))
        self._told = wanted

    def greet(self, peer: IPAddress, neighbour: Neighbour | None) -> None:
        """Send everything that a peer that came up is to have, then End-of-RIB.

        One that is wanted no more (None) hears nothing, and nothing ends: it is about to go.
        """
        self.up.add(peer)
        if neighbour is None:
            return
        for advertisement in sorted(self._told.to(peer), key=str):
            if advertisement.family in neighbour.families:
                self._tell(codec.announce(advertisement, peers=[peer]))
        self._unsent.begin(peer, neighbour.families)
        for family in neighbour.families:
            self._tell(codec.end_of_rib(family, peer=peer))

    def end(self, peer: IPAddress) -> None:
        """Note that a session went down."""
        self.up.discard(peer)
        self._unsent.end(peer)

    def note(self, sent: codec.Sent) -> None:
        """Note what ExaBGP has sent."""
        self._unsent.note(sent)

    def has_told(self, peer: IPAddress, wanted: AdjRibsOut) -> bool:
        """Tell whether a peer was sent the withdrawal of all that it is to hear no more."""
        is_said = prefixes(self._told.to(peer)) <= prefixes(wanted.to(peer))
        return is_said and self._unsent.has_all(peer)


def _command(change: Change, *, is_for_all: bool) -> str:
    # ExaBGP logs each route whose family a neighbour's session doesn't carry: it is named who does.
    peers = () if is_for_all else change.peers
    spell = codec.withdraw if change.is_withdrawal else codec.announce
    return spell(change.advertisement, peers=peers)
