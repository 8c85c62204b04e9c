"""A topology as kubeadm's cluster: what is refused, what kubeadm is told, the pods' manifests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pycni.errors import InvalidInput
from pycni.lab.blueprint import read_topology
from pycni.lab.kubeadm import blueprint, config
from pycni.lab.kubeadm.config import Settings

if TYPE_CHECKING:
    from pycni.topology.model import Topology

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SETTINGS = Settings(
    version="v1.36.3",
    repository="localhost/kubernetes",
    pods="192.168.0.0/16",
    server="10.10.7.20",
    token="aaaaaa.bbbbbbbbbbbbbbbb",  # noqa: S106 - a sample
)


def topology(name: str = "exercise.yaml", *, replaced: tuple[str, str] = ("", "")) -> Topology:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    return read_topology(text.replace(*replaced) if replaced[0] else text, source=name)


def by_kind(text: str) -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def test_the_exercise_is_a_cluster_whose_pods_have_its_pool() -> None:
    blueprint.require_kubernetes(topology(), source="exercise.yaml")

    assert str(blueprint.pod_subnet(topology())) == "192.168.0.0/16"


def test_ipv6_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"dual-stack.yaml: --kubernetes makes clusters of IPv4"):
        blueprint.require_kubernetes(topology("dual-stack.yaml"), source="dual-stack.yaml")


@pytest.mark.parametrize(
    ("replaced", "what"),
    [
        (("192.168.0.0/16", "10.96.128.0/18"), "a pool has 10.96.128.0/18"),
        (("10.10.16.1", "10.96.0.1"), None),
    ],
)
def test_networks_that_services_have_are_refused(
    replaced: tuple[str, str], what: str | None
) -> None:
    text = (EXAMPLES / "exercise.yaml").read_text(encoding="utf-8").replace(*replaced)
    text = text.replace("10.10.24.89/20", "10.96.7.9/20") if what is None else text
    text = text.partition("\npods:")[0]
    made = read_topology(text, source="a.yaml")

    with pytest.raises(InvalidInput, match=rf"a.yaml: {what or 'node-1 has 10.96.0.0/20'}, and"):
        blueprint.require_kubernetes(made, source="a.yaml")


def test_a_pod_stays_where_the_topology_has_it() -> None:
    pods = {pod.name: pod for pod in topology().pods}

    document = blueprint.pod_document(pods["web"])

    assert document["spec"]["nodeName"] == "node-2"
    assert document["metadata"]["annotations"] == {
        "cni.projectcalico.org/ipAddrs": '["192.168.247.11"]'
    }
    assert blueprint.pod_document(pods["dnsutils"])["metadata"]["annotations"] == {}


def test_the_datastore_begins_with_the_topologys_objects() -> None:
    (pool,) = blueprint.objects(topology())

    assert (pool["apiVersion"], pool["kind"]) == ("crd.projectcalico.org/v1", "IPPool")
    assert pool["spec"]["cidr"] == "192.168.0.0/16"
    assert pool["spec"]["ipipMode"] == "Always"


def test_workers_have_the_daemonset_and_the_control_plane_does_not() -> None:
    manifest = (EXAMPLES.parent / "deploy" / "pycni.yaml").read_text(encoding="utf-8")

    found = {document["kind"]: document for document in blueprint.for_workers(manifest)}

    assert yaml.safe_load(found["ConfigMap"]["data"]["agent.yaml"])["hold_time_s"] == 9
    pod = found["DaemonSet"]["spec"]["template"]["spec"]
    selection = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert selection["nodeSelectorTerms"] == [
        {
            "matchExpressions": [
                {"key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist"}
            ]
        }
    ]


def test_init_makes_the_cluster_of_the_settings() -> None:
    found = by_kind(config.init_documents(SETTINGS, name="node-0"))

    assert found["InitConfiguration"]["localAPIEndpoint"]["advertiseAddress"] == "10.10.7.20"
    assert found["ClusterConfiguration"]["imageRepository"] == "localhost/kubernetes"
    assert found["ClusterConfiguration"]["networking"]["podSubnet"] == "192.168.0.0/16"
    assert found["KubeletConfiguration"]["cgroupDriver"] == "cgroupfs"
    assert found["KubeProxyConfiguration"]["mode"] == "nftables"


def test_join_knows_the_server_by_its_authority() -> None:
    joined = by_kind(
        config.join_documents(SETTINGS, name="node-1", address="10.10.24.89", discovery="/d.conf")
    )["JoinConfiguration"]
    found = by_kind(config.discovery_document(SETTINGS, authority="Q0E="))["Config"]

    assert joined["discovery"] == {
        "file": {"kubeConfigPath": "/d.conf"},
        "tlsBootstrapToken": SETTINGS.token,
    }
    assert joined["nodeRegistration"]["kubeletExtraArgs"] == [
        {"name": "node-ip", "value": "10.10.24.89"}
    ]
    assert found["clusters"][0]["cluster"] == {
        "server": "https://10.10.7.20:6443",
        "certificate-authority-data": "Q0E=",
    }
