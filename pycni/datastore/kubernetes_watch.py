"""Follow the changes of one kind in Kubernetes's API, across the watches that the server ends.

A server ends each watch after some minutes, and may have forgotten what came after an old resource
version.  Bookmarks keep the position young even where nothing changes.
"""

from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import TypeVar

from pycni.datastore import kubernetes_objects as objects
from pycni.datastore.cursors import parse_cursor
from pycni.datastore.kubernetes_api import JSON, Api, Refused
from pycni.datastore.kubernetes_objects import Document
from pycni.errors import DatastoreUnusable, EventsLost, TryAgain
from pycni.model.resources import Resource
from pycni.ports import Change, Cursor

T = TypeVar("T", bound=Resource)

PERIOD_S = 290
"""How long one watch is to last; the server's own limit is five to ten minutes."""


async def follow(api: Api, kind: type[T], *, after: Cursor) -> AsyncIterator[Change[T]]:
    """Yield each change after the cursor; raise `EventsLost` when the server does not know it."""
    gone: set[str] = set()
    async for event in events(api, objects.collection(kind), after=after):
        change = _change(kind, event["type"], event["object"], gone)
        if change is not None:
            yield change


async def events(
    api: Api,
    path: str,
    *,
    after: Cursor,
    query: Mapping[str, str] | None = None,
    accept: str = JSON,
) -> AsyncIterator[Document]:
    """Yield what happened to the objects below a path, for ever; no bookmarks.

    `query` restricts the objects, as a field selector does; `accept` may be `METADATA`.
    """
    position = parse_cursor(after)
    while True:
        await _require_known(api, path, position, query or {})
        asked = {**(query or {}), **_watching(position)}
        async for event in _watched(api, path, asked, accept=accept):
            version = _version(path, event)
            if version < position:
                raise EventsLost(f"change {version} came after {position}: list again")
            position = version
            if event["type"] != "BOOKMARK":
                yield event


def _watching(position: int) -> dict[str, str]:
    return {
        "watch": "1",
        "allowWatchBookmarks": "true",
        "resourceVersion": str(position),
        "timeoutSeconds": str(PERIOD_S),
    }


async def _watched(
    api: Api, path: str, query: Mapping[str, str], *, accept: str
) -> AsyncIterator[Document]:
    try:
        async for event in api.stream(path, query, accept=accept):
            if _kind_of(path, event) == "ERROR":
                _fail(path, event["object"])
            yield event
    except Refused as exc:
        raise DatastoreUnusable(f"cannot watch {path}: {exc}") from exc


def _kind_of(path: str, event: object) -> str:
    """Return of what kind an event is; raise `TryAgain` when it is none."""
    match event:
        case {"type": str(kind), "object": {}}:
            return kind
    raise TryAgain(f"cannot make sense of a change in {path}: it has no type, or no object")


def _version(path: str, event: Document) -> int:
    """Return as of when an event is; raise `TryAgain` when it can't be one of an object."""
    match event:
        case {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}} | {
            "object": {"metadata": {"resourceVersion": version, "name": str()}}
        } if _is_number(version):
            return int(version)
    # Nothing of what it says: it may be of a Secret.
    raise TryAgain(f"cannot make sense of a change in {path}: no name, or no resource version")


def _is_number(version: object) -> bool:
    return isinstance(version, str) and version.isascii() and version.isdecimal()


def _fail(path: str, status: Document) -> None:
    why = f"cannot watch {path}: {status.get('message')}"
    if status.get("code") == HTTPStatus.GONE:
        raise EventsLost(f"{why}; list again")
    raise TryAgain(why)


def _change(kind: type[T], event: str, document: Document, gone: set[str]) -> Change[T] | None:
    """Return what an event tells; None: nothing that was not told already.

    An object that is marked as deleted is gone with the mark, not with its end.
    """
    cursor = Cursor(document["metadata"]["resourceVersion"])
    name = objects.name_of(document)
    was_told = name in gone
    gone.discard(name)
    if event == "DELETED":
        return None if was_told else Change(name, None, cursor)
    if objects.is_marked(kind, document):
        gone.add(name)
        return None if was_told else Change(name, None, cursor)
    return Change(name, objects.stored_of(kind, document), cursor)


async def _require_known(api: Api, path: str, position: int, query: Mapping[str, str]) -> None:
    """Raise `EventsLost` when the server has not come as far as a position.

    It was restored from a backup then, and a watch from there would silently leave out what
    happens until it comes as far again.  With the `query`: there may be a right to no more.
    """
    try:
        page = await api.call("GET", path, query={**query, "limit": "1"})
    except Refused as exc:
        raise DatastoreUnusable(f"cannot list {path}: {exc}") from exc
    match page:
        case {"metadata": {"resourceVersion": version}} if _is_number(version):
            head = int(version)
        case _:
            raise TryAgain(f"cannot make sense of the list of {path}: no resource version")
    if head < position:
        raise EventsLost(f"cannot watch from {position}: the server is at {head}; list again")
