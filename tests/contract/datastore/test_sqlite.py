"""What only a file can suffer: other processes, crashes, full disks, strangers' files."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pycni.datastore import sqlite_file
from pycni.datastore.sqlite import SqliteDatastore, open_sqlite
from pycni.errors import AlreadyExists, Conflict, DatastoreUnusable, NotFound, TryAgain
from pycni.model.resources import Handle, Node

V4 = IPv4Network("192.168.39.192/30")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "pycni.db"


def make(path: Path) -> None:
    asyncio.run(_close(path))


async def _close(path: Path) -> None:
    await (await open_sqlite(path)).close()


def raw(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


async def fill(store: SqliteDatastore) -> None:
    for number in range(1000):
        await store.create(Handle(f"h{number}", ((V4, 1),)))


def test_file_and_directory_are_for_root_only(path: Path) -> None:
    make(path)

    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [entry.name for entry in path.parent.iterdir()] == ["pycni.db"]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("PRAGMA user_version = 2", "has version 2, this program reads 1: use the version"),
        ("PRAGMA application_id = 7", "belongs to another program"),
    ],
)
def test_other_versions_and_owners_are_refused_and_left_alone(
    path: Path, statement: str, words: str
) -> None:
    make(path)
    with closing(raw(path)) as connection:
        connection.execute(statement)
    before = path.read_bytes()

    with pytest.raises(DatastoreUnusable, match=words):
        make(path)

    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"this is no database, but long enough" * 100])
def test_a_file_that_is_no_datastore_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(DatastoreUnusable, match=str(path)):
        make(path)

    assert path.read_bytes() == content


def test_a_damaged_file_says_what_to_do(path: Path) -> None:
    async def story() -> None:
        store = await open_sqlite(path)
        for number in range(50):
            await store.create(Handle(f"h{number}", ((V4, 1),)))
        await store.close()
        damage(path)

        store = await open_sqlite(path)
        with pytest.raises(DatastoreUnusable, match="restore it from a backup"):
            await store.list(Handle)
        await store.close()

    asyncio.run(story())


def test_an_unreadable_body_is_refused_by_name(path: Path) -> None:
    async def story() -> None:
        store = await open_sqlite(path)
        await store.create(Node("n"))
        with closing(raw(path)) as connection:
            connection.execute("UPDATE changes SET body = '{\"spec\": 1}'")
        await store.close()

        store = await open_sqlite(path)
        with pytest.raises(DatastoreUnusable, match="cannot read the stored Node n"):
            await store.get(Node, "n")
        await store.close()

    asyncio.run(story())


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_deleted_or_replaced_in_use_is_refused(path: Path, *, is_replaced: bool) -> None:
    async def story() -> None:
        store = await open_sqlite(path)
        remove(path)
        if is_replaced:
            await asyncio.to_thread(make, path)

        with pytest.raises(DatastoreUnusable, match="deleted or replaced while in use"):
            await store.get(Node, "n")
        with pytest.raises(DatastoreUnusable, match="deleted or replaced while in use"):
            await store.create(Node("n"))
        await store.close()

    asyncio.run(story())


def test_reading_only_works_and_cannot_write(path: Path) -> None:
    async def story() -> None:
        writer = await open_sqlite(path)
        await writer.create(Node("n"))

        reader = await open_sqlite(path, is_read_only=True)

        assert await reader.get(Node, "n") is not None
        with pytest.raises(DatastoreUnusable, match="open for reading only"):
            await reader.create(Node("m"))
        await reader.close()
        await writer.close()

    asyncio.run(story())


def test_reading_only_does_not_create(path: Path) -> None:
    with pytest.raises(NotFound, match="start pycni-agent"):
        asyncio.run(open_sqlite(path, is_read_only=True))

    assert not path.parent.exists()


def test_a_directory_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DatastoreUnusable, match="cannot create the datastore"):
        make(tmp_path / "file" / "pycni.db")


def test_a_full_disk_changes_nothing_and_passes(path: Path) -> None:
    async def story() -> None:
        store = await open_sqlite(path)
        connection = store._connection  # noqa: SLF001 - the only switch that SQLite offers.
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(TryAgain, match=r"cannot create IPAMHandle .*has room"):
            await fill(store)

        connection.execute("PRAGMA max_page_count = 100000")
        listing = await store.list(Handle)
        assert 0 < len(listing.items) < 1000
        await store.create(Handle(f"h{len(listing.items)}"))
        await store.close()

    asyncio.run(story())


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


def test_waiting_for_the_lock_leaves_the_event_loop_free(path: Path) -> None:
    async def story() -> None:
        store = await open_sqlite(path)
        with closing(raw(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.ensure_future(store.create(Node("n")))
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not writing.done()
            other.execute("ROLLBACK")
            await writing
        await store.close()

    asyncio.run(story())


def test_a_cancelled_wait_writes_nothing(path: Path) -> None:
    async def story() -> None:
        store = await open_sqlite(path)
        with closing(raw(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.ensure_future(store.create(Node("n")))
            await asyncio.sleep(0.005)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            other.execute("ROLLBACK")
        assert await store.get(Node, "n") is None
        await store.close()

    asyncio.run(story())


def rows_of(path: Path) -> int:
    with closing(raw(path)) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM changes").fetchone()
    return int(rows)


def test_only_the_current_version_is_kept(path: Path) -> None:
    async def story() -> None:
        store = await open_sqlite(path)
        stored = await store.create(Node("n"))
        for number in range(1, 100):
            stored = await store.update(Node("n", as_number=number), if_revision=stored.revision)

        assert rows_of(path) == 1
        assert await store.get(Node, "n") == stored
        await store.close()

    asyncio.run(story())


def test_deletions_leave_the_log_in_the_end(path: Path) -> None:
    async def story() -> None:
        store = await open_sqlite(path)
        keeper = await store.create(Node("keeper"))
        for number in range(sqlite_file.HISTORY):
            stored = await store.create(Handle(f"h{number}"))
            await store.delete(Handle, f"h{number}", if_revision=stored.revision)

        # Two changes each, of which the deletion is kept while it is among the latest.
        assert sqlite_file.HISTORY // 2 <= rows_of(path) <= sqlite_file.HISTORY // 2 + 64
        assert await store.get(Node, "keeper") == keeper
        await store.close()

    asyncio.run(story())


def test_a_failed_write_changes_nothing(path: Path) -> None:
    async def story() -> None:
        store = await open_sqlite(path)
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
        await store.close()

    asyncio.run(story())


def test_a_write_wakes_only_the_watches_of_its_kind(path: Path) -> None:
    async def story() -> None:
        store, other = await open_sqlite(path), await open_sqlite(path)
        cursor = (await store.list(Node)).cursor
        waiting = [
            asyncio.ensure_future(anext(store.watch(kind, after=cursor))) for kind in (Handle, Node)
        ]
        # What lies before the first look is news to everybody.
        await asyncio.sleep(1.1)
        statements: list[str] = []
        store._connection.set_trace_callback(statements.append)  # noqa: SLF001

        await other.create(Handle("h"))

        assert (await waiting[0]).name == "h"
        await asyncio.sleep(0.02)
        assert [one for one in statements if "name, body FROM changes" in one] == [
            "SELECT seq, name, body FROM changes WHERE seq > 0 AND kind = 'IPAMHandle' ORDER BY seq"
        ]
        waiting[1].cancel()
        await asyncio.wait(waiting)
        await store.close()
        await other.close()

    asyncio.run(story())


def test_a_watch_ends_when_the_file_goes(path: Path) -> None:
    async def story() -> None:
        store = await open_sqlite(path)
        watch = store.watch(Handle, after=(await store.list(Handle)).cursor)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        remove(path)

        with pytest.raises(DatastoreUnusable, match="deleted or replaced while in use"):
            async with asyncio.timeout(10):
                await waiting
        await store.close()

    asyncio.run(story())


WORKER = """
import asyncio, sys
from pathlib import Path
from ipaddress import IPv4Network
from pycni.datastore.sqlite import open_sqlite
from pycni.errors import AlreadyExists, Conflict
from pycni.model.resources import Handle

V4 = IPv4Network("192.168.39.192/30")

async def main(path, rounds):
    store = await open_sqlite(Path(path))
    try:
        await store.create(Handle("counter", ((V4, 0),)))
    except AlreadyExists:
        pass
    done = 0
    while done != rounds:
        stored = await store.get(Handle, "counter")
        count = stored.value.blocks[0][1] + 1
        try:
            await store.update(Handle("counter", ((V4, count),)), if_revision=stored.revision)
        except Conflict:
            continue
        done += 1
        print(count, flush=True)
    await store.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def start_worker(path: Path, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), str(rounds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


async def _count(store: SqliteDatastore) -> int:
    stored = await store.get(Handle, "counter")
    return stored.value.blocks[0][1] if stored else 0


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_processes_that_start_together_lose_no_update(path: Path) -> None:
    workers = [start_worker(path, 100) for _ in range(4)]
    printed = [worker.communicate()[0] for worker in workers]

    counts = sorted(int(line) for text in printed for line in text.split())

    assert counts == list(range(1, 401))
    assert [entry.name for entry in path.parent.iterdir()] == ["pycni.db"]


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_killed_writer_leaves_whole_transactions(path: Path) -> None:
    make(path)
    worker = start_worker(path, -1)
    assert worker.stdout is not None
    for _ in range(200):
        last = int(worker.stdout.readline())
    worker.send_signal(signal.SIGKILL)
    rest = worker.communicate()[0].split()

    async def story() -> None:
        store = await open_sqlite(path)
        # One more may have been committed than could be printed.
        printed = int(rest[-1]) if rest else last
        assert await _count(store) in (printed, printed + 1)
        with pytest.raises(AlreadyExists):
            await store.create(Handle("counter"))
        await store.close()

    asyncio.run(story())


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_watch_hears_another_process(path: Path) -> None:
    async def story() -> None:
        store = await open_sqlite(path)
        watch = store.watch(Handle, after=(await store.list(Handle)).cursor)
        worker = start_worker(path, 20)
        counts = [-1]
        async with asyncio.timeout(20):
            while counts[-1] < 20:
                change = await anext(watch)
                assert change.stored is not None
                counts.append(change.stored.value.blocks[0][1])
        assert counts == sorted(set(counts))
        worker.communicate()
        await store.close()

    asyncio.run(story())


def test_a_lock_held_while_opening_is_waited_for(path: Path) -> None:
    make(path)

    async def story() -> None:
        with closing(raw(path)) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(TryAgain, match="cannot open the datastore"):
                await open_sqlite(path, patience_s=0.05)
        await (await open_sqlite(path)).close()

    asyncio.run(story())


def test_without_inotify_a_watch_looks_by_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "too many inotify instances")

    monkeypatch.setattr("pycni.inotify.DirectoryWatch", refuse)

    async def story() -> None:
        store, other = await open_sqlite(path), await open_sqlite(path)
        watch = store.watch(Handle, after=(await store.list(Handle)).cursor)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        await other.create(Handle("h"))
        async with asyncio.timeout(10):
            assert (await waiting).name == "h"
        await store.close()
        await other.close()

    asyncio.run(story())


def test_the_engine_loads_neither_asyncio_nor_yaml(path: Path) -> None:
    code = (
        "import sys, pycni.datastore.sqlite, pycni.ipam.allocator;"
        "print(*{'asyncio', 'yaml', 'netaddr', 'ctypes'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert found.stdout == "\n"
    assert not path.exists()
