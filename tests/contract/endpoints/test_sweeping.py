"""What a crash leaves of a file that was being written goes, and nothing else does."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pycni.endpoints import FileEndpoints
from tests import virtual_time
from tests.contract.endpoints.samples import DEBT, KEY, RECORD, Directories, keyed, other


def files(directories: Directories) -> list[str]:
    return sorted(
        p.name for d in directories for p in d.rglob("*") if p.suffix in {".json", ".new"}
    )


@pytest.fixture
def leftover(endpoints: FileEndpoints) -> Path:
    """Leave half a record, as a crash on the way to its place does."""
    left = endpoints.directory / f"{endpoints.file_name(KEY)}.new"
    left.write_text('{"key"')
    return left


def test_what_a_crash_left_goes(
    endpoints: FileEndpoints, directories: Directories, leftover: Path
) -> None:
    (directories[1] / "journal" / leftover.name).write_text("{")

    endpoints.sweep()

    assert files(directories) == []


def test_what_an_older_version_left_goes(
    endpoints: FileEndpoints, directories: Directories, leftover: Path
) -> None:
    leftover.rename(f"{str(leftover).removesuffix('.new')}.4711.new")

    endpoints.sweep()

    assert files(directories) == []


def test_whoever_may_be_writing_is_not_disturbed(
    endpoints: FileEndpoints, directories: Directories, leftover: Path
) -> None:
    async def story() -> None:
        for holder in (endpoints, other(directories)):
            async with holder.lock(KEY, timeout_s=0):
                endpoints.sweep()
        seen.extend(files(directories))
        endpoints.sweep()

    seen: list[str] = []
    virtual_time.run(story())

    assert seen == [leftover.name]
    assert files(directories) == []


def test_a_swept_key_can_be_locked(endpoints: FileEndpoints, leftover: Path) -> None:
    async def story() -> None:
        async with endpoints.lock(KEY, timeout_s=0):
            pass

    endpoints.sweep()

    virtual_time.run(story())
    assert not leftover.exists()


@pytest.mark.parametrize("name", ["notes.new", "é.json.new", ".new", "g" * 40 + ".json.new"])
def test_records_debts_and_what_is_not_ours_stay(
    endpoints: FileEndpoints, directories: Directories, name: str
) -> None:
    endpoints.put(RECORD)
    endpoints.journal(DEBT)
    (endpoints.directory / name).touch()
    before = files(directories)

    endpoints.sweep()

    assert files(directories) == before
    assert (endpoints.list(), endpoints.pending()) == ([RECORD], [DEBT])


@pytest.mark.usefixtures("leftover")
def test_the_next_write_takes_the_place_of_what_a_crash_left(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    endpoints.put(RECORD)

    assert endpoints.get(KEY) == RECORD
    assert files(directories) == [endpoints.file_name(KEY)]


def test_with_a_record_goes_what_a_crash_left_of_it(
    endpoints: FileEndpoints, directories: Directories, leftover: Path
) -> None:
    endpoints.put(RECORD)
    os.link(endpoints.directory / endpoints.file_name(KEY), leftover)
    endpoints.put(replace(RECORD, key=keyed("other")))

    endpoints.remove(KEY)

    assert files(directories) == [endpoints.file_name(keyed("other"))]


def test_what_cannot_be_removed_is_told_and_holds_no_lock(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    stuck = directories[1] / "journal" / f"{endpoints.file_name(KEY)}.new"
    stuck.mkdir()

    async def story() -> None:
        async with other(directories).lock(KEY, timeout_s=0):
            pass

    (problem,) = endpoints.sweep()

    assert str(stuck) in problem
    virtual_time.run(story())
