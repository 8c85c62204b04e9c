"""Writing into the file: full disks, locks of others, and what is kept of the past."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pycni.datastore import sqlite_file
from pycni.datastore.sqlite import SqliteDatastore, open_sqlite
from pycni.errors import AlreadyExists, Conflict, NotFound, TryAgain
from pycni.model.resources import Handle, Node
from tests.contract.datastore.sqlite_files import make, play, raw
from tests.contract.datastore.stories import handle


async def fill(store: SqliteDatastore) -> None:
    for number in range(1000):
        await store.create(handle(f"h{number}"))


def test_a_full_disk_changes_nothing_and_passes(path: Path) -> None:
    async def story(store: SqliteDatastore) -> None:
        connection = store._connection  # noqa: SLF001 - the only switch that SQLite offers.
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(TryAgain, match=r"cannot create IPAMHandle .*has room"):
            await fill(store)

        connection.execute("PRAGMA max_page_count = 100000")
        listing = await store.list(Handle)
        assert 0 < len(listing.items) < 1000
        await store.create(Handle(f"h{len(listing.items)}"))

    play(path, story)


def test_a_lock_held_too_long_is_try_again(path: Path) -> None:
    async def story() -> None:
        store = await open_sqlite(path, patience_s=0.05)
        with closing(raw(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(TryAgain, match="other writers held it"):
                await store.create(Node("n"))
            other.execute("ROLLBACK")
        await store.create(Node("n"))
        await store.close()

    asyncio.run(story())


def locked(path: Path) -> sqlite3.Connection:
    """Lock a file against all others, readers included, until the connection is closed."""
    other = raw(path)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    return other


def test_a_lock_held_while_opening_is_waited_for(path: Path) -> None:
    make(path)

    async def story() -> None:
        with closing(locked(path)):
            opening = asyncio.ensure_future(open_sqlite(path))
            await asyncio.sleep(0)  # lets it go as far as it gets without waiting
            assert not opening.done()
        store = await opening
        await store.create(Node("n"))
        await store.close()

    asyncio.run(story())


def test_a_lock_held_too_long_while_opening_is_try_again(path: Path) -> None:
    make(path)

    async def story() -> None:
        unopened = pytest.raises(TryAgain, match="cannot open the datastore")
        with closing(locked(path)), unopened:
            await open_sqlite(path, patience_s=0.05)
        await (await open_sqlite(path)).close()

    asyncio.run(story())


def test_waiting_for_the_lock_leaves_the_event_loop_free(path: Path) -> None:
    async def story(store: SqliteDatastore) -> None:
        with closing(raw(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.ensure_future(store.create(Node("n")))
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not writing.done()
            other.execute("ROLLBACK")
            await writing

    play(path, story)


def test_a_cancelled_wait_writes_nothing(path: Path) -> None:
    async def story(store: SqliteDatastore) -> None:
        with closing(raw(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.ensure_future(store.create(Node("n")))
            await asyncio.sleep(0.005)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            other.execute("ROLLBACK")
        assert await store.get(Node, "n") is None

    play(path, story)


def rows_of(path: Path) -> int:
    with closing(raw(path)) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM changes").fetchone()
    return int(rows)


def test_only_the_current_version_is_kept(path: Path) -> None:
    async def story(store: SqliteDatastore) -> None:
        stored = await store.create(Node("n"))
        for number in range(1, 100):
            stored = await store.update(Node("n", as_number=number), if_revision=stored.revision)

        assert rows_of(path) == 1
        assert await store.get(Node, "n") == stored

    play(path, story)


def test_deletions_leave_the_log_in_the_end(path: Path) -> None:
    async def story(store: SqliteDatastore) -> None:
        keeper = await store.create(Node("keeper"))
        for number in range(sqlite_file.HISTORY):
            stored = await store.create(Handle(f"h{number}"))
            await store.delete(Handle, f"h{number}", if_revision=stored.revision)

        # Two changes each, of which the deletion is kept while it is among the latest.
        assert sqlite_file.HISTORY // 2 <= rows_of(path) <= sqlite_file.HISTORY // 2 + 64
        assert await store.get(Node, "keeper") == keeper

    play(path, story)


def test_a_failed_write_changes_nothing(path: Path) -> None:
    async def story(store: SqliteDatastore) -> None:
        first = await store.create(Node("n"))
        second = await store.update(Node("n", as_number=1), if_revision=first.revision)

        with pytest.raises(AlreadyExists):
            await store.create(Node("n"))
        with pytest.raises(Conflict):
            await store.update(Node("n", as_number=2), if_revision=first.revision)
        with pytest.raises(Conflict):
            await store.delete(Node, "n", if_revision=first.revision)
        with pytest.raises(NotFound):
            await store.delete(Node, "m", if_revision=second.revision)

        assert rows_of(path) == 1
        assert await store.get(Node, "n") == second

    play(path, story)
