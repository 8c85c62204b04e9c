"""Watching the file: who is woken, by what, and when it is gone."""

import asyncio
from pathlib import Path

import pytest

from pycni.datastore.sqlite import SqliteDatastore, open_sqlite
from pycni.errors import DatastoreUnusable
from pycni.model.resources import Handle, Node
from tests.contract.datastore.sqlite_files import play, remove


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
    async def story(store: SqliteDatastore) -> None:
        watch = store.watch(Handle, after=(await store.list(Handle)).cursor)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        remove(path)

        with pytest.raises(DatastoreUnusable, match="deleted or replaced while in use"):
            async with asyncio.timeout(20):
                await waiting

    play(path, story)


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
        async with asyncio.timeout(20):
            assert (await waiting).name == "h"
        await store.close()
        await other.close()

    asyncio.run(story())
