"""Hearing of changes in a directory."""

import asyncio
from pathlib import Path

import pytest

from pycni.errors import EventsLost
from pycni.inotify import CREATED, DELETED, DirectoryWatch, FileEvent


def test_changes_are_reported_by_name(tmp_path: Path) -> None:
    with DirectoryWatch(tmp_path, mask=CREATED | DELETED) as watch:
        (tmp_path / "a").touch()
        (tmp_path / "a").unlink()

        assert watch.read() == (FileEvent("a", CREATED), FileEvent("a", DELETED))
        assert watch.read() == ()


def test_a_directory_that_goes_away_is_events_lost(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()

    with DirectoryWatch(directory) as watch:
        directory.rmdir()
        with pytest.raises(EventsLost, match="deleted or moved"):
            watch.read()


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cannot watch .*missing"):
        DirectoryWatch(tmp_path / "missing")


def test_iterating_waits_for_changes(tmp_path: Path) -> None:
    async def story() -> None:
        with DirectoryWatch(tmp_path) as watch:
            batches = aiter(watch)
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            (tmp_path / "a").write_text("x")
            async with asyncio.timeout(5):
                events = await waiting
            assert [event.name for event in events] == ["a"]
            await batches.aclose()  # type: ignore[attr-defined]  # An asynchronous generator.

    asyncio.run(story())


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    watch = DirectoryWatch(tmp_path)
    watch.close()
    watch.close()

    assert watch.fileno() == -1
