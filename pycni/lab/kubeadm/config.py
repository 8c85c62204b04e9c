"""kubeadm's configuration, for a cluster without systemd and without a registry.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pycni.lab.kubeadm.spec import CONTAINERD_SOCKET

SERVICES = "10.96.0.0/16"
API_PORT = 6443
# Of cgroups of version 1, which kubeadm warns of by an error.
IGNORED = ["SystemVerification"]
_KUBEADM = "kubeadm.k8s.io/v1beta4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the lab decides about a cluster."""

    version: str
    repository: str
    pods: str
    server: str
    token: str


def init_documents(settings: Settings, *, name: str) -> str:
    """Return what `kubeadm init` reads on the first node."""
    return _text(
        {
            "apiVersion": _KUBEADM,
            "kind": "InitConfiguration",
            "bootstrapTokens": [{"token": settings.token, "ttl": "24h0m0s"}],
            "localAPIEndpoint": {"advertiseAddress": settings.server, "bindPort": API_PORT},
            "nodeRegistration": _registration(name, settings.server),
        },
        _cluster(settings),
        _kubelet(),
        _proxy(),
    )


def join_documents(settings: Settings, *, name: str, address: str, discovery: str) -> str:
    """Return what `kubeadm join` reads; `discovery` is the path of `discovery_document`."""
    return _text(
        {
            "apiVersion": _KUBEADM,
            "kind": "JoinConfiguration",
            "discovery": {
                "file": {"kubeConfigPath": discovery},
                "tlsBootstrapToken": settings.token,
            },
            "nodeRegistration": _registration(name, address),
        }
    )


def discovery_document(settings: Settings, *, authority: str) -> str:
    """Return where the API server is and by which certificate authority (base64) to know it."""
    server = f"https://{settings.server}:{API_PORT}"
    cluster = {"server": server, "certificate-authority-data": authority}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "", "cluster": cluster}],
    }
    return _text(document)


def _registration(name: str, address: str) -> Mapping[str, Any]:
    return {
        "name": name,
        "criSocket": f"unix://{CONTAINERD_SOCKET}",
        # There is no registry.
        "imagePullPolicy": "Never",
        "kubeletExtraArgs": [{"name": "node-ip", "value": address}],
        "ignorePreflightErrors": IGNORED,
    }


def _cluster(settings: Settings) -> Mapping[str, Any]:
    return {
        "apiVersion": _KUBEADM,
        "kind": "ClusterConfiguration",
        "kubernetesVersion": settings.version,
        "imageRepository": settings.repository,
        # Keys of RSA take seconds to find.
        "encryptionAlgorithm": "ECDSA-P256",
        "networking": {
            "podSubnet": settings.pods,
            "serviceSubnet": SERVICES,
            "dnsDomain": "cluster.local",
        },
        # The lab is gone when its memory is: nothing to keep from a power cut.
        "etcd": {
            "local": {
                "dataDir": "/var/lib/etcd/data",
                "extraArgs": [{"name": "unsafe-no-fsync", "value": "true"}],
            }
        },
    }


def _kubelet() -> Mapping[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        # Lowering it takes CAP_SYS_RESOURCE.
        "oomScoreAdj": 0,
        "fileCheckFrequency": "1s",
        "nodeStatusUpdateFrequency": "5s",
        # Images can't be had again, and a full disk of the host's is not ours to mend.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
    }


def _proxy() -> Mapping[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        # The whole host's settings of conntrack stay as they are.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }


def _text(*documents: Mapping[str, Any]) -> str:
    return yaml.safe_dump_all(map(dict, documents), sort_keys=False)
