"""What kubeadm has written down of a cluster.  Pure."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from pycni.errors import InvalidInput
from pycni.model.network import IPNetwork
from pycni.yamltext import read_documents

CONFIG_MAP = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
_SOURCE = "ClusterConfiguration of ConfigMap kube-system/kubeadm-config"


def pod_subnets(config_map: Mapping[str, Any]) -> tuple[IPNetwork, ...]:
    """Return the pods' subnets, at most one of each IP version; raise `InvalidInput`."""
    text = (config_map.get("data") or {}).get("ClusterConfiguration") or ""
    networking = _child(next(iter(read_documents(text, source=_SOURCE)), None), "networking")
    said = _child(networking, "podSubnet")
    found: dict[int, IPNetwork] = {}
    for part in str(said).split(",") if said else ():
        try:
            network = ip_network(part.strip())
        except ValueError as exc:
            raise InvalidInput(f"{_SOURCE}: networking.podSubnet {said!r}: {exc}") from exc
        found.setdefault(network.version, network)
    return tuple(found.values())


def _child(document: object, key: str) -> object:
    return document.get(key) if isinstance(document, dict) else None
