"""The datastore in memory: the reference that the others are compared with, and a fake for tests.

Handles made from one `MemoryStore` see each other's writes, as processes sharing a file would.
No method ever suspends, except a watch that waits.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pycni.datastore.cursors import check_cursor, parse_cursor
from pycni.datastore.singly import write_one
from pycni.errors import AlreadyExists, Conflict, NotFound, PycniError, TryAgain
from pycni.model.resources import Resource, resource_name
from pycni.model.schema import KIND_NAMES
from pycni.ports import (
    Change,
    Cursor,
    Listing,
    Revision,
    Stored,
    Write,
)

T = TypeVar("T", bound=Resource)

DEFAULT_HISTORY = 2048


@dataclass(frozen=True, slots=True)
class _Entry:
    sequence: int
    kind: type[object]
    name: str
    value: Resource | None


@dataclass(slots=True)
class MemoryStore:
    """What all handles share: the objects, and the last `history` changes."""

    history: int = DEFAULT_HISTORY
    head: int = 0
    objects: dict[tuple[type[object], str], _Entry] = field(default_factory=dict)
    log: deque[_Entry] = field(default_factory=deque)
    bells: set[asyncio.Event] = field(default_factory=set)

    def write(self, kind: type[object], name: str, *, value: Resource | None) -> Revision:
        """Record one change; None deletes."""
        self.head += 1
        entry = _Entry(self.head, kind, name, value)
        if value is None:
            del self.objects[kind, name]
        else:
            self.objects[kind, name] = entry
        self.log.append(entry)
        while len(self.log) > self.history:
            self.log.popleft()
        for bell in self.bells:
            bell.set()
        return Revision(str(self.head))


class MemoryDatastore:
    """One handle on a `MemoryStore`; see `pycni.ports.Datastore`."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self._store = MemoryStore() if store is None else store
        self._is_closed = False

    async def get(self, kind: type[T], name: str) -> Stored[T] | None:
        """Return the object, or None."""
        self._check_open()
        entry = self._store.objects.get((kind, name))
        return None if entry is None else _stored(entry, kind=kind)

    async def list(self, kind: type[T]) -> Listing[T]:
        """Return all objects of a kind, in the order of their names."""
        self._check_open()
        entries = [entry for entry in self._store.objects.values() if entry.kind is kind]
        entries.sort(key=lambda entry: entry.name)
        return Listing(
            items=tuple(_stored(entry, kind=kind) for entry in entries),
            cursor=Cursor(str(self._store.head)),
        )

    async def create(self, value: T) -> Stored[T]:
        """Create an object; raise `AlreadyExists` when one of that name is there."""
        self._check_open()
        name = resource_name(value)
        if (type(value), name) in self._store.objects:
            raise AlreadyExists(f"cannot create {KIND_NAMES[type(value)]} {name}: it exists")
        return Stored(value, self._store.write(type(value), name, value=value))

    async def update(self, value: T, *, if_revision: Revision) -> Stored[T]:
        """Replace an object; raise `Conflict` when its revision differs, `NotFound` when gone."""
        self._check_open()
        name = resource_name(value)
        self._compare(type(value), name, if_revision, verb="update")
        return Stored(value, self._store.write(type(value), name, value=value))

    async def delete(self, kind: type[T], name: str, *, if_revision: Revision) -> None:
        """Delete an object; raise `Conflict` when its revision differs, `NotFound` when gone."""
        self._check_open()
        self._compare(kind, name, if_revision, verb="delete")
        self._store.write(kind, name, value=None)

    async def write(self, writes: Sequence[Write]) -> Sequence[Stored[Any] | None]:
        """Do several writes, all or none; raise the error of the first that is refused."""
        store = self._store
        before = (store.head, dict(store.objects), deque(store.log))
        try:
            return [await write_one(self, one) for one in writes]
        except PycniError:
            store.head, store.objects, store.log = before
            raise

    async def watch(self, kind: type[T], *, after: Cursor) -> AsyncIterator[Change[T]]:
        """Yield each change after the cursor, in order; raise `EventsLost` when it is too old."""
        store = self._store
        position = parse_cursor(after)
        bell = asyncio.Event()
        store.bells.add(bell)
        try:
            while True:
                self._check_open()
                bell.clear()
                check_cursor(position, head=store.head, history=store.history)
                for entry in [one for one in store.log if one.sequence > position]:
                    position = entry.sequence
                    if entry.kind is kind:
                        yield _change(entry, kind=kind)
                if position == store.head:
                    await bell.wait()
        finally:
            store.bells.discard(bell)

    async def close(self) -> None:
        """Make the handle useless; the store stays."""
        self._is_closed = True
        for bell in self._store.bells:
            bell.set()

    def _check_open(self) -> None:
        if self._is_closed:
            raise TryAgain("cannot use the datastore in memory: this handle is closed")

    def _compare(self, kind: type[object], name: str, revision: Revision, *, verb: str) -> None:
        entry = self._store.objects.get((kind, name))
        if entry is None:
            raise NotFound(f"cannot {verb} {KIND_NAMES[kind]} {name}: it does not exist")
        if revision != Revision(str(entry.sequence)):
            raise Conflict(f"cannot {verb} {KIND_NAMES[kind]} {name}: it was changed meanwhile")


def _stored(entry: _Entry, *, kind: type[T]) -> Stored[T]:
    if not isinstance(entry.value, kind):
        raise TypeError(f"{entry.name} is no {kind}")
    return Stored(entry.value, Revision(str(entry.sequence)))


def _change(entry: _Entry, *, kind: type[T]) -> Change[T]:
    cursor = Cursor(str(entry.sequence))
    if entry.value is None:
        return Change(entry.name, None, cursor)
    return Change(entry.name, _stored(entry, kind=kind), cursor)
