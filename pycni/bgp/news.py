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
from pycni.model.network import IPAddress

MAX_ITEMS = 1000
NAMED = 3
"""How many prefixes of one UPDATE are named."""


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
        self._items: deque[Item] = deque(maxlen=MAX_ITEMS)
        self._count = 0

    def note(self, event: BgpEvent, *, now: float) -> None:
        """Remember an event, if it says something to people."""
        peer = None if isinstance(event, SpeakerUp | SpeakerLost) else event.peer
        for what in _words(event):
            self._count += 1
            self._items.append(Item(self._count, now, peer, what))

    def items(self) -> tuple[Item, ...]:
        """Return what is remembered, oldest first."""
        return tuple(self._items)


def _words(event: BgpEvent) -> Iterator[str]:
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


def _of_update(event: PathsChanged) -> Iterator[str]:
    for path in event.announced[:NAMED]:
        yield f"announces {path.nlri} by {path.next_hop}{_attributes(path)}"
    yield from _rest("announces", len(event.announced) - NAMED)
    for nlri in event.withdrawn[:NAMED]:
        yield f"withdraws {nlri}"
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
