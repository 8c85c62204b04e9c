"""Positions in a log of changes, whose numbers ascend: pure."""

from pycni.errors import EventsLost
from pycni.ports import Cursor


def parse_cursor(cursor: Cursor) -> int:
    """Return the position that a cursor stands for; raise `EventsLost` for another store's."""
    if not cursor.token.isdecimal():
        raise EventsLost(f"cannot watch from {cursor.token!r}: list again, then watch from there")
    return int(cursor.token)


def check_cursor(position: int, *, head: int, history: int) -> None:
    """Raise `EventsLost` when the log does not reach back to a position (or never was there).

    Of a log whose numbers ascend without gaps.
    """
    if not head - history <= position <= head:
        raise EventsLost(
            f"cannot watch from change {position}: the log holds {max(head - history, 0)}"
            f" to {head}; list again, then watch from there"
        )
