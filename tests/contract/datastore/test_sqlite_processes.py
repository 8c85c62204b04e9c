"""Several processes on one file: no update is lost, whoever is killed."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pycni.datastore.sqlite import SqliteDatastore
from pycni.errors import AlreadyExists
from pycni.model.resources import Handle
from tests.contract.datastore.sqlite_files import make, play

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


def our_environment() -> dict[str, str]:
    """Return an environment in which another Python finds what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def start_worker(path: Path, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), str(rounds)],
        stdout=subprocess.PIPE,
        text=True,
        env=our_environment(),
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

    async def story(store: SqliteDatastore) -> None:
        # One more may have been committed than could be printed.
        printed = int(rest[-1]) if rest else last
        assert await _count(store) in (printed, printed + 1)
        with pytest.raises(AlreadyExists):
            await store.create(Handle("counter"))

    play(path, story)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_watch_hears_another_process(path: Path) -> None:
    async def story(store: SqliteDatastore) -> None:
        watch = store.watch(Handle, after=(await store.list(Handle)).cursor)
        worker = start_worker(path, 20)
        counts = [-1]
        async with asyncio.timeout(40):
            while counts[-1] < 20:
                change = await anext(watch)
                assert change.stored is not None
                counts.append(change.stored.value.blocks[0][1])
        assert counts == sorted(set(counts))
        worker.communicate()

    play(path, story)


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
        env=our_environment(),
    )

    assert found.stdout == "\n"
    assert not path.exists()
