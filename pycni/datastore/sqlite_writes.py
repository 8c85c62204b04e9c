"""One write of the embedded datastore, in statements: for the inside of a transaction.

Compare-and-swap is the update of `objects` itself; who finds that it met no row raises, and the
transaction is rolled back.
"""

import sqlite3
from typing import NamedTuple

from pycni.datastore.sqlite_file import HISTORY
from pycni.errors import AlreadyExists, Conflict, NotFound
from pycni.model.resources import resource_name
from pycni.model.schema import KIND_NAMES, encode
from pycni.ports import Creation, Deletion, Replacement, Revision, Write

_WRITES_PER_TRIM = 64

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


class Prepared(NamedTuple):
    """A write in words and text; without body it deletes, without revision it creates."""

    verb: str
    kind: str
    name: str
    body: str | None
    revision: Revision | None

    def __str__(self) -> str:
        return f"{self.verb} {self.kind} {self.name}"


def prepare(write: Write) -> Prepared:
    """Spell a write; this is where time goes, so it comes before the transaction."""
    match write:
        case Creation(value):
            name = resource_name(value)
            return Prepared("create", KIND_NAMES[type(value)], name, encode(value, name=name), None)
        case Replacement(value, revision):
            name = resource_name(value)
            body = encode(value, name=name)
            return Prepared("update", KIND_NAMES[type(value)], name, body, revision)
        case Deletion(kind, name, revision):
            return Prepared("delete", KIND_NAMES[kind], name, None, revision)


def perform(connection: sqlite3.Connection, write: Prepared) -> int:
    """Write; return the number of the change, which is the object's revision."""
    seq = (_create if write.revision is None else _replace)(connection, write)
    if seq % _WRITES_PER_TRIM == 0:
        end = seq - HISTORY
        connection.execute(_TRIM, (end, end - 2 * _WRITES_PER_TRIM))
    return seq


def _create(connection: sqlite3.Connection, write: Prepared) -> int:
    _, kind, name, body, _ = write
    seq = connection.execute(_APPEND, (kind, name, body)).lastrowid or 0
    if connection.execute(_INSERT, (kind, name, seq)).rowcount == 0:
        raise AlreadyExists(f"cannot {write}: it exists")
    return seq


def _replace(connection: sqlite3.Connection, write: Prepared) -> int:
    _, kind, name, body, revision = write
    execute = connection.execute
    old = revision.token if revision else ""
    # The newest change is never trimmed, so this number has never been given before.
    (seq,) = execute(_NEXT).fetchone()
    if body is None:
        count = execute(_REMOVE, (kind, name, old)).rowcount
    else:
        count = execute(_SWAP, (seq, kind, name, old)).rowcount
    if count == 0:
        if execute(_CURRENT, (kind, name)).fetchone() is None:
            raise NotFound(f"cannot {write}: it does not exist")
        raise Conflict(f"cannot {write}: it was changed meanwhile")
    # In place of the old version, whose pages it takes.
    execute(_MOVE, (seq, body, old))
    return int(seq)
