"""What a cluster says and is told beside its objects; see `pycni.ports_cluster.Cluster`."""

import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from pycni.check.findings import Report, bounded, read_report, report_document
from pycni.datastore.kubernetes_api import (
    MERGE_PATCH,
    METADATA,
    METADATA_LIST,
    Api,
    Refused,
    hinting,
)
from pycni.datastore.kubernetes_objects import PATHS, Document, place
from pycni.datastore.kubernetes_watch import events
from pycni.errors import InvalidInput
from pycni.model.resources import Node
from pycni.model.schema import KIND_NAMES
from pycni.ports import Cursor
from pycni.ports_cluster import Greeting

CHECK_ANNOTATION = "pycni.io/check"
"""Of a Node: what its agent has found, as `pycnictl check -o json` spells it."""
EVENTS = "/api/v1/namespaces/default/events"
"""Where events about what has no namespace are, such as nodes."""
SECRETS = "/api/v1/namespaces/kube-system/secrets"
POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
_SILENT = Report(
    unchecked=("its agent has published nothing: does it run? (pycnictl status on that node)",)
)


class KubernetesCluster:
    """The cluster behind one API server's connections."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def greet(self) -> Greeting:
        """Ask the API server for its version."""
        await self._api.call("GET", PATHS[Node], query={"limit": "1"})  # makes the connection
        return await self._api.greet()

    async def missing_kinds(self) -> Sequence[str]:
        """Return the kinds of ours that the cluster has no definition of."""
        missing = []
        for kind, path in PATHS.items():
            try:
                await self._api.call("GET", path, query={"limit": "1"})
            except Refused as exc:
                if exc.code != HTTPStatus.NOT_FOUND:
                    raise InvalidInput(f"cannot list {path}: {exc}") from exc
                missing.append(KIND_NAMES[kind])
        return missing

    async def publish(self, node: str, report: Report | None) -> None:
        """Have a report stand as an annotation, beside others; what stands there is not written."""
        document = report and report_document(bounded(report))
        text = document and json.dumps(document, separators=(",", ":"))
        patch = {"metadata": {"annotations": {CHECK_ANNOTATION: text}}}
        try:
            there = await self._api.call("GET", place(Node, node), accept=METADATA)
            if _annotation(there) == text:
                return
            await self._api.call(
                "PATCH", f"{place(Node, node)}/status", body=patch, content_type=MERGE_PATCH
            )
        except Refused as exc:
            if report is None and exc.code == HTTPStatus.NOT_FOUND:
                return
            raise InvalidInput(f"cannot annotate Node {node}: {exc}") from exc

    async def reports(self) -> Mapping[str, Report]:
        """Return what each node's agent has published."""
        try:
            documents, _ = await self._api.pages(PATHS[Node])
        except Refused as exc:
            raise InvalidInput(f"cannot list nodes: {exc}") from exc
        return {one["metadata"]["name"]: _report_of(one) for one in documents}

    async def policies(self) -> AsyncIterator[frozenset[str]]:
        """Follow which NetworkPolicy objects there are."""
        try:
            with hinting("deploy/rbac.yaml"):
                documents, version = await self._api.pages(POLICIES, accept=METADATA_LIST)
        except Refused as exc:
            raise InvalidInput(f"cannot list NetworkPolicy objects: {exc}") from exc
        known = {_full_name(one) for one in documents}
        yield frozenset(known)
        async for event in events(self._api, POLICIES, after=Cursor(version), accept=METADATA):
            before = len(known)
            if event["type"] == "DELETED":
                known.discard(_full_name(event["object"]))
            else:
                known.add(_full_name(event["object"]))
            if len(known) != before:
                yield frozenset(known)

    async def secret(self, name: str) -> AsyncIterator[Mapping[str, bytes] | None]:
        """Follow one Secret of the namespace that the agents' account is in."""
        only = {"fieldSelector": f"metadata.name={name}"}
        try:
            with hinting("deploy/bgp-passwords.yaml"):
                documents, version = await self._api.pages(SECRETS, query=only)
        except Refused as exc:
            raise InvalidInput(f"cannot read Secret {name}: {exc}") from exc
        yield _data(documents[0]) if documents else None
        async for event in events(self._api, SECRETS, after=Cursor(version), query=only):
            yield None if event["type"] == "DELETED" else _data(event["object"])

    async def warn(self, node: str, *, reason: str, message: str) -> None:
        """Make an Event; `kubectl describe node` finds it by the uid, the name as the kubelet's."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "metadata": {"generateName": f"{node}.", "namespace": "default"},
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": {"component": "pycni-agent", "host": node},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._api.call("POST", EVENTS, body=event)
        except Refused as exc:
            raise InvalidInput(f"cannot make an Event about Node {node}: {exc}") from exc


def _full_name(document: Document) -> str:
    metadata = document["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}"


def _annotation(document: Document) -> str | None:
    text: str | None = (document["metadata"].get("annotations") or {}).get(CHECK_ANNOTATION)
    return text


def _report_of(document: Document) -> Report:
    text = _annotation(document)
    if text is None:
        return _SILENT
    try:
        report = read_report(json.loads(text))
    except (ValueError, RecursionError):
        report = None
    return report or Report(unchecked=(f"cannot read its annotation {CHECK_ANNOTATION}",))


def _data(document: Document) -> Mapping[str, bytes]:
    data = document.get("data") or {}
    return {key: base64.b64decode(text) for key, text in data.items()}
