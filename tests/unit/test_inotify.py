"""Hearing of changes in a directory."""

import asyncio
import os
import resource
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


def test_a_limit_is_told_with_what_raises_it(tmp_path: Path) -> None:
    with DirectoryWatch(tmp_path):  # all that it needs is loaded now
        pass
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError, match="cannot watch") as caught:
            DirectoryWatch(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert "sysctl -w fs.inotify.max_user_instances=1024" in str(caught.value)


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


def test_watch_closed_in_the_middle_leaves_nothing_in_the_event_loop(tmp_path: Path) -> None:
    """The next watch gets the same descriptor number, and must hear all the same."""

    async def story() -> None:
        numbers = []
        for name in ("one", "two"):
            with DirectoryWatch(tmp_path) as watch:
                numbers.append(watch.fileno())
                (tmp_path / name).write_text("x")
                async with asyncio.timeout(5):
                    async for events in watch:
                        assert [event.name for event in events] == [name]
                        break
        assert numbers[0] == numbers[1]

    asyncio.run(story())
