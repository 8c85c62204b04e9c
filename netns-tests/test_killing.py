"""What ends processes at a system call: which calls count, and that none that matters is missed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import killing

pytestmark = [pytest.mark.netns]

NAMES = ("one", "two", "three")


def work(directory: Path) -> Callable[[], int]:
    """Make files and look about between them, as programs do."""

    def make_files() -> int:
        for name in NAMES:
            for _ in range(5):
                directory.stat()
                os.getuid()
            (directory / name).mkdir()
            os.close(os.open(directory / name, os.O_RDONLY))
        return 0

    return make_files


def states(directory: Path) -> list[list[str]]:
    """Return what a death at each call left, up to the run that lived."""
    found = []
    for at in range(1, 200):
        ran = killing.run_killed(lambda: None, work(directory), at=at)
        found.append(sorted(path.name for path in directory.iterdir()))
        for path in directory.iterdir():
            path.rmdir()
        if not ran.was_killed:
            return found
    raise AssertionError("no run came to its end")


def test_a_death_at_each_call_that_changes_something_shows_every_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killing, "_COUNTS_ALL", False)
    few = states(tmp_path)
    monkeypatch.setattr(killing, "_COUNTS_ALL", True)
    all_of_them = states(tmp_path)

    every = [sorted(NAMES[:number]) for number in range(len(NAMES) + 1)]
    assert [one for i, one in enumerate(few) if one not in few[:i]] == every
    assert [one for i, one in enumerate(all_of_them) if one not in all_of_them[:i]] == every
    assert len(few) < len(all_of_them) / 4


def test_writing_counts_and_reading_does_not(tmp_path: Path) -> None:
    def write() -> int:
        os.close(os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT))
        return 0

    def read() -> int:
        os.close(os.open(tmp_path, os.O_RDONLY))
        return 0

    wrote, looked = (killing.run_killed(lambda: None, one, at=1000).calls for one in (write, read))

    assert wrote == looked + 1
