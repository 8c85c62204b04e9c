"""What peers have not been sent yet, of that which they must hear before anything follows from it.

ExaBGP takes a command at once and writes its UPDATE later; it tells when it does.  Only what can
be missed counts: withdrawals, and the End-of-RIB that drops what a restart has left.
"""

from collections.abc import Iterable

from pycni.bgp.codec import Sent
from pycni.model.bgp import Family
from pycni.model.network import IPAddress, IPNetwork


class Unsent:
    """Kept for peers whose session is up."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[IPAddress, set[IPNetwork | Family]] = {}

    def begin(self, peer: IPAddress, families: Iterable[Family]) -> None:
        """Note that a session came up: it hears what there is, then End-of-RIB of each family."""
        self._waiting[peer] = set(families)

    def end(self, peer: IPAddress) -> None:
        """Note that a session went down."""
        self._waiting.pop(peer, None)

    def clear(self) -> None:
        """Note that all sessions went down."""
        self._waiting.clear()

    def withdraw(self, prefix: IPNetwork, peers: Iterable[IPAddress]) -> None:
        """Note that a prefix is to be withdrawn from those of these peers that are up."""
        for peer in self._waiting.keys() & set(peers):
            self._waiting[peer].add(prefix)

    def note(self, sent: Sent) -> None:
        """Note what ExaBGP has sent."""
        waiting = self._waiting.get(sent.peer, set())
        waiting.difference_update(sent.withdrawn)
        if sent.end_of_rib is not None:
            waiting.discard(sent.end_of_rib)

    def has_all(self, peer: IPAddress) -> bool:
        """Tell whether a peer is up and was sent everything."""
        return peer in self._waiting and not self._waiting[peer]
