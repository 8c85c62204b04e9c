"""A Kubernetes API for a benchmark's node: real etcd and kube-apiserver, one Node, its pods."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bench import sandbox
from pycni.kernel.netns import inside
from tests.kube.apiserver import ApiServer, binaries

NAMESPACE = "bench"


class Cluster:
    """The API server on a node's loopback, with its files in memory like all of the benchmark's."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.server = ApiServer(Path("/run/bench/apiserver"), binaries())

    @property
    def place(self) -> list[str]:
        """Return the words that lead pycnictl here."""
        return ["--kubeconfig", str(self.server.kubeconfig)]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Do something in the node's network namespace, where the server is."""
        node = os.open(f"/run/netns/{self.node}", os.O_RDONLY | os.O_CLOEXEC)
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with inside(node, home=home):
                yield
        finally:
            os.close(node)
            os.close(home)

    def start(self, *, pods: int) -> None:
        """Start the servers; make the Node, a pool and so many pods, as the control plane does."""
        with self.entered():
            self.server.prepare()
            self.server.start_etcd()
            self.server.start_apiserver()
            self.server.apply_crds()
            self.server.ask("POST", "/api/v1/nodes", {"metadata": {"name": self.node}})
            self.server.ask("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
            spec = {"nodeName": self.node, "containers": [{"name": "c", "image": "i"}]}
            for number in range(pods):
                pod = {"metadata": {"name": f"pod{number}"}, "spec": spec}
                self.server.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", pod)
            sandbox.apply_pool(self.place)
