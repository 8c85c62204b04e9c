"""The implementations of the `Datastore` door.

To add one: write an `opener` (a function that returns another handle on the same store each time
it is called) and put it into `OPENERS`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from pycni.datastore.memory import MemoryDatastore, MemoryStore
from pycni.datastore.sqlite import open_sqlite
from pycni.ports import Datastore

Opener = Callable[[], Awaitable[Datastore]]


def _memory(_: Path) -> Opener:
    store = MemoryStore()

    async def open_one() -> Datastore:
        return MemoryDatastore(store)

    return open_one


def _sqlite(directory: Path) -> Opener:
    async def open_one() -> Datastore:
        return await open_sqlite(directory / "state" / "pycni.db")

    return open_one


OPENERS = {"memory": _memory, "sqlite": _sqlite}


class Handles:
    """Opens handles on one store and closes them all at the end."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._open: list[Datastore] = []

    async def one(self) -> Datastore:
        datastore = await self._opener()
        self._open.append(datastore)
        return datastore

    async def close(self) -> None:
        for datastore in self._open:
            await datastore.close()


Session = Callable[[], AbstractAsyncContextManager[Handles]]


@pytest.fixture(params=sorted(OPENERS))
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Session:
    """Return a context manager (the event loop is the test's own) that gives handles."""
    opener = OPENERS[request.param](tmp_path)

    @asynccontextmanager
    async def run() -> AsyncIterator[Handles]:
        handles = Handles(opener)
        try:
            yield handles
        finally:
            await handles.close()

    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where an SQLite file may be made."""
    return tmp_path / "state" / "pycni.db"
