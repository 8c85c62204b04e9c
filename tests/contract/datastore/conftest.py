"""The implementations of the `Datastore` door.

To add one: write an `opener` (a function that returns another handle on the same store each time
it is called) and put it into `OPENERS`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from pycni.datastore.kubernetes import open_kubernetes
from pycni.datastore.kubernetes_api import Access
from pycni.datastore.kubernetes_objects import PATHS
from pycni.datastore.memory import MemoryDatastore, MemoryStore
from pycni.datastore.sqlite import open_sqlite
from pycni.ports import Datastore
from tests.kube.apiserver import ApiServer, apiserver

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
"""Those that need nothing but this machine, and that do several writes as one."""
KUBERNETES = pytest.param("kubernetes", marks=pytest.mark.kubernetes)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Run an API server; tests share it, and find it empty."""
    with apiserver(tmp_path_factory.mktemp("apiserver")) as made:
        yield made


@pytest.fixture
def cluster(server: ApiServer) -> ApiServer:
    """Hand out the API server without any object of ours."""
    for path in PATHS.values():
        server.ask("DELETE", path)
    return server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ApiServer]:
    """Run an API server that a test may stop and start."""
    with apiserver(tmp_path / "apiserver") as made:
        yield made


def kubernetes_opener(server: ApiServer) -> Opener:
    """Open handles on what an API server holds."""

    async def open_one() -> Datastore:
        return await open_kubernetes(Access(server.kubeconfig))

    return open_one


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


@pytest.fixture(params=[*sorted(OPENERS), KUBERNETES])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Session:
    """Return a context manager (the event loop is the test's own) that gives handles."""
    if request.param == "kubernetes":
        return handles_by(kubernetes_opener(request.getfixturevalue("cluster")))
    return handles_by(OPENERS[request.param](tmp_path))


@pytest.fixture(params=sorted(OPENERS))
def local_session(request: pytest.FixtureRequest, tmp_path: Path) -> Session:
    """Return the same for the implementations that are this machine's alone."""
    return handles_by(OPENERS[request.param](tmp_path))


def handles_by(opener: Opener) -> Session:
    """Return a context manager that gives handles, and closes them."""

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
