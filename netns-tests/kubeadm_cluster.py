"""A cluster by kubeadm, as tests drive it: kubectl in, objects and text out."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml

import lab_verbs
from cluster import eventually, output_of
from pycni.lab.kubeadm.cluster import is_ready
from pycni.lab.kubeadm.kit import TOOLBOX

if TYPE_CHECKING:
    from lab_driver import Lab

NODES = ("node-0", "node-1", "node-2")
# Limits for what ends as soon as it can: a loaded machine takes many times what an idle one does.
SOON_S = 90
LATER_S = 180
WITHIN = f"--timeout={LATER_S}s"
PROXY_TABLES = {"nftables": "kube-proxy", "iptables": "nat"}
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")


class Cluster:
    """A lab with Kubernetes that is up."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def kubectl(self, *words: str, timeout: float = LATER_S + 20) -> str:
        ran = lab_verbs.kubectl(self.lab.name, *words, timeout_s=timeout)
        return output_of(ran, "kubectl", *words)

    def items(self, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", *words, "-o", "json"))["items"]
        return found

    def execute(self, pod: str, *command: str) -> str:
        return self.kubectl("exec", pod, "--", *command)

    def unready(self) -> list[str]:
        """Return the nodes and pods that aren't ready, or are about to go."""
        found = [*self.items("nodes"), *self.items("pods", "--all-namespaces")]
        return [
            one["metadata"]["name"]
            for one in found
            if not is_ready(one) or "deletionTimestamp" in one["metadata"]
        ]


def up(lab: Lab, *words: str) -> None:
    ran = lab.run("up", "--kubernetes", "--tunnel", lab.tunnel, *words, timeout=360)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def wait_for_routes(cluster: Cluster) -> None:
    """Wait until each node has learned a route by way of each other one.

    Nodes are ready as soon as their agents serve: sessions may begin after that.
    """

    def gateways() -> dict[str, int]:
        return {node: len(_gateways(cluster, node)) for node in NODES}

    wanted = dict.fromkeys(NODES, len(NODES) - 1)
    eventually(lambda: gateways() == wanted, within_s=SOON_S, what=gateways)


def _gateways(cluster: Cluster, node: str) -> set[str]:
    said = cluster.lab.execute(node, "ip", "-json", "route", "show", "proto", "bird")
    return {route["gateway"] for route in json.loads(said) if "gateway" in route}


def wait_for_services(cluster: Cluster, *, mode: str = "nftables") -> None:
    """Wait until each node leads each Service on to all of its pods.

    The API server calls pods ready before kube-proxy has heard of it.
    """
    eventually(
        lambda: not unserved(cluster, mode=mode),
        within_s=SOON_S,
        what=lambda: unserved(cluster, mode=mode),
    )


def unserved(cluster: Cluster, *, mode: str) -> dict[str, list[str]]:
    """Return which Services' and pods' addresses are unknown to each node's kube-proxy.

    All that it knows by the other mode than this one counts as well: it is to forget it.
    """
    wanted = _served_addresses(cluster)
    found = {}
    for node in NODES:
        known = {name: _known(cluster, node, table) for name, table in PROXY_TABLES.items()}
        former = set[str]().union(*(known[name] & wanted for name in known if name != mode))
        if wrong := (wanted - known[mode]) | former:
            found[node] = sorted(wrong)
    return found


def _known(cluster: Cluster, node: str, table: str) -> set[str]:
    listed = cluster.lab.execute(node, "sh", "-c", f"nft list table ip {table} 2>&1 || :")
    return set(_ADDRESS.findall(listed))


def _served_addresses(cluster: Cluster) -> set[str]:
    """Return the addresses of all Services that have one, and of the pods behind them."""
    pods = cluster.items("pods", "--all-namespaces")
    found = set()
    for service in cluster.items("services", "--all-namespaces"):
        spec, namespace = service["spec"], service["metadata"]["namespace"]
        if "selector" not in spec or spec.get("clusterIP", "None") == "None":
            continue
        found.add(spec["clusterIP"])
        found |= {
            pod["status"]["podIP"]
            for pod in pods
            if pod["metadata"]["namespace"] == namespace
            and spec["selector"].items() <= pod["metadata"].get("labels", {}).items()
            and is_ready(pod)
        }
    return found


def make_boxes(cluster: Cluster, wanted: dict[str, str]) -> dict[str, str]:
    """Make pods by name on nodes; return their addresses once they run."""
    for name, node in wanted.items():
        spec = {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "box", "image": TOOLBOX, "command": ["sleep", "3600"]}],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        cluster.lab.feed(yaml.safe_dump(pod), "kubectl", "create", "--filename=-")
    cluster.kubectl("wait", "--for=condition=Ready", WITHIN, "pod", *wanted)
    pods = {pod["metadata"]["name"]: pod for pod in cluster.items("pods")}
    return {name: pods[name]["status"]["podIP"] for name in wanted}
