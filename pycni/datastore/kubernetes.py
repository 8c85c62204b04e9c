"""The datastore in Kubernetes: Calico's custom resources, and annotations of the Node objects.

Whoever reads them may be Calico: a cluster's nodes may run one or the other.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import groupby
from typing import Any, Literal, NoReturn, TypeVar

from pycni.datastore import kubeadm
from pycni.datastore import kubernetes_objects as objects
from pycni.datastore.kubernetes_api import JSON, JSON_PATCH, MERGE_PATCH, Access, Api, Refused
from pycni.datastore.kubernetes_balancing import KubernetesBalancing
from pycni.datastore.kubernetes_cluster import KubernetesCluster
from pycni.datastore.kubernetes_documents import KubernetesDocuments
from pycni.datastore.kubernetes_objects import Document
from pycni.datastore.kubernetes_pods import KubernetesPods
from pycni.datastore.kubernetes_services import service_sources
from pycni.datastore.kubernetes_watch import follow
from pycni.datastore.singly import sort_of, write_one
from pycni.errors import (
    AlreadyExists,
    Conflict,
    DatastoreUnusable,
    EventsLost,
    InvalidInput,
    NotFound,
    TryAgain,
)
from pycni.model.network import IPNetwork
from pycni.model.resources import Node, Resource, resource_name
from pycni.model.schema import KIND_NAMES
from pycni.model.services import ServiceSources
from pycni.ports import Change, Cursor, Listing, Revision, Stored, Write

T = TypeVar("T", bound=Resource)

_ATTEMPTS = 3
# Otherwise a definition that lacks a field, as an older Calico's, drops it without a word.
_STRICTLY = {"fieldValidation": "Strict"}


async def open_kubernetes(access: Access) -> "KubernetesDatastore":
    """Return a handle on a cluster's objects; raise `DatastoreUnusable` without credentials.

    Whether the API server answers shows with the first use.
    """
    api = Api(access)
    await api.connect()
    return KubernetesDatastore(api)


class KubernetesDatastore:
    """One handle on a cluster's objects; see `pycni.ports.Datastore`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    @property
    def identity(self) -> tuple[str]:
        """Return whose objects these are: the API server's address."""
        return (self._api.host,)

    def pods(self, node: str) -> KubernetesPods:
        """Return the cluster's pods as one node has to do with them; they share connections."""
        return KubernetesPods(self._api, node=node)

    def cluster(self) -> KubernetesCluster:
        """Return the cluster itself; it shares the connections."""
        return KubernetesCluster(self._api)

    def service_sources(self) -> ServiceSources:
        """Return what follows the cluster's Services; it shares the connections."""
        return service_sources(self._api)

    def load_balancing(self) -> KubernetesBalancing:
        """Return what gives Services their LoadBalancer addresses; it shares the connections."""
        return KubernetesBalancing(self._api)

    def documents(self) -> KubernetesDocuments:
        """Return what lists all objects of the cluster; it shares the connections."""
        return KubernetesDocuments(self._api)

    async def pod_subnets(self) -> Sequence[IPNetwork]:
        """Return the pods' subnets, as kubeadm was told them; none, where it made no cluster."""
        try:
            return kubeadm.pod_subnets(await self._api.call("GET", kubeadm.CONFIG_MAP))
        except Refused as exc:
            if exc.code == HTTPStatus.NOT_FOUND:
                return ()
            raise InvalidInput(f"cannot read {kubeadm.CONFIG_MAP}: {exc}") from exc

    async def get(self, kind: type[T], name: str) -> Stored[T] | None:
        """Return the object, or None."""
        document = await self._read(kind, name)
        return None if document is None else objects.stored_of(kind, document)

    async def list(self, kind: type[T]) -> Listing[T]:
        """Return all objects of a kind, in the order of their names."""
        for _ in range(_ATTEMPTS):
            try:
                documents, version = await self._pages(kind)
            except EventsLost:  # it took so long that the rest of it was compacted away
                continue
            break
        else:
            raise TryAgain(f"cannot list all of {KIND_NAMES[kind]}: they change too fast")
        living = [one for one in documents if not objects.is_marked(kind, one)]
        for document in documents:
            if objects.is_marked(kind, document):
                await self._finish_deletion(kind, document)
        living.sort(key=objects.name_of)
        return Listing(
            items=tuple([objects.stored_of(kind, one) for one in living]), cursor=Cursor(version)
        )

    async def create(self, value: T) -> Stored[T]:
        """Create an object; raise `AlreadyExists` when one of that name is there."""
        kind, name = type(value), resource_name(value)
        own = _own_metadata() if objects.has_own_metadata(kind) else None
        document = objects.creation(value, own=own)
        for _ in range(_ATTEMPTS):
            try:
                created = await self._api.call(
                    "POST", objects.collection(kind), query=_STRICTLY, body=document
                )
            except Refused as exc:
                if exc.code != HTTPStatus.CONFLICT:
                    self._refuse("create", kind, name, exc)
                # One that is marked as deleted is in nobody's way.
                if await self._read(kind, name) is not None:
                    raise AlreadyExists(f"{_cannot('create', kind, name)}: it exists") from exc
            else:
                return objects.written(value, created)
        raise TryAgain(f"{_cannot('create', kind, name)}: others make and delete it all the time")

    async def update(self, value: T, *, if_revision: Revision) -> Stored[T]:
        """Replace an object; raise `Conflict` when its revision differs, `NotFound` when gone."""
        kind, name = type(value), resource_name(value)
        path, method, content_type = objects.place(kind, name), "PATCH", JSON_PATCH
        body: object
        await self._require_numeric(kind, name, if_revision, verb="update")
        if isinstance(value, Node):
            body, path = await self._node_patch(value, if_revision)
            content_type = MERGE_PATCH
        elif objects.is_replaced_whole(kind):
            body, method, content_type = objects.replacement(value, if_revision), "PUT", JSON
        else:
            body = objects.spec_patch(value, if_revision)
        try:
            updated = await self._api.call(
                method, path, query=_STRICTLY, body=body, content_type=content_type
            )
        except Refused as exc:
            self._refuse("update", kind, name, exc)
        return objects.written(value, updated)

    async def delete(self, kind: type[T], name: str, *, if_revision: Revision) -> None:
        """Delete an object; raise `Conflict` when its revision differs, `NotFound` when gone."""
        await self._require_numeric(kind, name, if_revision, verb="delete")
        document: Document = {"metadata": {"resourceVersion": if_revision.token}}
        mark = objects.deletion_mark(kind, if_revision)
        path = objects.place(kind, name)
        try:
            if mark is not None:
                document = await self._api.call("PATCH", path, body=mark, content_type=MERGE_PATCH)
        except Refused as exc:
            self._refuse("delete", kind, name, exc)
        await self._delete(kind, name, document, is_marked=mark is not None)

    async def write(self, writes: Sequence[Write]) -> Sequence[Stored[Any] | None]:
        """Do several writes in order, each by itself; raise the error of the first refused.

        What is alike and stands in a row goes out at once: sixteen handles take as long as one.
        """
        results: list[Stored[Any] | None] = []
        for _, alike in groupby(writes, key=sort_of):
            running = [write_one(self, one) for one in alike]
            ended = await asyncio.gather(*running, return_exceptions=True)
            for one in ended:
                if isinstance(one, BaseException):
                    raise one
                results.append(one)
        return results

    async def watch(self, kind: type[T], *, after: Cursor) -> AsyncIterator[Change[T]]:
        """Yield what changed after the cursor, in order; raise `EventsLost` when it is too old."""
        async for change in follow(self._api, kind, after=after):
            yield change

    async def close(self) -> None:
        """Close the connections; running watches end with `TryAgain`."""
        await self._api.close()

    # --- reading --------------------------------------------------------------------------------

    async def _read(self, kind: type[object], name: str) -> Document | None:
        """Return an object as the API has it; one that is marked as deleted is finished off."""
        try:
            document = await self._api.call("GET", objects.place(kind, name))
        except Refused as exc:
            if exc.code == HTTPStatus.NOT_FOUND and exc.is_about_object:
                return None
            self._refuse("read", kind, name, exc)
        if not objects.is_marked(kind, document):
            return document
        await self._finish_deletion(kind, document)
        return None

    async def _pages(self, kind: type[object]) -> tuple[Sequence[Document], str]:
        """Return all objects of a kind as they were at one moment, and its resource version."""
        try:
            return await self._api.pages(objects.collection(kind))
        except Refused as exc:
            self._refuse("list", kind, "", exc)

    # --- writing --------------------------------------------------------------------------------

    async def _node_patch(self, node: Node, revision: Revision) -> tuple[Document, str]:
        """Return what to change of a Node, and where.

        As Calico does, what is not the cluster's to say goes through the `status` subresource,
        for which a node's agent needs no leave to change anything else.
        """
        before = await self._read(Node, node.name)
        if before is None:
            raise NotFound(f"{_cannot('update', Node, node.name)}: it does not exist")
        patch, is_for_labels = objects.node_patch(before, node, revision)
        path = objects.place(Node, node.name)
        return patch, path if is_for_labels else f"{path}/status"

    async def _delete(
        self, kind: type[object], name: str, document: Document, *, is_marked: bool
    ) -> None:
        try:
            await self._api.call(
                "DELETE", objects.place(kind, name), body=objects.preconditions(document)
            )
        except Refused as exc:
            # Somebody else may have seen the mark, and finished.
            if not (is_marked and exc.code == HTTPStatus.NOT_FOUND and exc.is_about_object):
                self._refuse("delete", kind, name, exc)

    async def _finish_deletion(self, kind: type[object], document: Document) -> None:
        """Delete what somebody has marked as deleted, and did not live to delete."""
        try:
            await self._delete(kind, objects.name_of(document), document, is_marked=True)
        except Conflict:
            return  # somebody else is at it

    async def _require_numeric(
        self,
        kind: type[object],
        name: str,
        revision: Revision,
        *,
        verb: Literal["update", "delete"],
    ) -> None:
        """Refuse a revision that is another store's: the API would call it malformed."""
        if revision.token.isdecimal():
            return
        if await self._read(kind, name) is None:
            raise NotFound(f"{_cannot(verb, kind, name)}: it does not exist")
        raise Conflict(f"{_cannot(verb, kind, name)}: it was changed meanwhile")

    def _refuse(self, verb: str, kind: type[object], name: str, refused: Refused) -> NoReturn:
        """Raise what it means that the server refused a request for an object."""
        what = _cannot(verb, kind, name)
        if refused.code == HTTPStatus.NOT_FOUND and refused.is_about_object:
            raise NotFound(f"{what}: it does not exist") from refused
        if refused.code == HTTPStatus.NOT_FOUND:
            raise DatastoreUnusable(
                f"{what}: the cluster does not know this kind: apply deploy/crds.yaml to it"
            ) from refused
        if "unknown field" in str(refused):
            raise DatastoreUnusable(
                f"{what}: the cluster's definition of this kind is an older one ({refused}): apply"
                " deploy/crds.yaml to it"
            ) from refused
        if refused.code == HTTPStatus.CONFLICT:
            raise Conflict(f"{what}: it was changed meanwhile") from refused
        raise InvalidInput(f"{what}: {refused}") from refused


def _own_metadata() -> Document:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"uid": str(uuid.uuid4()), "creationTimestamp": now}


def _cannot(verb: str, kind: type[object], name: str) -> str:
    return f"cannot {verb} {KIND_NAMES[kind]} {name}".rstrip()
