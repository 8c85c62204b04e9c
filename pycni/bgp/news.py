"""What BGP told lately, for people who watch it.

Pure.  It is bounded twice, because peers have influence on its size: by the number of entries, and
by the prefixes that are named of one UPDATE.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from pycni.model.bgp import (
    BgpEvent,
    EndOfRib,
    Path,
    PathsChanged,
    PeerDown,
    PeerOpened,
    PeerUp,
    SpeakerLost,
    SpeakerUp,
)
from pycni.model.network import IPAddress, IPNetwork

MAX_ITEMS = 1000
NAMED = 3
"""How many prefixes of one UPDATE are named."""
_Said = str | Path | IPNetwork
"""A sentence, or a path that is announced, or a prefix that is withdrawn."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that happened: its number, when (a monotonic clock's seconds), with whom."""

    number: int
    at: float
    peer: IPAddress | None
    what: str


class News:
    """The latest items, each with a number that grows by one."""

    def __init__(self) -> None:
        # Hardly anything of it is ever read, so it is put into words by whoever reads it.
        self._items: deque[tuple[int, float, IPAddress | None, _Said]] = deque(maxlen=MAX_ITEMS)
        self._count = 0

    def note(self, event: BgpEvent, *, now: float) -> None:
        """Remember an event, if it says something to people."""
        peer = None if isinstance(event, SpeakerUp | SpeakerLost) else event.peer
        for said in _sayings(event):
            self._count += 1
            self._items.append((self._count, now, peer, said))

    def items(self) -> tuple[Item, ...]:
        """Return what is remembered, oldest first."""
        return tuple(Item(n, at, peer, _words(said)) for n, at, peer, said in self._items)


def _words(said: _Said) -> str:
    match said:
        case str():
            return said
        case Path():
            return f"announces {said.nlri} by {said.next_hop}{_attributes(said)}"
        case _:
            return f"withdraws {said}"


def _sayings(event: BgpEvent) -> Iterator[_Said]:
    match event:
        case SpeakerUp():
            yield "ExaBGP begins"
        case SpeakerLost():
            yield f"ExaBGP ended: {event.reason}"
        case PeerUp():
            yield "is up"
        case PeerDown():
            yield f"is down: {event.reason}"
        case EndOfRib():
            yield f"has told all of {event.family.value}"
        case PathsChanged():
            yield from _of_update(event)
        case PeerOpened():
            return  # it comes up right after that, or goes down
        case _:
            assert_never(event)


def _of_update(event: PathsChanged) -> Iterator[_Said]:
    yield from event.announced[:NAMED]
    yield from _rest("announces", len(event.announced) - NAMED)
    yield from event.withdrawn[:NAMED]
    yield from _rest("withdraws", len(event.withdrawn) - NAMED)


def _rest(verb: str, more: int) -> Iterator[str]:
    if more > 0:
        yield f"{verb} {more} more"


def _attributes(path: Path) -> str:
    words = []
    if path.as_path:
        words.append(f"AS path {' '.join(map(str, path.as_path))}")
    if path.communities:
        words.append(f"communities {' '.join(sorted(path.communities))}")
    return f" ({', '.join(words)})" if words else ""
