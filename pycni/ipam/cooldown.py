"""How long released addresses rest: `ipCooldownSeconds` of the IPAM configuration.

A stale neighbour entry, connection or name may still mean the pod that had an address before.  The
queue of free addresses makes one wait for its turn; a rest makes it wait by the clock, however few
addresses are left.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from pycni.ipam.block import EVERYTHING, Rested
from pycni.ipam.requests import View

_NS = 1_000_000_000


class Cooldown:
    """Tells since when an address rests, and which ones have rested long enough."""

    __slots__ = ("_clock_ns", "_view")

    def __init__(self, view: View, *, clock_ns: Callable[[], int]) -> None:
        self._view = view
        self._clock_ns = clock_ns

    async def resting_since(self) -> str | None:
        """Return what to note beside an address that is released now; None: it needs no rest."""
        # Rounded up, so that none rests shorter than it should.
        is_wanted = (await self._view.config()).cooldown_s > 0
        return _stamp(-(-self._clock_ns() // _NS)) if is_wanted else None

    async def rested(self) -> Rested:
        """Return which releases are long enough ago now."""
        cooldown_s = (await self._view.config()).cooldown_s
        if not cooldown_s:
            return EVERYTHING
        now = self._clock_ns() // _NS
        # One second on: a release is noted rounded up.
        return Rested(by=_stamp(now - cooldown_s), now=_stamp(now + 1))


def _stamp(seconds: int) -> str:
    """Spell a time as Kubernetes does (RFC 3339): texts compare as the times do."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
