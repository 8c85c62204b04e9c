"""A datastore of each kind, prepared with pools, for stories about the allocator."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from pycni.datastore.memory import MemoryDatastore
from pycni.datastore.sqlite import open_sqlite
from pycni.model.resources import Resource
from pycni.ports import Datastore

Story = Callable[[Datastore], Awaitable[None]]
Play = Callable[[Sequence[Resource], Story], None]


@pytest.fixture(params=["memory", "sqlite"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    """Return a function that fills a datastore and plays a story on it."""

    async def main(objects: Sequence[Resource], story: Story) -> None:
        datastore: Datastore = (
            MemoryDatastore()
            if request.param == "memory"
            else await open_sqlite(tmp_path / "pycni.db")
        )
        for value in objects:
            await datastore.create(value)
        try:
            await story(datastore)
        finally:
            await datastore.close()

    return lambda objects, story: asyncio.run(main(objects, story))
