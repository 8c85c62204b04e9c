"""Kubernetes's API server as a datastore needs it: requests, credentials, what its answers mean.

The official client's asyncio half supplies configuration, TLS and connections.  Its generated
classes would wrap each object in a model and check it a second time, so requests go through its
REST layer with plain documents.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yaml
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTResponse
from kubernetes.aio.config import kube_config

from pycni.datastore import kubernetes_json
from pycni.datastore.kubernetes_connections import Rest, hang_up
from pycni.errors import DatastoreUnusable, EventsLost, ServerAway, TryAgain
from pycni.ports_cluster import Greeting

JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{JSON}"
"""Accepted where an object's metadata is all that anybody reads of an answer."""
METADATA_LIST = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"
"""The same for the answer to a listing."""
MERGE_PATCH = "application/merge-patch+json"
"""RFC 7386."""
JSON_PATCH = "application/json-patch+json"
"""RFC 6902."""
APPLY_PATCH = "application/apply-patch+yaml"
"""Kubernetes's server-side apply; JSON is YAML."""

VERSION = "/version"

PAGE = 500
"""How many objects one answer to a listing holds."""
CALL_TIMEOUT_S = 10.0
SILENCE_S = 150.0
"""How long a watch may say nothing: the server sends a bookmark about every minute."""
_WRITES = ("POST", "PUT", "PATCH")
_ATTEMPTS = 3
_LONGEST_WAIT_S = 1.0
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError)
_CREDENTIALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class Refused(Exception):
    """The server understood a request and refused it; the caller knows what that means."""

    def __init__(self, code: int, status: Mapping[str, Any]) -> None:
        super().__init__(str(status.get("message") or f"HTTP status {code}"))
        self.code = code
        self.reason = str(status.get("reason", ""))
        self.is_about_object = "name" in (status.get("details") or {})


@contextlib.contextmanager
def hinting(file: str) -> Iterator[None]:
    """Add to a denial which file of deploy/ gives the right."""
    try:
        yield
    except ServerAway:
        raise
    except TryAgain as exc:
        raise TryAgain(f"{exc}: is {file} applied?") from exc


@dataclass(frozen=True, slots=True)
class Access:
    """Where an API server is and who asks it: a kubeconfig, or what every pod is given."""

    kubeconfig: Path | None = None

    async def configuration(self) -> Configuration:
        """Read it, as it is now; raise `DatastoreUnusable` when it is none."""
        found = Configuration()
        try:
            if self.kubeconfig is None:
                kubernetes_config.load_incluster_config(client_configuration=found)
            else:
                os.stat(self.kubeconfig)  # noqa: PTH116 - the client says "no configuration"
                await kubernetes_config.load_kube_config(
                    config_file=str(self.kubeconfig),
                    client_configuration=found,
                    persist_config=False,
                )
        # The last are the client's own for what is no kubeconfig at all.
        except (kubernetes_config.ConfigException, OSError, *_MALFORMED) as exc:
            raise DatastoreUnusable(f"cannot use {self}: {exc}") from exc
        if not found.verify_ssl:
            raise DatastoreUnusable(
                f"cannot use {self}: it switches off the verification of the server's certificate;"
                " name the authority in certificate-authority instead"
            )
        found.proxy = found.proxy or _proxy_in_environment(found.host)
        # With it each request would look through ~/.netrc, in a thread, and all of the environment,
        # which costs three times as much as the rest of the request.
        found.client_session_kwargs = {"trust_env": False}
        return found

    def __str__(self) -> str:
        if self.kubeconfig is None:
            return "the service account of this pod"
        return f"the kubeconfig {self.kubeconfig}"


class Api:
    """Sends requests to one API server; credentials are read again when they are refused."""

    def __init__(self, access: Access, *, call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._access = access
        self._call_timeout = aiohttp.ClientTimeout(total=call_timeout_s)
        self._current: _Client | None = None
        self._former: _Client | None = None
        self._renewing = asyncio.Lock()
        self._is_closed = False

    @property
    def host(self) -> str:
        """Return the address of the API server."""
        return self._client().host

    async def connect(self) -> None:
        """Read the credentials; raise `DatastoreUnusable` when there are none."""
        self._current = await _Client.make(self._access)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
        accept: str = "",
    ) -> dict[str, Any]:
        """Return the document of the answer; raise `Refused`, or `ServerAway` without one.

        A write is answered with the object's metadata alone: the caller knows the rest.
        """
        accept = accept or (METADATA if method in _WRITES else JSON)
        headers = {"Accept": accept, "Content-Type": content_type}
        what = f"{method} {path}"
        with self._translating(what):
            for attempt in range(1, _ATTEMPTS + 1):
                response = await self._send(
                    method, path, query or {}, body, headers, timeout=self._call_timeout
                )
                text = await response.read()
                if response.status != HTTPStatus.TOO_MANY_REQUESTS or attempt == _ATTEMPTS:
                    return _document(response.status, text, what=what)
                await asyncio.sleep(_wait_of(response.headers))
        raise AssertionError(what)  # the last attempt has returned, or raised

    async def greet(self) -> Greeting:
        """Ask for the server's version, which everybody may; note its time, and how long it took.

        The connection is there already when this is not the first request.
        """
        what = f"GET {VERSION}"
        with self._translating(what):
            began = time.monotonic()
            response = await self._send("GET", VERSION, {}, None, {}, timeout=self._call_timeout)
            latency_s = time.monotonic() - began
            if response.status >= HTTPStatus.BAD_REQUEST:
                _document(response.status, await response.read(), what=what)
            response.response.release()
        ours_s = time.time() - latency_s / 2
        return Greeting(ours_s, latency_s, str(response.headers.get("Date", "")))

    async def pages(
        self, path: str, *, query: Mapping[str, str] | None = None, accept: str = JSON
    ) -> tuple[list[dict[str, Any]], str]:
        """Return all objects below a path as they were at one moment, and the version of that."""
        found: list[dict[str, Any]] = []
        version = ""
        async for items, as_of in self.paging(path, query=query, accept=accept):
            found += items
            version = as_of
        return found, version

    async def paging(
        self, path: str, *, query: Mapping[str, str] | None = None, accept: str = JSON
    ) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        """Yield the same page by page; the version is that of all."""
        asked = {**(query or {}), "limit": str(PAGE)}
        while True:
            page = await self.call("GET", path, query=asked, accept=accept)
            match page:
                # null, where there is none and metadata alone is asked
                case {"metadata": {"resourceVersion": str(version)}, "items": list() | None}:
                    yield page["items"] or [], version
                case _:
                    raise TryAgain(
                        f"cannot make sense of the list of {path}: no items, or no resource version"
                    )
            metadata = page["metadata"]
            if not metadata.get("continue"):
                return
            asked["continue"] = metadata["continue"]

    async def stream(
        self, path: str, query: Mapping[str, str], *, accept: str = JSON
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a watch until the server ends it."""
        what = f"watch {path}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=SILENCE_S)
        with self._translating(what):
            response = await self._send(
                "GET", path, query, None, {"Accept": accept}, timeout=timeout
            )
            try:
                if response.status != HTTPStatus.OK:
                    _document(response.status, await response.read(), what=what)
                async for line in response.response.content:
                    yield kubernetes_json.parse(line)
            finally:
                hang_up(response)

    async def close(self) -> None:
        """Close all connections; whoever waits for an answer gets `TryAgain`."""
        self._is_closed = True
        clients = (self._current, self._former)
        self._current = self._former = None
        for client in clients:
            if client is not None:
                await client.close()

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: object,
        headers: Mapping[str, str],
        *,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - handed on to the client
    ) -> RESTResponse:
        client = self._client()
        url = f"{client.host}{path}?{urlencode(query)}" if query else f"{client.host}{path}"
        response = await client.send(method, url, body, headers, timeout)
        if response.status != HTTPStatus.UNAUTHORIZED:
            return response
        hang_up(response)
        client = await self._renewed(client)
        return await client.send(method, url, body, headers, timeout)

    def _client(self) -> "_Client":
        if self._is_closed or self._current is None:
            raise TryAgain("cannot use the API server: this handle is closed")
        return self._current

    async def _renewed(self, refused: "_Client") -> "_Client":
        """Return a client with the credentials as they are now; requests under way go on."""
        async with self._renewing:
            if self._client() is refused:
                renewed = await _Client.make(self._access)
                if self._former is not None:
                    await self._former.close()
                self._former, self._current = self._current, renewed
            return self._client()

    @contextlib.contextmanager
    def _translating(self, what: str) -> Iterator[None]:
        """Turn what the client raises into `TryAgain`."""
        try:
            yield
        # The last two are the client's own where it is closed under a request.
        except (aiohttp.ClientError, OSError, ValueError, AssertionError, RuntimeError) as exc:
            if self._is_closed:
                raise TryAgain(f"cannot {what}: this handle is closed") from exc
            if isinstance(exc, AssertionError | RuntimeError):
                raise
            why = str(exc) or type(exc).__name__
            raise ServerAway(f"cannot {what}: the API server does not answer ({why})") from exc


@dataclass(frozen=True, slots=True)
class _Client:
    """One state of the credentials, and the connections that were made with it."""

    configuration: Configuration
    rest: Rest

    @classmethod
    async def make(cls, access: Access) -> "_Client":
        try:
            configuration = await access.configuration()
            return cls(configuration, Rest(configuration))
        except (OSError, ValueError) as exc:  # certificates or keys that are none
            raise DatastoreUnusable(f"cannot use {access}: {exc}") from exc
        finally:
            # Certificates and keys that stood in the kubeconfig itself are read by now.  The client
            # would keep their files below /tmp until its process ends, and believe in them when
            # somebody has cleaned up there: no credentials could be read anew then.
            # There is no other way to them.
            kube_config._cleanup_temp_files()  # type: ignore[no-untyped-call]  # noqa: SLF001

    @property
    def host(self) -> str:
        return self.configuration.host

    async def send(
        self,
        method: str,
        url: str,
        body: object,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - handed on to the client
    ) -> RESTResponse:
        sent = {"Accept": JSON, "Content-Type": JSON, **headers}
        token = (await self.configuration.auth_settings()).get("BearerToken")
        if token is not None and token["value"]:
            sent["Authorization"] = token["value"]
        return await self.rest.request(
            method, url, headers=sent, body=body, _request_timeout=timeout
        )

    async def close(self) -> None:
        """Break off all connections."""
        await self.rest.abort()


def _proxy_in_environment(host: str) -> str | None:
    """Return the proxy that the environment names for an address; None: there is none."""
    url = urlsplit(host)
    if proxy_bypass(url.netloc):
        return None
    return getproxies().get(url.scheme)


def _document(code: int, text: bytes, *, what: str) -> dict[str, Any]:
    """Return what an answer says; raise what its status means."""
    try:
        said = kubernetes_json.parse(text)
    except ValueError:
        said = None
    unread = {"message": text[:200].decode(errors="replace").strip()}
    document = said if isinstance(said, dict) else unread
    if code < HTTPStatus.BAD_REQUEST and "metadata" in document:
        return dict(document)
    refused = Refused(code, document)
    if code in _CREDENTIALS:
        raise TryAgain(f"cannot {what}: the API server denies it ({refused})") from refused
    if code == HTTPStatus.GONE:
        raise EventsLost(f"cannot {what}: {refused}; list again") from refused
    is_refusal = HTTPStatus.BAD_REQUEST <= code < HTTPStatus.INTERNAL_SERVER_ERROR
    if code == HTTPStatus.TOO_MANY_REQUESTS:
        raise TryAgain(f"cannot {what}: the API server can't do it now ({refused})") from refused
    if not is_refusal:
        raise ServerAway(f"cannot {what}: the API server can't do it now ({refused})") from refused
    raise refused


def _wait_of(headers: Mapping[str, str]) -> float:
    """Return how long a server asks to be left alone, as far as a request can wait for it."""
    wanted = headers.get("Retry-After", "")
    return min(float(wanted), _LONGEST_WAIT_S) if wanted.isdecimal() else _LONGEST_WAIT_S
