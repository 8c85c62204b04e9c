"""The file of the embedded datastore: making it, recognising it, and what its errors mean.

The file appears complete or not at all: it is built under another name and linked into place, so
that concurrent first users can't meet a half-made one and a crash leaves at most a small hidden
file.  What is not ours, is corrupt or of a newer version is refused and never written to.
"""

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from pycni.errors import DatastoreUnusable, NotFound, PycniError, TryAgain

APPLICATION_ID = 0x7079636E  # "pycn", in the file's header (PRAGMA application_id, file(1)).
SCHEMA_VERSION = 1
# How many changes a watch may lag behind; part of the schema, since every writer trims the log.
HISTORY = 2048
# Pages of 4 KiB that the write-ahead log may grow to before a writer must copy them back itself,
# syncing the disk; `pycni.datastore.sqlite` does it earlier, in a thread.
_WAL_PAGES = 4096

# Bodies live in the log of changes; `objects` points to the current one of each name.  So an
# update writes a body once, in place of the one before.
_SCHEMA = f"""
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE changes (
    seq  INTEGER PRIMARY KEY,  -- ascending; also the revision of the object
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    body TEXT                  -- NULL: deleted
);
CREATE TABLE objects (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    seq  INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_LATER = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM})
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
_FORBIDDEN = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})

Identity = tuple[int, int]


def error_code(exc: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 for errors of Python's module itself."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def is_busy(exc: sqlite3.Error) -> bool:
    """Return whether another writer holds the lock, which takes microseconds."""
    return error_code(exc) in _BUSY


def translate(exc: sqlite3.Error, *, doing: str, path: Path) -> PycniError | sqlite3.Error:
    """Return our error for SQLite's; an unknown one is returned as it is."""
    code = error_code(exc)
    attempt = f"cannot {doing} in {path}: {exc}"
    if code in _BUSY:
        return TryAgain(f"{attempt}; other writers held it all the time")
    if code in _LATER:
        return TryAgain(f"{attempt}; see that the disk works and has room, nothing was changed")
    if code in _CORRUPT:
        return DatastoreUnusable(
            f"{attempt}; stop all that use it and restore it from a backup,"
            " or move it away to begin anew once no pod is left"
        )
    if code in _FORBIDDEN:
        return DatastoreUnusable(f"{attempt}; run as root, and see that the disk is writable")
    return exc


def identity(path: str) -> Identity:
    """Return device and inode of the file; raise `DatastoreUnusable` when there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - on every operation's path, and twice as fast.
    except FileNotFoundError as exc:
        raise replaced(path) from exc
    return status.st_dev, status.st_ino


def replaced(path: str) -> DatastoreUnusable:
    """Return the error for a file that was deleted or replaced while it was open."""
    return DatastoreUnusable(
        f"the datastore {path} was deleted or replaced while in use; put the old file back if pods"
        " hold addresses from it, then restart this program"
    )


def ring(path: str) -> None:
    """Touch the file's times, which inotify reports to all who watch its directory."""
    # Failing to wake others is no failure of the write: they look by themselves now and then.
    try:  # noqa: SIM105 - on every write's path, and much cheaper than `suppress`.
        os.utime(path)
    except OSError:
        pass


def create_file(path: Path) -> None:
    """Make an empty datastore unless there is a file; its directory too, for root's eyes only."""
    if path.exists():
        return
    hidden = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        try:
            with closing(sqlite3.connect(hidden, isolation_level=None)) as connection:
                connection.executescript(_SCHEMA)
            # Losing the race against another first user is as good as winning it.
            with suppress(FileExistsError):
                os.link(hidden, path)
        finally:
            hidden.unlink()
    except OSError as exc:
        raise DatastoreUnusable(f"cannot create the datastore {path}: {exc}; run as root") from exc
    except sqlite3.Error as exc:
        raise translate(exc, doing="create the datastore", path=path) from exc


def connect(path: Path, *, is_read_only: bool) -> sqlite3.Connection:
    """Open an existing datastore and make sure that it is one of ours.

    A busy error passes through: the caller waits and tries again.
    """
    if not path.exists():
        raise NotFound(
            f"there is no datastore at {path}: start pycni-agent, or name another by --datastore"
        )
    mode = "ro" if is_read_only else "rw"
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    try:
        # Never wait inside SQLite: the caller has an event loop to keep turning.
        connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
    except sqlite3.Error as exc:
        raise translate(exc, doing="open the datastore", path=path) from exc
    try:
        _check(connection, path)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    except sqlite3.Error as exc:
        connection.close()
        if is_busy(exc):
            raise
        raise translate(exc, doing="open the datastore", path=path) from exc
    except DatastoreUnusable:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise DatastoreUnusable(
            f"{path} is no datastore of pycni: it belongs to another program or is empty;"
            " name another file, or move this one away"
        )
    if version != SCHEMA_VERSION:
        raise DatastoreUnusable(
            f"the datastore {path} has version {version}, this program reads {SCHEMA_VERSION}:"
            " use the version of pycni that wrote it"
        )


def checkpoint(path: Path) -> None:
    """Copy the write-ahead log back into the file as far as readers allow, in a thread.

    This is where the disk is synced.  Whatever fails here is met again, and reported, by the next
    write; the log only grows meanwhile.
    """
    with suppress(sqlite3.Error, PycniError), closing(connect(path, is_read_only=False)) as other:
        other.execute("PRAGMA wal_checkpoint(PASSIVE)")
