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
from pycni.errors import AlreadyExists, Conflict, DatastoreUnusable, NotFound, PycniError, TryAgain
from pycni.model.resources import Handle, Resource, resource_name
from pycni.model.schema import KIND_NAMES, decode, encode
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
# Kind, name, text (None: delete), and the revision it has now (None: it must not be there).
_Prepared = tuple[str, str, str | None, Revision | None]

DEFAULT_PATH = Path("/var/lib/pycni/pycni.db")
PATIENCE_S = 5.0
_WRITES_PER_CHECKPOINT = 256
_WRITES_PER_TRIM = 64
_REMEMBERED = 1024

_GET = """SELECT c.seq, c.body FROM objects o JOIN changes c ON c.seq = o.seq
          WHERE o.kind = ? AND o.name = ?"""
_LIST = """SELECT o.name, c.seq, c.body FROM objects o JOIN changes c ON c.seq = o.seq
           WHERE o.kind = ? ORDER BY o.name"""
_HEAD = "SELECT coalesce(max(seq), 0) FROM changes"
_SINCE = "SELECT seq, name, body FROM changes WHERE seq > ? AND kind = ? ORDER BY seq"
_KINDS_SINCE = "SELECT max(seq), kind FROM changes WHERE seq > ? GROUP BY kind"
_CURRENT = "SELECT seq FROM objects WHERE kind = ? AND name = ?"
_APPEND = "INSERT INTO changes (kind, name, body) VALUES (?, ?, ?)"
_NEXT = "SELECT max(seq) + 1 FROM changes"
_MOVE = "UPDATE changes SET seq = ?, body = ? WHERE seq = ?"
_INSERT = "INSERT OR IGNORE INTO objects (kind, name, seq) VALUES (?, ?, ?)"
_SWAP = "UPDATE objects SET seq = ? WHERE kind = ? AND name = ? AND seq = ?"
_REMOVE = "DELETE FROM objects WHERE kind = ? AND name = ? AND seq = ?"
# Deletions that have left the log's window go; what is current stays.  Beyond the latest steps
# nothing is left but that.
_TRIM = """DELETE FROM changes WHERE seq <= ? AND seq > ? AND NOT EXISTS (
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


def _prepared(write: Write) -> _Prepared:
    match write:
        case Creation(value):
            name = resource_name(value)
            return KIND_NAMES[type(value)], name, encode(value, name=name), None
        case Replacement(value, revision):
            name = resource_name(value)
            return KIND_NAMES[type(value)], name, encode(value, name=name), revision
        case Deletion(kind, name, revision):
            return KIND_NAMES[kind], name, None, revision


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
        kind, name = KIND_NAMES[type(value)], resource_name(value)
        seq: int = await self._write(
            ("create", kind, name), self._create, kind, name, encode(value, name=name)
        )
        return self._remember(value, name, seq)

    async def update(self, value: T, *, if_revision: Revision) -> Stored[T]:
        """Replace an object; raise `Conflict` when its revision differs, `NotFound` when gone."""
        kind, name = KIND_NAMES[type(value)], resource_name(value)
        what = ("update", kind, name)
        body = encode(value, name=name)
        seq: int = await self._write(what, self._replace, kind, name, body, if_revision)
        return self._remember(value, name, seq)

    async def delete(self, kind: type[T], name: str, *, if_revision: Revision) -> None:
        """Delete an object; raise `Conflict` when its revision differs, `NotFound` when gone."""
        kind_name = KIND_NAMES[kind]
        what = ("delete", kind_name, name)
        await self._write(what, self._replace, kind_name, name, None, if_revision)
        self._remembered.pop((kind, name), None)

    async def write(self, writes: Sequence[Write]) -> Sequence[Stored[Any] | None]:
        """Do several writes, all or none; raise the error of the first that is refused."""
        prepared = [_prepared(one) for one in writes]
        seqs: Sequence[int] = await self._write(
            ("write", prepared[0][0], prepared[0][1]), self._several, prepared
        )
        results: list[Stored[Any] | None] = []
        for write, (_, name, *_), seq in zip(writes, prepared, seqs, strict=True):
            if isinstance(write, Deletion):
                self._remembered.pop((write.kind, name), None)
                results.append(None)
            else:
                results.append(self._remember(write.value, name, seq))
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

    async def _write(
        self, doing: tuple[str, str, str], write: Callable[..., R], *arguments: object
    ) -> R:
        """Run writes as one transaction, then wake all watches on this machine."""
        if self._is_read_only:
            raise DatastoreUnusable(
                f"cannot {' '.join(doing)}: {self._path} is open for reading only"
            )
        try:
            result = self._commit(write, *arguments)
        except sqlite3.Error as exc:
            result = await self._again(exc, " ".join(doing), self._commit, write, *arguments)
        sqlite_file.ring(self._file)
        if self._bells is not None:
            self._bells.expect()
        self._writes += 1
        if self._writes % _WRITES_PER_CHECKPOINT == 0:
            self._start_checkpoint()
        return result

    def _commit(self, write: Callable[..., R], *arguments: object) -> R:
        """Run one transaction that writes, from beginning to end without a suspension."""
        self._check_open()
        connection = self._connection
        # IMMEDIATE takes the write lock at once; a later upgrade could only fail as busy.
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._check_file()
            result = write(*arguments)
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors (disk full among them).
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

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

    # --- what happens inside of them ------------------------------------------------------------

    def _several(self, writes: Sequence[_Prepared]) -> Sequence[int]:
        return [
            self._create(kind, name, body or "")
            if revision is None
            else self._replace(kind, name, body, revision)
            for kind, name, body, revision in writes
        ]

    def _create(self, kind: str, name: str, body: str) -> int:
        execute = self._connection.execute
        seq = execute(_APPEND, (kind, name, body)).lastrowid or 0
        if execute(_INSERT, (kind, name, seq)).rowcount == 0:
            raise AlreadyExists(f"cannot create {kind} {name}: it exists")
        self._trim(seq)
        return seq

    def _replace(self, kind: str, name: str, body: str | None, revision: Revision) -> int:
        """Write another version, or a deletion (None), if the current one is that revision."""
        execute = self._connection.execute
        old = revision.token
        # The newest change is never trimmed, so this number has never been given before.
        (seq,) = execute(_NEXT).fetchone()
        if body is None:
            count = execute(_REMOVE, (kind, name, old)).rowcount
        else:
            count = execute(_SWAP, (seq, kind, name, old)).rowcount
        if count == 0:
            raise self._refusal(kind, name, verb="delete" if body is None else "update")
        # In place of the old version, whose pages it takes.
        execute(_MOVE, (seq, body, old))
        self._trim(seq)
        return int(seq)

    def _refusal(self, kind: str, name: str, *, verb: str) -> NotFound | Conflict:
        if self._connection.execute(_CURRENT, (kind, name)).fetchone() is None:
            return NotFound(f"cannot {verb} {kind} {name}: it does not exist")
        return Conflict(f"cannot {verb} {kind} {name}: it was changed meanwhile")

    def _trim(self, seq: int) -> None:
        if seq % _WRITES_PER_TRIM == 0:
            end = seq - sqlite_file.HISTORY
            self._connection.execute(_TRIM, (end, end - 2 * _WRITES_PER_TRIM))

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
