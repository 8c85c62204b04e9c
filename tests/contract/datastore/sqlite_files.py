"""SQLite files: made, played on, and looked into past the datastore."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

from pycni.datastore.sqlite import SqliteDatastore, open_sqlite

Story = Callable[[SqliteDatastore], Awaitable[None]]


def play(path: Path, story: Story) -> None:
    """Play a story on the store in a file, which is made when it is absent."""

    async def main() -> None:
        store = await open_sqlite(path)
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(main())


def make(path: Path) -> None:
    asyncio.run(_close(path))


async def _close(path: Path) -> None:
    await (await open_sqlite(path)).close()


def raw(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def remove(path: Path) -> None:
    path.unlink()
