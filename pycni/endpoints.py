"""Endpoint records, their locks and the journal of unfinished releases, as files.

Both engines, the CNI server's and the one that runs in process, use these same files, so that
either can go on where the other died.  Records and locks live in the run directory, which a reboot
empties together with the namespaces that they describe; the journal lives in the state directory
and is flushed to disk, because an address stays assigned across reboots.
"""

# ruff: noqa: PTH103, PTH104, PTH108, PTH116, PTH119, PTH120, PTH208
# Each request passes here several times, and a Path costs more than the system call behind it.

import builtins
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from string import hexdigits
from typing import Any

from pycni.errors import DatastoreUnusable
from pycni.files import flush_directory
from pycni.keylocks import KeyLocks, Lock
from pycni.model.endpoints import EndpointKey, PendingRelease, WorkloadEndpoint
from pycni.model.records import (
    damaged,
    endpoint_document,
    parse_endpoint,
    parse_pending,
    pending_document,
)

_log = logging.getLogger(__name__)
# A ready encoder: json.dumps looks for circles in each document.
_encode = json.JSONEncoder(check_circular=False).encode

_Mark = tuple[int, int, int]
_UNFINISHED = ".new"
_DIGEST_LENGTH = 40
_CHUNK = 1 << 16
# Many more than a node has pods; what is forgotten is read again.
_REMEMBERED = 1024


class FileEndpoints:
    """The `Endpoints` door over two directories; any number of processes may use it at once."""

    def __init__(self, *, run_dir: Path, state_dir: Path) -> None:
        # Plain strings and os functions below: each request pays several times for a Path.
        self._records = str(run_dir / "endpoints")
        self._journal = str(state_dir / "journal")
        self._written: dict[str, tuple[_Mark, WorkloadEndpoint]] = {}
        for directory in (self._records, self._journal):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        self._locks = KeyLocks(str(run_dir / "endpoints.lock"))

    @property
    def directory(self) -> Path:
        """Return the directory of the records, for watching."""
        return Path(self._records)

    # --- records --------------------------------------------------------------------------------

    def get(self, key: EndpointKey) -> WorkloadEndpoint | None:
        """Return the record, or None.

        One that is still as it was written here needs no reading: a DEL finds what its ADD wrote.
        """
        return self._recall(_file_name(key))

    def list(self) -> Sequence[WorkloadEndpoint]:
        """Return all records, in the order of their keys."""
        found = (self._read(path) for path in _json_files(self._records))
        return sorted((e for e in found if e is not None), key=lambda e: e.key)

    def readable(self) -> tuple[Sequence[WorkloadEndpoint], Sequence[str]]:
        """Return the records that can be read, as `list` does, and what is wrong with others.

        As with `get`, none is read that is still as it was written here.
        """
        found: builtins.list[WorkloadEndpoint] = []
        complaints: builtins.list[str] = []
        for path in _json_files(self._records):
            try:
                record = self._recall(os.path.basename(path))
            except DatastoreUnusable as exc:
                complaints.append(str(exc))
                continue
            if record is not None:
                found.append(record)
        return sorted(found, key=lambda e: e.key), complaints

    def _recall(self, name: str) -> WorkloadEndpoint | None:
        """Return the record in the file of that name, which it reads if it must."""
        if self._is_as_written(name):
            return self._written[name][1]
        return self._read(f"{self._records}/{name}")

    def _is_as_written(self, name: str) -> bool:
        """Tell whether the file of that name is as this object wrote it last."""
        if name not in self._written:
            return False
        try:
            return self._written[name][0] == _mark(os.stat(f"{self._records}/{name}"))
        except FileNotFoundError:
            return False

    def read_file(self, name: str) -> WorkloadEndpoint | None:
        """Return the record in the file of that name, or None."""
        return self._read(f"{self._records}/{name}")

    @staticmethod
    def file_name(key: EndpointKey) -> str:
        """Return the name of a record's file."""
        return _file_name(key)

    def put(self, endpoint: WorkloadEndpoint) -> None:
        """Write or replace a record, atomically."""
        name = _file_name(endpoint.key)
        mark = _write(f"{self._records}/{name}", endpoint_document(endpoint))
        self._written[name] = (mark, endpoint)
        if len(self._written) > _REMEMBERED:
            del self._written[next(iter(self._written))]

    def remove(self, key: EndpointKey) -> None:
        """Remove a record; absent is success."""
        name = _file_name(key)
        self._written.pop(name, None)
        # First what a crash in `put` may have left: afterwards nothing would tell of it.
        _remove(_unfinished(f"{self._records}/{name}"))
        _remove(f"{self._records}/{name}")

    def sweep(self) -> Sequence[str]:
        """Remove what crashes left of records and releases while these were being written.

        Whoever holds a key's lock may be writing now; its file stays for the next time.  Returns
        what could not be removed, a sentence each.
        """
        problems = []
        for directory in (self._records, self._journal):
            for name in filter(_is_unfinished, os.listdir(directory)):
                place = _lock_place(name)
                if not self._locks.take(place):
                    continue
                try:
                    _remove(f"{directory}/{name}")
                except OSError as exc:
                    problems.append(f"cannot remove {directory}/{name}: {exc.strerror}")
                finally:
                    self._locks.free(place)
        return problems

    @staticmethod
    def _read(path: str) -> WorkloadEndpoint | None:
        document = _read_json(path)
        return None if document is None else parse_endpoint(path, document)

    # --- locks ----------------------------------------------------------------------------------

    def lock(self, key: EndpointKey, *, timeout_s: float) -> Lock:
        """Hold the lock of one key across processes; raise `TryAgain` after `timeout_s`."""
        # Two keys that met in sixty bits would wait for each other, and nothing worse.
        return self._locks.lock(_lock_place(_digest(key)), timeout_s=timeout_s, what=str(key))

    # --- journal --------------------------------------------------------------------------------

    def journal(self, pending: PendingRelease) -> None:
        """Keep a release that could not be done; it is on disk when this returns."""
        path = f"{self._journal}/{_file_name(pending.key)}"
        _write(path, pending_document(pending), is_durable=True)

    def pending(self) -> Sequence[PendingRelease]:
        """Return the journalled releases."""
        found = (_read_pending(path) for path in _json_files(self._journal))
        return [pending for pending in found if pending is not None]

    def get_pending(self, key: EndpointKey) -> PendingRelease | None:
        """Return the journalled release of one key, or None."""
        return _read_pending(f"{self._journal}/{_file_name(key)}")

    def settle(self, pending: PendingRelease) -> None:
        """Forget a journalled release that has been done; absent is success."""
        _remove(f"{self._journal}/{_file_name(pending.key)}")


# --- files --------------------------------------------------------------------------------------


@lru_cache(maxsize=_REMEMBERED)
def _digest(key: EndpointKey) -> str:
    """Return what files of a key are called; a request asks several times on end."""
    # Container ids may be longer than a file name may be; the key itself is in the record.
    return hashlib.sha256(str(key).encode()).hexdigest()[:_DIGEST_LENGTH]


def _file_name(key: EndpointKey) -> str:
    return f"{_digest(key)}.json"


def _lock_place(name: str) -> int:
    """Return where the lock lies of the key with that digest, or with a file of that name."""
    return int(name[:15], 16)


def _unfinished(path: str) -> str:
    """Return where a file is written before it takes its place; the key's lock is held."""
    return path + _UNFINISHED


def _is_unfinished(name: str) -> bool:
    """Tell whether a file of ours was begun under that name."""
    digest, dot, _ = name.partition(".")
    is_digest = len(digest) == _DIGEST_LENGTH and set(digest) <= set(hexdigits)
    return is_digest and bool(dot) and name.endswith(_UNFINISHED)


def _json_files(directory: str) -> list[str]:
    return sorted(f"{directory}/{name}" for name in os.listdir(directory) if name.endswith(".json"))


def _mark(status: os.stat_result) -> _Mark:
    # The number alone would not do: a file system gives it to the next file but one.
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def _write(path: str, document: dict[str, Any], *, is_durable: bool = False) -> _Mark:
    """Write a file, atomically; return what tells it from another of the same name."""
    temporary = _unfinished(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        rest = _encode(document).encode()
        while rest:  # a disk that is getting full takes a part first
            rest = rest[os.write(fd, rest) :]
        mark = _mark(os.fstat(fd))
        if is_durable:
            os.fsync(fd)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)
    os.rename(temporary, path)
    if is_durable:
        flush_directory(os.path.dirname(path))
    return mark


def _read_json(path: str) -> dict[str, Any] | None:
    text = _read(path)
    if text is None:
        return None
    try:
        document = json.loads(text)
    except ValueError as exc:
        raise damaged(path, exc) from exc
    if not isinstance(document, dict):
        raise damaged(path, "it holds no object")
    return document


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        text = b""
        while part := os.read(fd, _CHUNK):
            text += part
            if len(part) < _CHUNK:  # a file on disk gives less only at its end
                break
    finally:
        os.close(fd)
    return text


def _remove(path: str) -> None:
    try:  # noqa: SIM105 - `suppress` costs as much as the system call.
        os.unlink(path)
    except FileNotFoundError:
        pass


def _read_pending(path: str) -> PendingRelease | None:
    """Return a journalled release; a damaged one is set aside, it must not block others."""
    try:
        document = _read_json(path)
        return None if document is None else parse_pending(path, document)
    except DatastoreUnusable as exc:
        _log.exception("a journalled release is damaged, set aside", exc_info=exc)
        os.rename(path, f"{path}.damaged")
        return None
