"""What only a file can suffer: other versions, strangers, damage, removal."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from pycni.datastore.sqlite import SqliteDatastore, open_sqlite
from pycni.errors import DatastoreUnusable, NotFound
from pycni.model.resources import Handle, Node
from tests.contract.datastore.sqlite_files import make, play, raw, remove
from tests.contract.datastore.stories import handle


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


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
            await store.create(handle(f"h{number}"))
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
    async def story(store: SqliteDatastore) -> None:
        remove(path)
        if is_replaced:
            await asyncio.to_thread(make, path)

        with pytest.raises(DatastoreUnusable, match="deleted or replaced while in use"):
            await store.get(Node, "n")
        with pytest.raises(DatastoreUnusable, match="deleted or replaced while in use"):
            await store.create(Node("n"))

    play(path, story)


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
