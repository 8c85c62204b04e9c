"""The embedded datastore: one SQLite file, shared by all processes of a machine.

Statements run right in the event loop, since they take microseconds; nothing here ever waits
inside SQLite.  A lock held by another process is retried after a short sleep of the task, up to a
limit.  All writes of one method are one transaction without a suspension inside, so that neither
a cancelled task nor a killed process leaves half of it.

A watch reads the log of changes.  Writers ring a bell after each commit by touching the file's
times, which inotify reports to every process; a slow periodic look covers writers that died
between commit and bell.

A file that is deleted or replaced while open is refused from then on (`DatastoreUnusable`): the
new file knows nothing of addresses that pods hold, so carrying on with it would give them twice.
"""

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pycni.datastore import sqlite_file
from pycni.datastore.cursors import check_cursor, parse_cursor
from pycni.errors import AlreadyExists, Conflict, DatastoreUnusable, EventsLost, NotFound, TryAgain
from pycni.model.resources import Resource, resource_name
from pycni.model.schema import KIND_NAMES, decode, encode
from pycni.ports import Change, Cursor, Listing, Revision, Stored

if TYPE_CHECKING:
    import asyncio

    from pycni.inotify import DirectoryWatch

T = TypeVar("T", bound=Resource)
R = TypeVar("R")

Rows = Sequence[tuple[Any, ...]]

DEFAULT_PATH = Path("/var/lib/pycni/pycni.db")
PATIENCE_S = 5.0
_FALLBACK_S = 1.0
_GATHER_S = 0.005
_WRITES_PER_CHECKPOINT = 256
_REMEMBERED = 128

_GET = """SELECT c.seq, c.body FROM objects o JOIN changes c ON c.seq = o.seq
          WHERE o.kind = ? AND o.name = ?"""
_LIST = """SELECT o.name, c.seq, c.body FROM objects o JOIN changes c ON c.seq = o.seq
           WHERE o.kind = ? ORDER BY o.name"""
_HEAD = "SELECT coalesce(max(seq), 0) FROM changes"
_SINCE = "SELECT seq, name, body FROM changes WHERE seq > ? AND kind = ? ORDER BY seq"
_CURRENT = "SELECT seq FROM objects WHERE kind = ? AND name = ?"
_APPEND = "INSERT INTO changes (kind, name, body) VALUES (?, ?, ?)"
_POINT = "INSERT OR REPLACE INTO objects (kind, name, seq) VALUES (?, ?, ?)"
_REMOVE = "DELETE FROM objects WHERE kind = ? AND name = ?"
_FORGET = "DELETE FROM changes WHERE seq = ?"
# The change that has just left the log's window goes, unless it is what its object is now.
_TRIM = """DELETE FROM changes WHERE seq = ? AND NOT EXISTS (
           SELECT 1 FROM objects o
           WHERE o.kind = changes.kind AND o.name = changes.name AND o.seq = changes.seq)"""


async def open_sqlite(
    path: Path, *, is_read_only: bool = False, patience_s: float = PATIENCE_S
) -> "SqliteDatastore":
    """Open the datastore in a file, making it when it is missing (but not for reading only).

    Raises `DatastoreUnusable` for a file that is not ours, corrupt or of another version, and
    `NotFound` when it is missing and opened for reading only.
    """
    if not is_read_only:
        sqlite_file.create_file(path)
    deadline = time.monotonic() + patience_s
    attempt = 0
    while True:
        try:
            return SqliteDatastore(
                path,
                connection=sqlite_file.connect(path, is_read_only=is_read_only),
                is_read_only=is_read_only,
                patience_s=patience_s,
            )
        except sqlite3.Error as exc:
            # Another process is recovering the log of one that was killed.
            attempt += 1
            if time.monotonic() > deadline:
                raise sqlite_file.translate(exc, doing="open the datastore", path=path) from exc
        await _pause(attempt)


async def _pause(attempt: int) -> None:
    # Imported late: hardly any request has to wait, and asyncio takes longer to load than to run.
    import asyncio

    # The clock's last digits are jitter enough to part two processes.
    jitter = 0.5 + time.monotonic_ns() % 1000 / 1000
    await asyncio.sleep(jitter * min(0.0005 * attempt, 0.01))


class SqliteDatastore:
    """An open datastore file; see `pycni.ports.Datastore`.  Belongs to one thread."""

    def __init__(
        self, path: Path, *, connection: sqlite3.Connection, is_read_only: bool, patience_s: float
    ) -> None:
        self._path = path
        self._connection = connection
        self._is_read_only = is_read_only
        self._patience_s = patience_s
        self._identity = sqlite_file.identity(path)
        # Decoding a block costs more than reading it; a value is known by name and revision.
        self._remembered: dict[tuple[type[object], str], tuple[int, Resource]] = {}
        self._bells: set[asyncio.Event] = set()
        self._inotify: DirectoryWatch | None = None
        self._writes = 0
        self._checkpoint: asyncio.Future[None] | None = None
        self._is_closed = False

    async def get(self, kind: type[T], name: str) -> Stored[T] | None:
        """Return the object, or None."""
        kind_name = KIND_NAMES[kind]
        row = await self._read(
            f"read {kind_name} {name}",
            lambda: self._connection.execute(_GET, (kind_name, name)).fetchone(),
        )
        return None if row is None else self._stored(kind, name, row[0], row[1])

    async def list(self, kind: type[T]) -> Listing[T]:
        """Return all objects of a kind, in the order of their names."""

        def read() -> tuple[Rows, int]:
            rows = self._connection.execute(_LIST, (KIND_NAMES[kind],)).fetchall()
            return rows, self._head()

        rows, head = await self._read(f"list all {KIND_NAMES[kind]}", read)
        return Listing(
            items=tuple(self._stored(kind, name, seq, body) for name, seq, body in rows),
            cursor=Cursor(str(head)),
        )

    async def create(self, value: T) -> Stored[T]:
        """Create an object; raise `AlreadyExists` when one of that name is there."""
        kind, name = KIND_NAMES[type(value)], resource_name(value)

        def write() -> int:
            if self._connection.execute(_CURRENT, (kind, name)).fetchone() is not None:
                raise AlreadyExists(f"cannot create {kind} {name}: it exists")
            return self._append(kind, name, encode(value))

        return self._written(value, name, await self._write(f"create {kind} {name}", write))

    async def update(self, value: T, *, if_revision: Revision) -> Stored[T]:
        """Replace an object; raise `Conflict` when its revision differs, `NotFound` when gone."""
        kind, name = KIND_NAMES[type(value)], resource_name(value)
        body = encode(value)

        def write() -> int:
            old = self._compare(kind, name, if_revision, verb="update")
            seq = self._append(kind, name, body)
            self._drop_superseded(old, head=seq)
            return seq

        return self._written(value, name, await self._write(f"update {kind} {name}", write))

    async def delete(self, kind: type[T], name: str, *, if_revision: Revision) -> None:
        """Delete an object; raise `Conflict` when its revision differs, `NotFound` when gone."""
        kind_name = KIND_NAMES[kind]

        def write() -> None:
            old = self._compare(kind_name, name, if_revision, verb="delete")
            self._drop_superseded(old, head=self._append(kind_name, name, None))

        await self._write(f"delete {kind_name} {name}", write)
        self._remembered.pop((kind, name), None)

    async def watch(self, kind: type[T], *, after: Cursor) -> AsyncIterator[Change[T]]:
        """Yield each change after the cursor, in order; raise `EventsLost` when it is too old."""
        import asyncio

        position = parse_cursor(after)
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            self._listen(asyncio.get_running_loop())
            while True:
                bell.clear()
                rows, position = await self._since(kind, position)
                for seq, name, body in rows:
                    stored = None if body is None else self._stored(kind, name, seq, body)
                    yield Change(name, stored, Cursor(str(seq)))
                if not rows:
                    await _wait(bell)
        finally:
            self._bells.discard(bell)

    async def close(self) -> None:
        """Close the file; watches end with `TryAgain`."""
        self._is_closed = True
        self._ring()
        if self._checkpoint is not None:
            await self._checkpoint
            self._checkpoint = None
        if self._inotify is not None:
            import asyncio

            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None
        self._connection.close()

    # --- transactions ---------------------------------------------------------------------------

    async def _read(self, doing: str, read: Callable[[], R]) -> R:
        """Run reads on one snapshot."""
        return await self._transact("BEGIN", doing, read)

    async def _write(self, doing: str, write: Callable[[], R]) -> R:
        """Run writes as one transaction, then wake all watches on this machine."""
        if self._is_read_only:
            raise DatastoreUnusable(f"cannot {doing}: {self._path} is open for reading only")
        # IMMEDIATE takes the write lock at once; a later upgrade could only fail as busy.
        result = await self._transact("BEGIN IMMEDIATE", doing, write)
        self._ring()
        sqlite_file.ring(self._path)
        self._writes += 1
        if self._writes % _WRITES_PER_CHECKPOINT == 0:
            self._start_checkpoint()
        return result

    async def _transact(self, begin: str, doing: str, body: Callable[[], R]) -> R:
        attempt = 0
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return self._attempt(begin, body)
            except sqlite3.Error as exc:
                if not sqlite_file.is_busy(exc) or time.monotonic() > deadline:
                    raise sqlite_file.translate(exc, doing=doing, path=self._path) from exc
            attempt += 1
            await _pause(attempt)

    def _attempt(self, begin: str, body: Callable[[], R]) -> R:
        """Run one transaction, from beginning to end without a suspension."""
        if self._is_closed:
            raise TryAgain(f"cannot use the datastore {self._path}: this handle is closed")
        connection = self._connection
        connection.execute(begin)
        try:
            if sqlite_file.identity(self._path) != self._identity:
                raise sqlite_file.replaced(self._path)
            result = body()
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors (disk full among them).
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _head(self) -> int:
        (head,) = self._connection.execute(_HEAD).fetchone()
        return int(head)

    def _compare(self, kind: str, name: str, revision: Revision, *, verb: str) -> int:
        row = self._connection.execute(_CURRENT, (kind, name)).fetchone()
        if row is None:
            raise NotFound(f"cannot {verb} {kind} {name}: it does not exist")
        if revision.token != str(row[0]):
            raise Conflict(f"cannot {verb} {kind} {name}: it was changed meanwhile")
        return int(row[0])

    def _append(self, kind: str, name: str, body: str | None) -> int:
        # The newest change is never trimmed, so SQLite's "largest + 1" never repeats a number.
        seq = self._connection.execute(_APPEND, (kind, name, body)).lastrowid or 0
        if body is None:
            self._connection.execute(_REMOVE, (kind, name))
        else:
            self._connection.execute(_POINT, (kind, name, seq))
        self._connection.execute(_TRIM, (seq - sqlite_file.HISTORY,))
        return seq

    def _drop_superseded(self, old: int, *, head: int) -> None:
        # It outlived its place in the log as the current version of its object; now it is neither.
        if old <= head - sqlite_file.HISTORY:
            self._connection.execute(_FORGET, (old,))

    # --- values ---------------------------------------------------------------------------------

    def _stored(self, kind: type[T], name: str, seq: int, body: str) -> Stored[T]:
        known = self._remembered.get((kind, name))
        if known is not None and known[0] == seq and isinstance(known[1], kind):
            return Stored(known[1], Revision(str(seq)))
        value = decode(kind, body, name=name)
        self._remember(value, name, seq)
        return Stored(value, Revision(str(seq)))

    def _written(self, value: T, name: str, seq: int) -> Stored[T]:
        self._remember(value, name, seq)
        return Stored(value, Revision(str(seq)))

    def _remember(self, value: Resource, name: str, seq: int) -> None:
        key = (type(value), name)
        self._remembered.pop(key, None)
        self._remembered[key] = (seq, value)
        if len(self._remembered) > _REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    # --- watching -------------------------------------------------------------------------------

    async def _since(self, kind: type[T], position: int) -> tuple[Rows, int]:
        def read() -> tuple[Rows, int]:
            head = self._head()
            check_cursor(position, head=head, history=sqlite_file.HISTORY)
            if head == position:
                return [], head
            return self._connection.execute(_SINCE, (position, KIND_NAMES[kind])).fetchall(), head

        return await self._read(f"read changes of {KIND_NAMES[kind]}", read)

    def _listen(self, loop: "asyncio.AbstractEventLoop") -> None:
        if self._inotify is not None:
            return
        from pycni import inotify

        try:
            self._inotify = inotify.DirectoryWatch(self._path.parent, mask=inotify.ATTRIBUTES)
        except OSError:
            # Out of inotify instances: the periodic look has to do.
            return
        loop.add_reader(self._inotify.fileno(), self._on_inotify)

    def _on_inotify(self) -> None:
        if self._inotify is None:
            return
        try:
            events = self._inotify.read()
        except EventsLost:
            self._ring()
            return
        if any(event.name == self._path.name for event in events):
            self._ring()

    def _ring(self) -> None:
        for bell in self._bells:
            bell.set()

    def _start_checkpoint(self) -> None:
        if self._checkpoint is not None and not self._checkpoint.done():
            return
        import asyncio

        loop = asyncio.get_running_loop()
        self._checkpoint = loop.run_in_executor(None, sqlite_file.checkpoint, self._path)


async def _wait(bell: "asyncio.Event") -> None:
    import asyncio

    try:
        async with asyncio.timeout(_FALLBACK_S):
            await bell.wait()
    except TimeoutError:
        return
    # One look serves a burst: a pod costs two writes, and each rings here and by inotify.
    await asyncio.sleep(_GATHER_S)
