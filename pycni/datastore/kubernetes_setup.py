"""Prepare a cluster for its nodes: definitions and rights, and the agents' credentials.

What an administrator does once, with his own credentials; the agents never come here.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pycni.datastore.kubernetes_api import APPLY_PATCH, JSON, Access, Api, Refused
from pycni.datastore.kubernetes_objects import Document
from pycni.errors import DatastoreUnusable, InvalidInput, TryAgain

ACCOUNT = "pycni-agent"
NAMESPACE = "kube-system"
TOKEN_LABEL = {"app.kubernetes.io/name": "pycni-agent-token"}
MANAGER = "pycni"
"""Who writes here, as the cluster notes it field by field (`metadata.managedFields`)."""
PATIENCE_S = 30.0
POLL_S = 0.2

_DEFINITION = "CustomResourceDefinition"
_SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
_COLLECTIONS = {
    _DEFINITION: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ClusterRole": f"{_RBAC}/clusterroles",
    "ClusterRoleBinding": f"{_RBAC}/clusterrolebindings",
    "Role": f"{_RBAC}/namespaces/{{}}/roles",
    "RoleBinding": f"{_RBAC}/namespaces/{{}}/rolebindings",
    "ValidatingAdmissionPolicy": f"{_ADMISSION}ies",
    "ValidatingAdmissionPolicyBinding": f"{_ADMISSION}ybindings",
}


class Setup:
    """One administrator's connection; `close` it."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._api = Api(access)

    async def connect(self) -> None:
        """Read the credentials; raise `DatastoreUnusable` when there are none."""
        await self._api.connect()

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def apply(self, documents: Iterable[Document]) -> list[str]:
        """Bring objects about, and wait until definitions serve; say what was done, line by line.

        A definition that another has made, as Calico's installer does, is his to keep: it is left
        alone.
        """
        places = [(document, _place(document)) for document in documents]  # all, before the first
        done = []
        for document, place in places:
            is_definition = document["kind"] == _DEFINITION
            if is_definition and await self._is_anothers(place):
                done.append(f"kept {_title(document)}, which another manages")
                continue
            if place.startswith(_ADMISSION) and not await self._is_known(place):
                done.append(f"left out {_title(document)}: Kubernetes knows such from 1.30 on")
                continue
            await self._apply(document, place)
            done.append(f"applied {_title(document)}")
            if is_definition:
                await self._wait(place, _is_established, f"{_title(document)} is not served")
        return done

    async def agents_kubeconfig(self) -> Document:
        """Return a kubeconfig of the agents' service account; make its token if there is none.

        The token lasts until its Secret is deleted: a node that was away for weeks comes back.
        """
        place = await self._find_secret() or await self._make_secret()
        why = "no token for the agents' service account was made: does kube-controller-manager run?"
        made = await self._wait(place, _has_token, why)
        token = base64.b64decode(made["data"]["token"]).decode("ascii")
        configuration = await self._access.configuration()
        authority = b""
        if configuration.ssl_ca_cert:
            authority = await asyncio.to_thread(Path(configuration.ssl_ca_cert).read_bytes)
        return kubeconfig(
            server=self._api.host,
            authority=authority,
            tls_server_name=configuration.tls_server_name or "",
            token=token,
        )

    async def _find_secret(self) -> str | None:
        selector = ",".join(f"{key}={value}" for key, value in TOKEN_LABEL.items())
        listed = await self._call("GET", _SECRETS, query={"labelSelector": selector})
        names = [one["metadata"]["name"] for one in listed["items"]]
        return f"{_SECRETS}/{min(names)}" if names else None

    async def _make_secret(self) -> str:
        """Make a Secret for a token, under a name that never was.

        A token names its Secret, and is the same for the same name: one that was taken back would
        be good again.
        """
        metadata = {
            "generateName": f"{ACCOUNT}-token-",
            "labels": TOKEN_LABEL,
            "annotations": {"kubernetes.io/service-account.name": ACCOUNT},
        }
        secret = {"metadata": metadata, "type": "kubernetes.io/service-account-token"}
        made = await self._call("POST", _SECRETS, body=secret)
        return f"{_SECRETS}/{made['metadata']['name']}"

    async def _is_anothers(self, place: str) -> bool:
        try:
            document = await self._api.call("GET", place)
        except Refused:  # there is none: whatever else may be wrong, the writing meets it as well
            return False
        managers = document["metadata"].get("managedFields") or ()
        return all(one.get("manager") != MANAGER for one in managers)

    async def _is_known(self, place: str) -> bool:
        """Tell whether the server knows objects of that kind."""
        try:
            await self._api.call("GET", place)
        except Refused as exc:
            return exc.is_about_object
        return True

    async def _apply(self, document: Document, place: str) -> None:
        """Have the server merge a document (server-side apply); the names are ours alone."""
        query = {"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict"}
        await self._call("PATCH", place, query=query, body=document, content_type=APPLY_PATCH)

    async def _wait(
        self, place: str, is_ready: Callable[[Document], bool], complaint: str
    ) -> Document:
        deadline = time.monotonic() + PATIENCE_S
        while not is_ready(document := await self._call("GET", place)):
            if time.monotonic() > deadline:
                raise TryAgain(f"{complaint} (waited for {PATIENCE_S:.0f} s)")
            await asyncio.sleep(POLL_S)
        return document

    async def _call(
        self,
        method: str,
        place: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> Document:
        try:
            return await self._api.call(
                method, place, query=query, body=body, content_type=content_type
            )
        except Refused as exc:
            raise DatastoreUnusable(f"cannot {method} {place}: {exc}") from exc


def kubeconfig(*, server: str, authority: bytes, tls_server_name: str, token: str) -> Document:
    """Return a kubeconfig that holds all that it needs."""
    cluster = {"server": server}
    if authority:
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode("ascii")
    if tls_server_name:
        cluster["tls-server-name"] = tls_server_name
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": ACCOUNT, "user": {"token": token}}],
        "contexts": [{"name": ACCOUNT, "context": {"cluster": "cluster", "user": ACCOUNT}}],
        "current-context": ACCOUNT,
    }


def _place(document: Mapping[str, Any]) -> str:
    """Return the path of an object; raise `InvalidInput` for what is none of those above."""
    kind, metadata = document.get("kind"), document.get("metadata") or {}
    if kind not in _COLLECTIONS or not metadata.get("name"):
        raise InvalidInput(f"cannot apply {_title(document)}: known are {', '.join(_COLLECTIONS)}")
    return f"{_COLLECTIONS[kind].format(metadata.get('namespace'))}/{metadata['name']}"


def _title(document: Mapping[str, Any]) -> str:
    return f"{document.get('kind')} {(document.get('metadata') or {}).get('name')}"


def _is_established(definition: Document) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def _has_token(secret: Document) -> bool:
    return bool((secret.get("data") or {}).get("token"))
