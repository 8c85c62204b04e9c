"""Compare routing tables with their prediction, and lay text out.  Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_KERNELS_OWN = ("fe80::/64 ", "::1 dev lo ", "multicast ")
"""How the lines begin that every interface with IPv6 brings; nobody predicts them."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A node's table as `ip route` prints it, beside what was predicted; blanks collapsed."""

    node: str
    actual: tuple[str, ...]
    predicted: tuple[str, ...]
    family: int = 4

    @property
    def title(self) -> str:
        """Return the command that prints the table."""
        return "ip route" if self.family == 4 else "ip -6 route"

    @property
    def is_equal(self) -> bool:
        """Say whether both have the same lines in the same order."""
        return self.actual == self.predicted

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the predicted lines that are not there."""
        return tuple(line for line in self.predicted if line not in self.actual)

    @property
    def surplus(self) -> tuple[str, ...]:
        """Return the lines that nobody predicted."""
        return tuple(line for line in self.actual if line not in self.predicted)

    @property
    def verdict(self) -> str:
        """Say in a few words how the two compare."""
        if self.is_equal:
            return f"equals the prediction ({len(self.actual)} lines)"
        if not self.missing and not self.surplus:
            return "DIFFERS from the prediction: same lines, another order"
        return (
            f"DIFFERS from the prediction: {len(self.missing)} missing,"
            f" {len(self.surplus)} unexpected"
        )


def collapse(text: str) -> tuple[str, ...]:
    """Return the lines of a command's output, blanks collapsed, empty lines left out."""
    return tuple(" ".join(line.split()) for line in text.splitlines() if line.strip())


def compare(node: str, *, output: str, predicted: Iterable[str], family: int = 4) -> Comparison:
    """Set `ip route`'s output against the predicted lines."""
    actual = collapse(output)
    if family == 6:
        actual = tuple(line for line in actual if not line.startswith(_KERNELS_OWN))
    wanted = tuple(" ".join(line.split()) for line in predicted)
    return Comparison(node, actual, wanted, family)


def side_by_side(comparison: Comparison, *, width: int) -> list[str]:
    """Render the table beside its prediction.

    In two columns where the terminal is wide enough; otherwise one, with `=` for a line that is in
    both, `-` for one that is missing, `+` for one that nobody predicted.
    """
    left = max([len(comparison.title), *map(len, comparison.actual)])
    right = max([len("predicted"), *map(len, comparison.predicted)])
    if left + right + 7 <= width:
        return _columns(comparison, left)
    lines = [f"  = {line}" if line in comparison.predicted else f"  + {line}"
             for line in comparison.actual]  # fmt: skip
    return [*lines, *(f"  - {line}" for line in comparison.missing)]


def _columns(comparison: Comparison, left: int) -> list[str]:
    lines = [f"  {comparison.title:{left}}   predicted"]
    rows = max(len(comparison.actual), len(comparison.predicted))
    for row in range(rows):
        have = comparison.actual[row] if row < len(comparison.actual) else ""
        want = comparison.predicted[row] if row < len(comparison.predicted) else ""
        lines.append(f"  {have:{left}} {'=' if have == want else '!'} {want}")
    return lines


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows out in columns as narrow as they go."""
    widths = (
        [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    )
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
