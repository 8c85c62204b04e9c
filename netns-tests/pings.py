"""What ping said: which of its requests were answered, and which not.

Its output goes to a file: a pipe that nobody reads is full after a thousand answers, and then ping
sends nothing more.
"""

import re
from dataclasses import dataclass
from pathlib import Path

_ANSWER = re.compile(r"icmp_seq=(\d+) ttl=")
_SUMMARY = re.compile(r"(\d+) packets transmitted, ")


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of a stream: `missing` are the numbers, from 1, of what was not answered."""

    sent: int
    missing: tuple[int, ...]

    @property
    def lost(self) -> int:
        """Return how many requests were not answered."""
        return len(self.missing)


def loss_of(log: Path, *, counted: int | None = None) -> Loss:
    """Return what was lost of a ping that has come to its end by itself.

    Only the first `counted` requests count, where it is given: ping waits for the answers to its
    last ones no longer than twice the longest that it has seen.
    """
    said = log.read_text(encoding="ascii")
    summary = _SUMMARY.search(said)
    if summary is None:
        raise AssertionError(f"no summary of ping: {said!r}")
    sent = int(summary[1])
    return _loss(sent if counted is None else min(sent, counted), said)


def gaps_of(log: Path) -> Loss:
    """Return what was lost of a ping that was ended: its last request may have had no time."""
    said = log.read_text(encoding="ascii")
    answered = _answered(said)
    if not answered:
        raise AssertionError(f"ping had no answer at all: {said!r}")
    return _loss(max(answered), said)


def _answered(said: str) -> set[int]:
    return {int(number) for number in _ANSWER.findall(said)}


def _loss(sent: int, said: str) -> Loss:
    answered = _answered(said)
    return Loss(sent, tuple(n for n in range(1, sent + 1) if n not in answered))
