"""Follow a cluster's Services and EndpointSlices, for what of them is announced by BGP."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

from pycni.datastore.kubernetes_api import Api, Refused, hinting
from pycni.datastore.kubernetes_watch import events
from pycni.errors import InvalidInput
from pycni.model.schema_service import SERVICE_LABEL, full_name, parse_service, parse_slice
from pycni.model.services import (
    ServiceChanged,
    ServiceNews,
    ServicesListed,
    ServiceSources,
    SliceChanged,
    SlicesListed,
)
from pycni.ports import Cursor

SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
_OF_SERVICES = {"labelSelector": SERVICE_LABEL}
_FILE = "deploy/rbac.yaml"

T = TypeVar("T")


def service_sources(api: Api) -> ServiceSources:
    """Return what follows both kinds."""
    return {
        "Services": lambda: _services(api),
        "EndpointSlices": lambda: _slices(api),
    }


async def _services(api: Api) -> AsyncIterator[ServiceNews]:
    values, after = await listed(api, SERVICES, parse_service, hint=_FILE)
    yield ServicesListed(values)
    async for event in events(api, SERVICES, after=after):
        name = full_name(event["object"])
        if name is not None:
            is_gone = event["type"] == "DELETED"
            yield ServiceChanged(name, None if is_gone else parse_service(event["object"]))


async def _slices(api: Api) -> AsyncIterator[ServiceNews]:
    values, after = await listed(api, SLICES, parse_slice, hint=_FILE, query=_OF_SERVICES)
    yield SlicesListed(values)
    async for event in events(api, SLICES, after=after, query=_OF_SERVICES):
        name = full_name(event["object"])
        if name is not None:
            is_gone = event["type"] == "DELETED"
            yield SliceChanged(name, None if is_gone else parse_slice(event["object"]))


async def listed(
    api: Api,
    path: str,
    parse: Callable[[object], T | None],
    *,
    hint: str,
    query: Mapping[str, str] | None = None,
) -> tuple[tuple[T, ...], Cursor]:
    """Return all objects below a path, and where to watch on from.

    `hint` is the file that gives the right.  Page by page: as documents all of a big cluster's
    would be a hundred times as much memory.
    """
    found: list[T] = []
    version = ""
    try:
        with hinting(hint):
            async for documents, as_of in api.paging(path, query=query):
                found += [one for one in map(parse, documents) if one is not None]
                version = as_of
    except Refused as exc:
        raise InvalidInput(f"cannot list {path}: {exc}") from exc
    return tuple(found), Cursor(version)
