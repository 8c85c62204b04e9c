"""A host whose datastore is a real API server, in the same network namespace."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import NotYet, eventually
from pings import Loss, gaps_of
from plugin_host import (
    ADDRESS,
    POOL,
    PluginHost,
    Pod,
    Said,
    install,
    network_config,
    on_underlay,
    serves,
    start_agent,
)
from pycni.ctl.agentlink import ask
from pycni.datastore.kubernetes_objects import PATHS
from pycni.errors import PycniError
from pycni.model.endpoints import POD_ANNOTATION
from pycni.model.resources import Block, Handle, Node
from tests.kube.apiserver import ApiServer, binaries

if TYPE_CHECKING:
    from conftest import Namespace


INTERNAL_IP = ADDRESS.split("/")[0]
PREFIX = "projectcalico.org/"


@dataclass
class KubernetesHost(PluginHost):
    """The host, its API server, and its agent while one runs."""

    server: ApiServer | None = None
    agent: subprocess.Popen[bytes] | None = None

    @property
    def api(self) -> ApiServer:
        """The API server."""
        assert self.server is not None
        return self.server

    def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """Send the API server a request, as an administrator."""
        with self.namespace.entered():
            return self.api.ask(method, path, body)

    @property
    def datastore_words(self) -> list[str]:
        """Return what leads pycnictl to the cluster's objects."""
        return ["--kubeconfig", str(self.api.kubeconfig)]

    def start_apiserver(self) -> None:
        """Start the API server again."""
        with self.namespace.entered():
            self.api.start_apiserver()

    def make_node(self, *internal_ips: str) -> None:
        """Make the Node object, as a kubelet does that registers itself."""
        metadata = {"name": "node-0"}
        status = _registered(*(internal_ips or (INTERNAL_IP,)))
        self.ask("POST", PATHS[Node], {"metadata": metadata, "status": status})

    def readdress(self, *internal_ips: str) -> None:
        """Let the kubelet register other addresses."""
        node = self.ask("GET", f"{PATHS[Node]}/node-0")
        node["status"] |= _registered(*internal_ips)
        self.ask("PUT", f"{PATHS[Node]}/node-0/status", node)

    def has_addresses(self, **annotations: str) -> bool:
        """Tell whether Calico's annotations of the node name just these; or raise `NotYet`."""
        node = self.ask("GET", f"{PATHS[Node]}/node-0")
        said = node["metadata"].get("annotations") or {}
        names = ("IPv4Address", "IPv6Address")
        found = {name: said[PREFIX + name] for name in names if PREFIX + name in said}
        if found != annotations:
            raise NotYet(str(said))
        return True

    def make_pod(self, name: str, **annotations: str) -> Pod:
        """Make a pod's object and network namespace."""
        said = {POD_ANNOTATION + key: text for key, text in annotations.items()}
        spec = {"nodeName": "node-0", "containers": [{"name": "c", "image": "i"}]}
        pod = {"metadata": {"name": name, "annotations": said}, "spec": spec}
        self.ask("POST", "/api/v1/namespaces/default/pods", pod)
        args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}"
        return self.pod(f"container-{name}", args=args)

    def notes_of(self, pod: str) -> dict[str, str]:
        """Return what Calico's annotations of a pod say of its addresses."""
        document = self.ask("GET", f"/api/v1/namespaces/default/pods/{pod}")
        said = document["metadata"].get("annotations") or {}
        notes = ("podIP", "podIPs", "containerID")
        return {key: said[POD_ANNOTATION + key] for key in notes if POD_ANNOTATION + key in said}

    def is_noted(self, pod: str, **notes: str) -> bool:
        """Tell whether a pod's annotations say just that; raise `NotYet` before."""
        if self.notes_of(pod) != notes:
            raise NotYet(str(self.notes_of(pod)))
        return True

    def start_agent(self) -> None:
        """Start an agent, with the rights that a node's has."""
        kubeconfig = str(self.api.agents_kubeconfig)
        self.agent = start_agent(self, datastore="kubernetes", kubeconfig=kubeconfig)

    def stop_agent(self, number: int = signal.SIGTERM) -> None:
        """End the agent."""
        if self.agent is not None:
            self.agent.send_signal(number)
            self.agent.wait(timeout=60)
            self.agent = None

    def wait_until_served(self) -> None:
        """Wait for an agent that has converged and serves."""
        eventually(lambda: serves(self), within_s=60, what=self.agent_log)

    def wait_until_block_is_routed(self) -> None:
        """Wait for the blackhole of a block: the agent hears of it from the API, as others do."""
        eventually(
            lambda: "blackhole" in self.namespace.sh("ip route"), within_s=60, what=self.agent_log
        )

    def agent_log(self) -> str:
        """Return what the agents have logged."""
        return (self.directory / "agent.log").read_text(encoding="utf-8")

    def status(self) -> dict[str, Any]:
        """Return what the agent says of itself."""
        return ask(self.directory / "run", "status")

    def complains(self, sentence: str) -> bool:
        """Tell whether the agent's status has a sentence; raise `NotYet` before."""
        try:
            told = str(ask(self.directory / "run", "status"))
        except PycniError as exc:
            raise NotYet(str(exc)) from exc
        if sentence not in told:
            raise NotYet(told)
        return True

    def held(self) -> list[str]:
        """Return whom the API has down as holders of addresses, and all handles."""
        blocks = self.ask("GET", PATHS[Block])["items"]
        handles = self.ask("GET", PATHS[Handle])["items"]
        return sorted(
            attribute["handle_id"] for block in blocks for attribute in block["spec"]["attributes"]
        ) + sorted(handle["spec"]["handleID"] for handle in handles)

    def add(self, pod: Pod) -> Said:
        """Add a pod as a kubelet does: again as long as the plugin says to try later."""
        found: list[Said] = []

        def is_done() -> bool:
            found.append(self.call("ADD", pod))
            if found[-1].code == 11:
                raise NotYet(found[-1].output)
            return True

        eventually(is_done, within_s=60, what=self.agent_log)
        return found[-1]

    @contextlib.contextmanager
    def stream(
        self, source: Namespace, target: str, *, every_s: float = 0.01
    ) -> Iterator[list[Loss]]:
        """Ping from a namespace meanwhile; the result is filled in at the end."""
        log = self.directory / f"ping-{target}.log"
        with log.open("wb") as output, source.entered():
            ping = subprocess.Popen(["ping", "-n", "-i", f"{every_s}", target], stdout=output)
        losses: list[Loss] = []
        try:
            eventually(lambda: "ttl=" in log.read_text(), within_s=60, what=log.read_text)
            yield losses
        finally:
            time.sleep(0.2)
            ping.send_signal(signal.SIGINT)
            ping.wait(timeout=60)
        losses.append(gaps_of(log))

    def problems(self) -> list[str]:
        """Return what the agent finds wrong."""
        found: list[str] = self.status()["problems"]
        return found

    def settled(self) -> bool:
        """Tell whether no pod holds anything; raise `NotYet` before."""
        return self.settled_but()

    def settled_but(self, *containers: str) -> bool:
        """Tell whether no pods but these hold anything; raise `NotYet` before."""
        wanted = sorted(f"{self.config['name']}.{container}" for container in containers)
        if self.held() != [*wanted, *wanted]:
            raise NotYet(str(self.held()))
        return True

    def writes(self) -> int:
        """Return how many writes of ours the API server has seen."""
        with self.namespace.entered():
            text = str(self.api.ask("GET", "/metrics"))
        ours = (
            line
            for line in text.splitlines()
            if line.startswith("apiserver_request_total{")
            and 'group="crd.projectcalico.org"' in line
            and any(f'verb="{verb}"' in line for verb in ("POST", "PUT", "PATCH", "DELETE"))
        )
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in ours)


def _registered(*internal_ips: str) -> dict[str, Any]:
    return {"addresses": [{"type": "InternalIP", "address": one} for one in internal_ips]}


@contextlib.contextmanager
def apiserver_of(host: KubernetesHost) -> Iterator[None]:
    """Run an API server on a host, with a pool, and end it."""
    host.server = ApiServer(host.directory / "apiserver", binaries())
    try:
        with host.namespace.entered():
            host.server.prepare()
            host.server.start_etcd()
            host.server.start_apiserver()
            host.server.apply_crds()
            host.server.apply_rbac()
        host.ctl("apply", "-f", "-", stdin=POOL)
        yield
    finally:
        host.server.close()


@contextlib.contextmanager
def kubernetes_host(directory: Path, make: Callable[[], Namespace]) -> Iterator[KubernetesHost]:
    """Run an API server on a new host with the plugin, and end whatever runs there."""
    install(directory / "bin", "c")
    config = network_config(directory, datastore_type="kubernetes")
    host = KubernetesHost(on_underlay(make), directory, make, config)
    with apiserver_of(host):
        try:
            yield host
        finally:
            host.stop_agent()
