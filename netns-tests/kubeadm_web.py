"""What nodes, pods and hosts outside get of a cluster's web servers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubeadm_cluster import Cluster

INDEX = "cgi-bin/index.cgi"


def service(cluster: Cluster, name: str) -> dict[str, Any]:
    said = cluster.kubectl("get", "service", name, "-o", "json")
    spec: dict[str, Any] = json.loads(said)["spec"]
    return spec


def curl(cluster: Cluster, place: str, address: str, path: str = "") -> str:
    """What a node, or a host outside of the cluster, gets of a web server."""
    words = ("curl", "--silent", "--show-error", "--fail", "--max-time", "5")
    return cluster.lab.execute(place, *words, f"http://{address}/{path}").strip()


def source(cluster: Cluster, place: str, address: str) -> str:
    """The address from which a web server was asked."""
    return curl(cluster, place, address, "cgi-bin/source")


def greeting(cluster: Cluster, place: str, address: str) -> str:
    return curl(cluster, place, address, INDEX)


def sources(cluster: Cluster, place: str, address: str) -> set[str]:
    """From where the pods behind an address were asked: often enough to have met each."""
    url = f"http://{address}/cgi-bin/source"
    script = f"for _ in $(seq 20); do curl -sSf --max-time 5 {url} || exit 1; done"
    return set(cluster.lab.execute(place, "sh", "-c", script).split())


def tunnel_address(cluster: Cluster, node: str) -> str:
    said = cluster.lab.execute(node, "ip", "-4", "-json", "address", "show", "dev", "tunl0")
    (address,) = json.loads(said)[0]["addr_info"]
    return str(address["local"])
