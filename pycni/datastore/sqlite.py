"""The embedded datastore: one SQLite file, shared by all processes of a machine.

Statements run right in the event loop, since they take microseconds; nothing here ever waits
inside SQLite.  A lock held by another process is retried after a short sleep of the task, up to a
limit.  All writes of one method are one transaction without a suspension inside, so that neither
a cancelled task nor a killed process leaves half of it.

The log of changes holds the current version of each object, which a new one replaces, and the
latest deletions.  A watch reads what is newer than what it has seen.  Writers ring a bell after
each commit by touching the file's times, which inotify reports to every process.

A file that is deleted or replaced while open is refused from then on (`DatastoreUnusable`): the
new file knows nothing of addresses that pods hold, so carrying on with it would give them twice.
"""

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pycni.datastore import sqlite_file
from pycni.datastore.cursors import check_cursor, parse_cursor
from pycni.datastore.sqlite_writes import Prepared, perform, prepare
from pycni.errors import DatastoreUnusable, PycniError, TryAgain
from pycni.model.resources import Handle, Resource
from pycni.model.schema import KIND_NAMES, decode
from pycni.ports import (
    Change,
    Creation,
    Cursor,
    Deletion,
    Listing,
    Replacement,
    Revision,
    Stored,
    Write,
)

if TYPE_CHECKING:
    import asyncio

    from pycni.datastore.sqlite_bells import Bells

T = TypeVar("T", bound=Resource)
R = TypeVar("R")

Rows = Sequence[tuple[Any, ...]]

DEFAULT_PATH = Path("/var/lib/pycni/pycni.db")
PATIENCE_S = 5.0
_WRITES_PER_CHECKPOINT = 256
_REMEMBERED = 1024

_GET = """SELECT c.seq, c.body FROM objects o JOIN changes c ON c.seq = o.seq
          WHERE o.kind = ? AND o.name = ?"""
_LIST = """SELECT o.name, c.seq, c.body FROM objects o JOIN changes c ON c.seq = o.seq
           WHERE o.kind = ? ORDER BY o.name"""
_HEAD = "SELECT coalesce(max(seq), 0) FROM changes"
_SINCE = "SELECT seq, name, body FROM changes WHERE seq > ? AND kind = ? ORDER BY seq"
_KINDS_SINCE = "SELECT max(seq), kind FROM changes WHERE seq > ? GROUP BY kind"
_CURRENT = "SELECT seq FROM objects WHERE kind = ? AND name = ?"


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
        self._file = str(path)  # each request passes it to system calls several times
        self._connection = connection
        self._is_read_only = is_read_only
        self._patience_s = patience_s
        self._identity = sqlite_file.identity(self._file)
        # Decoding a block costs more than reading it; a value is known by name and revision.
        self._remembered: dict[tuple[type[object], str], tuple[int, Stored[Any]]] = {}
        self._bells: Bells | None = None
        self._looked = 0
        self._writes = 0
        self._checkpoint: asyncio.Future[None] | None = None
        self._is_closed = False

    @property
    def identity(self) -> sqlite_file.Identity:
        """Return which file was opened (device, inode), whatever lies at its path by now."""
        return self._identity

    async def get(self, kind: type[T], name: str) -> Stored[T] | None:
        """Return the object, or None."""
        try:
            return self._get(kind, name)
        except sqlite3.Error as exc:
            doing = f"read {KIND_NAMES[kind]} {name}"
            return await self._again(exc, doing, self._get, kind, name)

    async def list(self, kind: type[T]) -> Listing[T]:
        """Return all objects of a kind, in the order of their names."""
        try:
            rows, head = self._snapshot(self._list, kind)
        except sqlite3.Error as exc:
            doing = f"list all {KIND_NAMES[kind]}"
            rows, head = await self._again(exc, doing, self._snapshot, self._list, kind)
        return Listing(
            items=tuple(self._stored(kind, name, seq, body) for name, seq, body in rows),
            cursor=Cursor(str(head)),
        )

    async def create(self, value: T) -> Stored[T]:
        """Create an object; raise `AlreadyExists` when one of that name is there."""
        (stored,) = await self.write([Creation(value)])
        return stored  # type: ignore[return-value]  # Only a deletion leaves none.

    async def update(self, value: T, *, if_revision: Revision) -> Stored[T]:
        """Replace an object; raise `Conflict` when its revision differs, `NotFound` when gone."""
        (stored,) = await self.write([Replacement(value, if_revision)])
        return stored  # type: ignore[return-value]  # Only a deletion leaves none.

    async def delete(self, kind: type[T], name: str, *, if_revision: Revision) -> None:
        """Delete an object; raise `Conflict` when its revision differs, `NotFound` when gone."""
        await self.write([Deletion(kind, name, if_revision)])  # type: ignore[arg-type]  # T is one.

    async def write(self, writes: Sequence[Write]) -> Sequence[Stored[Any] | None]:
        """Do several writes, all or none; raise the error of the first that is refused."""
        prepared = [prepare(one) for one in writes]
        if self._is_read_only:
            raise DatastoreUnusable(f"cannot {prepared[0]}: {self._path} is open for reading only")
        try:
            seqs = self._commit(prepared)
        except sqlite3.Error as exc:
            seqs = await self._again(exc, str(prepared[0]), self._commit, prepared)
        self._wake()
        results: list[Stored[Any] | None] = []
        for write, one, seq in zip(writes, prepared, seqs, strict=True):
            if isinstance(write, Deletion):
                self._remembered.pop((write.kind, one.name), None)
                results.append(None)
            else:
                results.append(self._remember(write.value, one.name, seq))
        return results

    async def watch(self, kind: type[T], *, after: Cursor) -> AsyncIterator[Change[T]]:
        """Yield what changed after the cursor, in order; raise `EventsLost` when it is too old."""
        position = parse_cursor(after)
        bells = self._listening()
        bell = bells.join(KIND_NAMES[kind])
        try:
            while True:
                bell.clear()
                rows, position = await self._since(kind, position)
                for seq, name, body in rows:
                    stored = None if body is None else self._stored(kind, name, seq, body)
                    yield Change(name, stored, Cursor(str(seq)))
                if not rows:
                    await bell.wait()
        finally:
            bells.leave(bell)

    async def close(self) -> None:
        """Close the file; watches end with `TryAgain`."""
        self._is_closed = True
        if self._bells is not None:
            self._bells.close()
        if self._checkpoint is not None:
            await self._checkpoint
            self._checkpoint = None
        self._connection.close()

    # --- transactions ---------------------------------------------------------------------------

    async def _again(
        self, exc: sqlite3.Error, doing: str, attempt: Callable[..., R], *arguments: object
    ) -> R:
        """Repeat what another writer's lock has stopped; translate any other error."""
        deadline = time.monotonic() + self._patience_s
        tries = 0
        while sqlite_file.is_busy(exc) and time.monotonic() <= deadline:
            tries += 1
            await _pause(tries)
            try:
                return attempt(*arguments)
            except sqlite3.Error as another:
                exc = another
        raise sqlite_file.translate(exc, doing=doing, path=self._path) from exc

    def _commit(self, writes: Sequence[Prepared]) -> Sequence[int]:
        """Run one transaction that writes, from beginning to end without a suspension."""
        self._check_open()
        connection = self._connection
        # IMMEDIATE takes the write lock at once; a later upgrade could only fail as busy.
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._check_file()
            seqs = [perform(connection, one) for one in writes]
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors (disk full among them).
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return seqs

    def _wake(self) -> None:
        """Wake all watches on this machine, and keep the log of what was written short."""
        sqlite_file.ring(self._file)
        if self._bells is not None:
            self._bells.expect()
        self._writes += 1
        if self._writes % _WRITES_PER_CHECKPOINT == 0:
            self._start_checkpoint()

    def _snapshot(self, read: Callable[..., R], *arguments: object) -> R:
        """Run several reads on one state of the file."""
        self._check_open()
        self._connection.execute("BEGIN")
        try:
            self._check_file()
            return read(*arguments)
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _check_open(self) -> None:
        if self._is_closed:
            raise TryAgain(f"cannot use the datastore {self._path}: this handle is closed")

    def _check_file(self) -> None:
        if sqlite_file.identity(self._file) != self._identity:
            raise sqlite_file.replaced(self._file)

    # --- reading ------------------------------------------------------------

    def _get(self, kind: type[T], name: str) -> Stored[T] | None:
        self._check_open()
        kind_name = KIND_NAMES[kind]
        execute = self._connection.execute
        known = self._remembered.get((kind, name))
        # Without its body first, which for a block is a handful of pages.
        if known is not None and execute(_CURRENT, (kind_name, name)).fetchone() == (known[0],):
            self._check_file()
            return known[1]
        row = execute(_GET, (kind_name, name)).fetchone()
        self._check_file()
        return None if row is None else self._stored(kind, name, row[0], row[1])

    def _list(self, kind: type[object]) -> tuple[Rows, int]:
        rows = self._connection.execute(_LIST, (KIND_NAMES[kind],)).fetchall()
        return rows, self._head()

    def _head(self) -> int:
        (head,) = self._connection.execute(_HEAD).fetchone()
        return int(head)

    # --- values ---------------------------------------------------------------------------------

    def _stored(self, kind: type[T], name: str, seq: int, body: str) -> Stored[T]:
        known = self._remembered.get((kind, name))
        if known is not None and known[0] == seq:
            return known[1]
        return self._remember(decode(kind, body, name=name), name, seq)

    def _remember(self, value: T, name: str, seq: int) -> Stored[T]:
        stored = Stored(value, Revision(str(seq)))
        # Handles are many and soon decoded.
        if not isinstance(value, Handle):
            self._remembered[type(value), name] = (seq, stored)
            if len(self._remembered) > _REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
        return stored

    # --- watching -------------------------------------------------------------------------------

    async def _since(self, kind: type[object], position: int) -> tuple[Rows, int]:
        try:
            return self._snapshot(self._read_since, kind, position)
        except sqlite3.Error as exc:
            doing = f"read changes of {KIND_NAMES[kind]}"
            return await self._again(exc, doing, self._snapshot, self._read_since, kind, position)

    def _read_since(self, kind: type[object], position: int) -> tuple[Rows, int]:
        head = self._head()
        check_cursor(position, head=head, history=sqlite_file.HISTORY)
        if head == position:
            return [], head
        return self._connection.execute(_SINCE, (position, KIND_NAMES[kind])).fetchall(), head

    def _listening(self) -> "Bells":
        if self._bells is None:
            # Imported late, as asyncio is.
            from pycni.datastore.sqlite_bells import Bells

            self._bells = Bells(self._path, look=self._changed_kinds)
        return self._bells

    def _changed_kinds(self) -> Container[str] | None:
        """Return the kinds with changes since the last call; None when that is not known."""
        try:
            self._check_open()
            rows = self._connection.execute(_KINDS_SINCE, (self._looked,)).fetchall()
            self._check_file()
        except (sqlite3.Error, PycniError):
            return None
        if not rows:
            return ()
        before, self._looked = self._looked, max(seq for seq, _ in rows)
        is_whole = self._looked - before <= sqlite_file.HISTORY
        return {kind for _, kind in rows} if is_whole else None

    def _start_checkpoint(self) -> None:
        if self._checkpoint is not None and not self._checkpoint.done():
            return
        import asyncio

        loop = asyncio.get_running_loop()
        self._checkpoint = loop.run_in_executor(None, sqlite_file.checkpoint, self._path)
