"""What a Kubernetes lab asks of a topology, and its pods as Kubernetes's objects.  Pure."""

from dataclasses import replace
from ipaddress import IPv4Network, ip_network
from typing import Any

import yaml

from pycni.errors import InvalidInput
from pycni.lab.agents import HOLD_TIME_S
from pycni.lab.kubeadm.config import SERVICES
from pycni.lab.kubeadm.kit import TOOLBOX
from pycni.lab.underlay import has_ipv6
from pycni.model.endpoints import POD_ANNOTATION
from pycni.model.resources import IPPool
from pycni.model.schema import to_stored
from pycni.topology.model import Topology, TopologyPod

NOT_ON_THE_CONTROL_PLANE = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {
                    "matchExpressions": [
                        {
                            "key": "node-role.kubernetes.io/control-plane",
                            "operator": "DoesNotExist",
                        }
                    ]
                }
            ]
        }
    }
}
WEB = "hostname >/tmp/index.html; exec httpd -f -p 80 -h /tmp"


def require_kubernetes(topology: Topology, *, source: str) -> None:
    """Raise unless kubeadm can make a cluster of this topology."""
    if not topology.nodes:
        raise InvalidInput(f"{source}: a Kubernetes cluster needs a node: add one below `nodes`")
    if has_ipv6(topology) or topology.pod_versions != (4,):
        raise InvalidInput(
            f"{source}: --kubernetes makes clusters of IPv4 only: leave out address6 and IPv6 pools"
        )
    services = ip_network(SERVICES)
    near = [("a pool", pod_subnet(topology, source=source))]
    near += [(node.name, node.address.network) for node in topology.nodes]
    for what, network in near:
        if network.overlaps(services):
            raise InvalidInput(
                f"{source}: {what} has {network}, and the cluster's services {services}:"
                " choose another network"
            )


def pod_subnet(topology: Topology, *, source: str = "the topology") -> IPv4Network:
    """Return the pool that becomes kubeadm's podSubnet."""
    pools = [r for r in topology.resources if isinstance(r, IPPool)]
    if len(pools) != 1 or not isinstance(pools[0].cidr, IPv4Network):
        raise InvalidInput(
            f"{source}: kubeadm takes one subnet for pods, and here are {len(pools)} pools:"
            " leave one IPv4 pool below `resources`"
        )
    return pools[0].cidr


def objects(topology: Topology) -> list[dict[str, Any]]:
    """Return the topology's objects as the datastore keeps them: before any agent makes a pool."""
    return [to_stored(resource) for resource in topology.resources]


def for_workers(manifest: str) -> list[dict[str, Any]]:
    """Return deploy/pycni.yaml without the control plane's node, where pycni is installed.

    Its agents notice soon that a node is gone, as all agents of a lab.
    """
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(manifest))
    for document in documents:
        if document["kind"] == "ConfigMap":
            document["data"]["agent.yaml"] += f"hold_time_s: {HOLD_TIME_S}\n"
        if document["kind"] == "DaemonSet":
            document["spec"]["template"]["spec"]["affinity"] = NOT_ON_THE_CONTROL_PLANE
    return documents


def without_pods(topology: Topology) -> Topology:
    """Return the topology as the underlay sees it: the kubelets make the pods' namespaces."""
    return replace(topology, pods=())


def pod_document(pod: TopologyPod) -> dict[str, Any]:
    """Return a pod of the topology as a manifest: on its node, at its address, serving a page."""
    wished = {f"{POD_ANNOTATION}ipAddrs": f'["{pod.address}"]'} if pod.address else {}
    container = {
        "name": "web",
        "image": TOOLBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", WEB],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "annotations": wished},
        "spec": {
            "nodeName": pod.node,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }
