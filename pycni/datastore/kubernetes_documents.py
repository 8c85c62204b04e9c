"""Objects of an API server as they are, whosever they are: for who judges another's settings."""

from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from pycni.datastore.kubernetes_api import Api, Refused
from pycni.datastore.kubernetes_objects import Document, place
from pycni.errors import InvalidInput
from pycni.model.resources import Node

STRATEGIC_PATCH = "application/strategic-merge-patch+json"
"""Kubernetes's own: of a list of conditions it changes the one of that type."""


class KubernetesDocuments:
    """What may be asked of an API server beside the datastore's kinds."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def list(self, path: str) -> Sequence[Document]:
        """Return all objects below a path; none where such are not defined."""
        try:
            return (await self._api.pages(path))[0]
        except Refused as exc:
            if exc.code == HTTPStatus.NOT_FOUND:
                return ()
            raise InvalidInput(f"cannot list {path}: {exc}") from exc

    async def set_condition(self, node: str, *, kind: str, status: str, reason: str) -> None:
        """Write one condition of a Node; the others stay."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": "pycni serves this node",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        try:
            await self._api.call(
                "PATCH",
                f"{place(Node, node)}/status",
                body={"status": {"conditions": [condition]}},
                content_type=STRATEGIC_PATCH,
            )
        except Refused as exc:
            raise InvalidInput(f"cannot write the condition of Node {node}: {exc}") from exc
