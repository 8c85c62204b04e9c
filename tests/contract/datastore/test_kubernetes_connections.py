"""What becomes of connections to an API server when their handle is closed."""

import asyncio
import base64
import contextlib
import gc
import json
import socket
import ssl
import subprocess
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import yaml

from pycni.datastore.kubernetes import KubernetesDatastore, open_kubernetes
from pycni.datastore.kubernetes_api import Access
from pycni.errors import TryAgain
from pycni.model.resources import Handle
from tests.contract.datastore.stories import handle
from tests.waiting import until

LISTING = json.dumps({"metadata": {"resourceVersion": "5"}, "items": []}).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(LISTING), LISTING)


class Server:
    """Answers one request of a connection, and never TLS's farewell; counts connections.

    It shakes hands with nobody before `may_greet` is set.
    """

    def __init__(self, directory: Path) -> None:
        self.certificate, key = directory / "server.crt", directory / "server.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", key, "-out", self.certificate, "-subj", "/CN=server",
             "-addext", "subjectAltName=IP:127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip
        self.accepted = self.asked = 0
        self.may_greet = threading.Event()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate, key)
        self._is_over = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            if self._is_over.is_set():
                connection.close()
                return
            self.accepted += 1
            serving = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(serving)
            serving.start()

    def _serve(self, connection: socket.socket) -> None:
        self.may_greet.wait()
        with (
            contextlib.suppress(OSError),
            connection,
            self._context.wrap_socket(connection, server_side=True) as ours,
        ):
            ours.recv(65536)
            self.asked += 1
            ours.sendall(ANSWER)
            ours.recv(65536)
            self.asked += 1
            self._is_over.wait()

    def close(self) -> None:
        """Let go of everybody."""
        self._is_over.set()
        self.may_greet.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join()
        self._listening.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    try:
        yield made
    finally:
        made.close()


def left_by(server: Server, story: Callable[[KubernetesDatastore], Awaitable[None]]) -> list[str]:
    """Tell a story with a handle that it closes; return what the collector finds open then."""
    path = server.certificate.with_name("kubeconfig")
    authority = base64.b64encode(server.certificate.read_bytes()).decode()
    place = {
        "server": f"https://127.0.0.1:{server.port}",
        "certificate-authority-data": authority,
    }
    document = {
        "clusters": [{"name": "c", "cluster": place}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")

    async def main() -> None:
        async with asyncio.timeout(20):
            await story(await open_kubernetes(Access(path)))

    gc.collect()  # what others have left
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
    return [str(one.message) for one in complaints]


def test_a_closed_handle_makes_no_connection_for_a_request_that_lost_its_own(
    server: Server,
) -> None:
    server.may_greet.set()

    async def story(store: KubernetesDatastore) -> None:
        await store.list(Handle)
        waiting = asyncio.ensure_future(store.list(Handle))
        await until(lambda: server.asked == 2)
        await store.close()
        with pytest.raises(TryAgain, match="closed"):
            await waiting

    assert left_by(server, story) == []
    assert server.accepted == 1


@pytest.mark.parametrize("verb", ["list", "create"])
def test_a_connection_that_is_ready_too_late_is_broken_off(server: Server, verb: str) -> None:
    async def story(store: KubernetesDatastore) -> None:
        asking = store.list(Handle) if verb == "list" else store.create(handle("a"))
        waiting = asyncio.ensure_future(asking)
        await until(lambda: server.accepted == 1)
        await store.close()
        server.may_greet.set()
        with pytest.raises(TryAgain, match="closed"):
            await waiting

    assert left_by(server, story) == []
