"""Which ends of VXLAN tunnels other nodes are told of: those whose device serves.

Others send to an address inside a tunnel as soon as the Node object names it, and what they send to
a node without the device is lost.  No input or output; time is an argument.
"""

from collections.abc import Mapping

from pycni.model.tunnels import VXLAN_DEVICES, TunnelKind

GRACE_S = 10.0
"""How long a device may be away before others are told: one that is made anew is back at once."""


class TunnelEnds:
    """Knows since when a device that is wanted doesn't serve; nothing of those never looked at."""

    def __init__(self) -> None:
        self._away_since: dict[TunnelKind, float | None] = {}

    def look_at(self, devices: Mapping[TunnelKind, bool], *, now: float) -> bool:
        """Learn which of the wanted devices serve; return whether one has begun or ceased to."""
        before, self._away_since = self._away_since, {}
        for kind, serves in devices.items():
            since = before.get(kind)
            self._away_since[kind] = None if serves else now if since is None else since
        return self._away_since != before

    def deadline(self, *, now: float) -> float | None:
        """Return when the next device has been away for too long; None when none is on its way."""
        ends = (since + GRACE_S for since in self._away_since.values() if since is not None)
        return min((end for end in ends if end > now), default=None)

    def may_tell(self, kind: TunnelKind, *, is_told: bool, now: float) -> bool:
        """Tell whether the Node object may name a node's address in a tunnel.

        One that it names already, and that nobody has looked at (yet), stays: an agent that
        restarts, or a device that is made anew, is no news to others.
        """
        away_since = self._away_since.get(kind)
        if away_since is None:
            return is_told or kind in self._away_since
        return is_told and now < away_since + GRACE_S

    def complaint(self, *, now: float) -> str:
        """Say which devices don't serve, and what follows; "" when all do."""
        away = [
            VXLAN_DEVICES[kind]
            for kind, since in self._away_since.items()
            if since is not None and now >= since + GRACE_S
        ]
        if not away:
            return ""
        return (
            f"{' and '.join(away)} can't be used, so other nodes are not told of this node's end of"
            " the tunnel, and pods there and here can't talk: `pycnictl status` says what the"
            " kernel refused"
        )
