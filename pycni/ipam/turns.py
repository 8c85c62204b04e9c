"""Turns at a block, or at claiming one: within a process one at a time, first come first served.

Where a datastore takes milliseconds for a write, requests that read one block at the same moment
would let all but one of their writes fail, again and again.  Other processes are not held up: them
the revisions keep apart.
"""

from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio


T = TypeVar("T", bound=Hashable)


class Turns(Generic[T]):
    """Who has the turn at each thing, and who waits for it."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # A thing whose turn somebody has stands here, even while nobody waits.
        self._waiting: dict[T, deque[asyncio.Future[None]]] = {}

    def at(self, thing: T) -> "Turn[T]":
        """Return a context manager that has the turn at a thing."""
        return Turn(self, thing)

    async def take(self, thing: T) -> None:
        """Wait for the turn, which is there at once where nobody has it."""
        waiting = self._waiting.get(thing)
        if waiting is None:
            self._waiting[thing] = deque()
            return
        import asyncio  # late: an engine that serves one request alone never waits

        place = asyncio.get_running_loop().create_future()
        waiting.append(place)
        try:
            await place
        except BaseException:
            if not place.cancel() and not place.cancelled():
                self.give(thing)  # it came at the moment at which nobody wanted it any more
            raise

    def give(self, thing: T) -> None:
        """Give the turn to who has waited longest."""
        waiting = self._waiting[thing]
        while waiting:
            place = waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        del self._waiting[thing]


class Turn(Generic[T]):
    """One turn, while it is waited for or had."""

    __slots__ = ("_thing", "_turns")

    def __init__(self, turns: Turns[T], thing: T) -> None:
        self._turns = turns
        self._thing = thing

    async def __aenter__(self) -> None:
        await self._turns.take(self._thing)

    async def __aexit__(self, *_: object) -> None:
        self._turns.give(self._thing)
