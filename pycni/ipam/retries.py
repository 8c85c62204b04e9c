"""Bounded retries with back-off around compare-and-swap, counted for the metrics."""

import time
from collections.abc import Awaitable, Callable

from pycni.errors import TryAgain

# Calico's number; with the pauses below it amounts to a few seconds.
ATTEMPTS = 100
_LONGEST_PAUSE_S = 0.05

EVENTS = (
    "address-given",
    "address-released",
    "block-written",  # fewer than addresses given and released, where several share one
    "conflict",
    "claim",
    "claim-conflict",
    "borrow",
    "collected",  # by the janitor: an endpoint, address, or block of this node or of a gone one
)

Sleep = Callable[[float], Awaitable[None]]
Observe = Callable[[str], None]


async def asyncio_sleep(seconds: float) -> None:
    """Sleep; asyncio is loaded only when somebody has to."""
    import asyncio

    await asyncio.sleep(seconds)


def observe_nothing(event: str) -> None:
    """Count nothing: for callers without metrics."""
    del event


class Retries:
    """Counts and spaces the attempts of all loops of one allocator."""

    __slots__ = ("_observe", "_sleep")

    def __init__(self, *, sleep: Sleep = asyncio_sleep, observe: Observe = observe_nothing) -> None:
        self._sleep = sleep
        self._observe = observe

    def count(self, event: str) -> None:
        """Count an event, one of `EVENTS`."""
        self._observe(event)

    async def pause(self, attempt: int) -> None:
        """Wait before a repeated attempt; the first one goes ahead at once."""
        if attempt == 0:
            return
        self._observe("conflict")
        # The clock's last digits part two nodes that run into each other again and again.
        jitter = 0.5 + time.monotonic_ns() % 1000 / 1000
        await self._sleep(jitter * min(0.0005 * 2 ** min(attempt, 10), _LONGEST_PAUSE_S))


def gave_up(doing: str) -> TryAgain:
    """Return the error for a loop that ran out of attempts."""
    return TryAgain(
        f"cannot {doing}: {ATTEMPTS} attempts met other writers;"
        " too many requests at once, try again"
    )
