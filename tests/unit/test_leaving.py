"""The wish to leave is a file: there, or not."""

import os
from pathlib import Path

import pytest

from pycni.errors import PycniError
from pycni.leaving import LeaveWish


def test_a_wish_is_kept_until_it_is_dropped(tmp_path: Path) -> None:
    wish = LeaveWish(tmp_path)
    before = wish.is_there()

    wish.keep()
    wish.keep()
    kept = LeaveWish(tmp_path).is_there()
    wish.drop()
    wish.drop()

    assert (before, kept, wish.is_there()) == (False, True, False)


def test_a_wish_that_is_dropped_stays_so_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else the node would leave by itself at the next boot, when no pod is there to stop it."""
    wish = LeaveWish(tmp_path)
    wish.keep()
    flushed: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: flushed.append((str(Path(f"/proc/self/fd/{fd}").readlink()), wish.is_there())),
    )

    wish.drop()

    assert flushed == [(str(tmp_path), False)]


def test_a_wish_that_can_not_be_dropped_is_told(tmp_path: Path) -> None:
    (tmp_path / "leaving").mkdir()

    with pytest.raises(PycniError, match=r"cannot remove .*/leaving: Is a directory; see to"):
        LeaveWish(tmp_path).drop()
