"""The pods of one node, and all namespaces, as the cluster's API tells of them.

Both are watched, so that an ADD asks for nothing; what a watch does not know yet is asked for.  Of
each object only Calico's annotations are kept: a node has hundreds of pods, a cluster thousands of
namespaces, and of the rest nobody here has a use.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote

from pycni.datastore.kubernetes_api import MERGE_PATCH, METADATA, METADATA_LIST, Api, Refused
from pycni.datastore.kubernetes_objects import Document
from pycni.datastore.kubernetes_watch import events
from pycni.errors import EventsLost, InvalidInput, NotFound, PycniError
from pycni.model.endpoints import POD_ANNOTATION
from pycni.ports import Cursor
from pycni.ports_cluster import PodFacts

_log = logging.getLogger(__name__)

_PODS = "/api/v1/pods"
_NAMESPACES = "/api/v1/namespaces"
_FIRST_RETRY_S = 0.2
_LAST_RETRY_S = 10.0

Name = tuple[str, str]
"""Namespace and name; the namespace of a namespace is empty."""


class _Watch(NamedTuple):
    path: str
    query: Mapping[str, str]


class KubernetesPods:
    """See `pycni.ports_cluster.Pods`; `run` keeps it true, `on_change` hears of a pod's changes."""

    def __init__(
        self, api: Api, *, node: str, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._api = api
        self._pods = _Watch(_PODS, {"fieldSelector": f"spec.nodeName={node}"})
        self._namespaces = _Watch(_NAMESPACES, {})
        self._known: dict[str, dict[Name, PodFacts]] = {}
        self.on_change = on_change

    async def run(self) -> None:
        """Follow pods and namespaces until cancelled."""
        async with asyncio.TaskGroup() as group:
            for watch in (self._pods, self._namespaces):
                group.create_task(self._follow(watch))

    async def get(self, namespace: str, name: str, *, uid: str = "") -> PodFacts | None:
        """Return what is known of a pod, or None.

        A watch that hangs may still know another of that name.  A static pod is known to its
        kubelet by a uid that the cluster never hears of, so that what is asked for may differ.
        """
        known = self._known.get(_PODS, {}).get((namespace, name))
        if known is not None and uid in ("", known.uid):
            return known
        return await self._ask(_path(namespace, name))

    async def annotations_of_namespace(self, name: str) -> Mapping[str, str]:
        """Return a namespace's annotations; none, where there is no such namespace."""
        place = f"{_NAMESPACES}/{quote(name, safe='')}"
        known = self._known.get(_NAMESPACES, {}).get(("", name))
        found = known if known is not None else await self._ask(place)
        return {} if found is None else found.annotations

    def on_node(self) -> Sequence[PodFacts] | None:
        """Return the pods of this node; None while they are not known."""
        known = self._known.get(_PODS)
        return None if known is None else list(known.values())

    async def annotate(self, pod: PodFacts, annotations: Mapping[str, str]) -> None:
        """Write annotations of just this pod, beside others; raise `NotFound` when it is gone."""
        patch = {"metadata": {"uid": pod.uid, "annotations": dict(annotations)}}
        place = f"{_path(pod.namespace, pod.name)}/status"
        try:
            await self._api.call("PATCH", place, body=patch, content_type=MERGE_PATCH)
        except Refused as exc:
            # Another pod of that name has another uid, which can't be changed.
            if exc.code == HTTPStatus.NOT_FOUND or "metadata.uid" in str(exc):
                raise NotFound(f"pod {pod.namespace}/{pod.name} is gone") from exc
            raise InvalidInput(f"cannot annotate {pod.namespace}/{pod.name}: {exc}") from exc

    async def _ask(self, place: str) -> PodFacts | None:
        try:
            return _facts(await self._api.call("GET", place, accept=METADATA))
        except Refused as exc:
            if exc.code == HTTPStatus.NOT_FOUND:
                return None
            raise InvalidInput(f"cannot read {place}: {exc}") from exc

    async def _follow(self, watch: _Watch) -> None:
        delay = _FIRST_RETRY_S
        while True:
            try:
                documents, version = await self._api.pages(
                    watch.path, query=watch.query, accept=METADATA_LIST
                )
                self._known[watch.path] = {_name(one): _facts(one) for one in documents}
                if watch.path == _PODS:
                    self.on_change()
                delay = _FIRST_RETRY_S
                async for event in events(
                    self._api,
                    watch.path,
                    after=Cursor(version),
                    query=watch.query,
                    accept=METADATA,
                ):
                    self._take(watch.path, event)
            except EventsLost:
                continue
            except (PycniError, Refused) as exc:
                # Whoever asks for a pod that is not known meets the error himself.
                _log.info("cannot watch", extra={"path": watch.path, "reason": str(exc)})
                self._known.pop(watch.path, None)
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_RETRY_S)

    def _take(self, path: str, event: Document) -> None:
        known, name = self._known[path], _name(event["object"])
        before = known.pop(name, None)
        if event["type"] != "DELETED":
            known[name] = _facts(event["object"])
        # A pod's status changes often, and is nothing to us.
        if path == _PODS and known.get(name) != before:
            self.on_change()


def _path(namespace: str, name: str) -> str:
    return f"{_NAMESPACES}/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"


def _name(document: Document) -> Name:
    metadata = document["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _facts(document: Document) -> PodFacts:
    namespace, name = _name(document)
    annotations = document["metadata"].get("annotations") or {}
    kept = {key: text for key, text in annotations.items() if key.startswith(POD_ANNOTATION)}
    return PodFacts(namespace, name, document["metadata"]["uid"], kept)
