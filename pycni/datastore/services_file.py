"""Services and EndpointSlices from a file, where there is no cluster to ask: for labs.

The file is what `kubectl get services,endpointslices -A -o yaml` prints, or the same as several
documents.  It is read again whenever it is written or replaced.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from pycni.errors import InvalidInput
from pycni.inotify import DirectoryWatch
from pycni.model.schema_service import parse_service, parse_slice
from pycni.model.services import ServiceNews, ServicesListed, SlicesListed
from pycni.yamltext import read_documents


async def follow_file(path: Path) -> AsyncIterator[ServiceNews]:
    """Yield all that a file holds, now and whenever it changes; it may come later."""
    with contextlib.closing(DirectoryWatch(path.parent)) as watch:
        for news in _news(path):
            yield news
        async for events in watch:
            if any(event.name == path.name for event in events):
                for news in _news(path):
                    yield news


def _news(path: Path) -> tuple[ServiceNews, ServiceNews]:
    documents = list(_documents(path))
    services = [one for one in map(parse_service, _of(documents, "Service")) if one is not None]
    slices = [one for one in map(parse_slice, _of(documents, "EndpointSlice")) if one is not None]
    return ServicesListed(tuple(services)), SlicesListed(tuple(slices))


def _of(documents: list[object], kind: str) -> list[object]:
    return [one for one in documents if isinstance(one, dict) and one.get("kind") == kind]


def _documents(path: Path) -> Iterator[object]:
    """Yield the objects of a file; an absent one has none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInput(f"cannot read services_file {path}: {exc}") from exc
    for document in read_documents(text, source=f"services_file {path}"):
        items = document.get("items") if isinstance(document, dict) else None
        if isinstance(items, list):
            yield from items
        else:
            yield document
