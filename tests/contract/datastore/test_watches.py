"""What a watch tells, in every implementation of the `Datastore` door."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from pycni.datastore import sqlite_bells
from pycni.errors import Conflict, EventsLost, TryAgain
from pycni.model.resources import Handle, Node
from pycni.ports import Change, Cursor, Datastore, Stored
from tests.contract.datastore.conftest import Session
from tests.contract.datastore.stories import T, handle, run, run_two, stop, take


async def follow(watch: AsyncIterator[Change[T]], *, until: Change[T]) -> dict[str, T | None]:
    """Return what each name came to; the changes must come in their order."""
    position = 0
    seen: dict[str, T | None] = {}
    async with asyncio.timeout(25):
        async for change in watch:
            assert int(change.cursor.token) > position
            position = int(change.cursor.token)
            seen[change.name] = change.stored.value if change.stored else None
            if (change.name, change.stored) == (until.name, until.stored):
                break
    return seen


def last(name: str, stored: Stored[T] | None) -> Change[T]:
    return Change(name, stored, Cursor(""))


def test_a_watch_sees_what_later_changes_came_to(session: Session) -> None:
    async def story(one: Datastore, other: Datastore) -> None:
        old = await one.create(handle("old"))
        listing = await one.list(Handle)
        a = await other.create(handle("a"))
        await other.create(Node("of-another-kind"))
        await one.update(handle("a", 2), if_revision=a.revision)
        await other.delete(Handle, "old", if_revision=old.revision)
        watch = one.watch(Handle, after=listing.cursor)

        first = await follow(watch, until=last("old", None))
        b = await other.create(handle("b"))
        second = await follow(watch, until=last("b", b))

        assert first == {"a": handle("a", 2), "old": None}
        assert second == {"b": handle("b")}
        await stop(watch)

    run_two(session, story)


def test_what_was_deleted_and_made_again_is_there(session: Session) -> None:
    async def story(one: Datastore, other: Datastore) -> None:
        watch = one.watch(Handle, after=(await one.list(Handle)).cursor)
        for count in (1, 2):
            stored = await other.create(handle("a", count))
            await other.delete(Handle, "a", if_revision=stored.revision)
        again = await other.create(handle("a", 3))

        assert await follow(watch, until=last("a", again)) == {"a": handle("a", 3)}
        await stop(watch)

    run_two(session, story)


def test_what_was_made_and_deleted_is_gone(session: Session) -> None:
    async def story(one: Datastore, other: Datastore) -> None:
        watch = one.watch(Handle, after=(await one.list(Handle)).cursor)
        stored = await other.create(handle("a"))
        await other.delete(Handle, "a", if_revision=stored.revision)

        assert await follow(watch, until=last("a", None)) == {"a": None}
        await stop(watch)

    run_two(session, story)


def test_a_watch_goes_on_from_any_change(session: Session) -> None:
    async def story(store: Datastore) -> None:
        start = (await store.list(Handle)).cursor
        for name in "abc":
            await store.create(handle(name))
        first = store.watch(Handle, after=start)
        seen = await take(first, 2)
        await stop(first)

        second = store.watch(Handle, after=seen[-1].cursor)

        assert [change.name for change in await take(second, 1)] == ["c"]
        await stop(second)

    run(session, story)


def test_a_waiting_watch_is_woken_by_another_handle(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No look that comes by itself may stand in for the bell.
    monkeypatch.setattr(sqlite_bells, "FALLBACK_S", 3600.0)

    async def story(one: Datastore, other: Datastore) -> None:
        watch = one.watch(Handle, after=(await one.list(Handle)).cursor)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.02)

        await other.create(handle("a"))
        async with asyncio.timeout(20):
            change = await waiting

        assert change.name == "a"
        await stop(watch)

    run_two(session, story)


def test_closing_ends_a_waiting_watch(session: Session) -> None:
    async def story(store: Datastore) -> None:
        watch = store.watch(Handle, after=(await store.list(Handle)).cursor)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)

        await store.close()

        with pytest.raises(TryAgain, match="closed"):
            await waiting

    run(session, story)


def test_a_cursor_older_than_the_log_loses_events(local_session: Session) -> None:
    async def story(store: Datastore) -> None:
        keeper = await store.create(handle("keeper"))
        start = (await store.list(Handle)).cursor
        stored = await store.create(Node("busy"))
        for number in range(2100):
            stored = await store.update(
                replace(stored.value, as_number=number + 1), if_revision=stored.revision
            )

        watch = store.watch(Handle, after=start)
        with pytest.raises(EventsLost, match="list again"):
            await anext(watch)
        # What left the log long ago is still there, and can be changed.
        assert await store.get(Handle, "keeper") == keeper
        await store.update(handle("keeper", 2), if_revision=keeper.revision)
        (again,) = (await store.list(Handle)).items
        assert again.value == handle("keeper", 2)

    run(local_session, story)


@pytest.mark.parametrize("token", ["", "x", "-1", "999999"])
def test_a_cursor_of_another_store_loses_events(session: Session, token: str) -> None:
    async def story(store: Datastore) -> None:
        watch = store.watch(Handle, after=Cursor(token))

        with pytest.raises(EventsLost):
            await anext(watch)

    run(session, story)


def test_no_update_is_lost_in_a_storm(session: Session) -> None:
    async def story(one: Datastore, other: Datastore) -> None:
        await one.create(handle("counter", 0))
        watch = one.watch(Handle, after=(await one.list(Handle)).cursor)

        async def add(store: Datastore) -> None:
            for _ in range(10):
                while True:
                    stored = await store.get(Handle, "counter")
                    assert stored is not None
                    await asyncio.sleep(0)
                    count = stored.value.blocks[0][1] + 1
                    try:
                        await store.update(handle("counter", count), if_revision=stored.revision)
                        break
                    except Conflict:
                        continue

        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(add(one if number % 2 else other))

        final = await one.get(Handle, "counter")
        assert final is not None
        assert final.value == handle("counter", 100)
        assert await follow(watch, until=last("counter", final)) == {"counter": final.value}
        await stop(watch)

    run_two(session, story)
