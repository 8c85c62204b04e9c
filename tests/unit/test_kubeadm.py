"""What kubeadm says of a cluster."""

import pytest

from pycni.datastore.kubeadm import pod_subnets
from pycni.errors import InvalidInput


def subnets(text: str) -> list[str]:
    return [str(one) for one in pod_subnets({"data": {"ClusterConfiguration": text}})]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("192.168.0.0/16", ["192.168.0.0/16"]),
        ("fd00:192:168::/48, 192.168.0.0/16", ["fd00:192:168::/48", "192.168.0.0/16"]),
        ("10.0.0.0/16,10.1.0.0/16", ["10.0.0.0/16"]),
        ('""', []),
    ],
)
def test_pods_have_a_subnet_of_each_ip_version(said: str, found: list[str]) -> None:
    assert subnets(f"kind: ClusterConfiguration\nnetworking:\n  podSubnet: {said}\n") == found


@pytest.mark.parametrize("text", ["", "kind: ClusterConfiguration", "networking: {}", "[]", "a"])
def test_a_cluster_may_have_been_made_without(text: str) -> None:
    assert subnets(text) == []


@pytest.mark.parametrize("config_map", [{}, {"data": None}, {"data": {}}])
def test_a_config_map_may_say_nothing(config_map: dict[str, object]) -> None:
    assert pod_subnets(config_map) == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("networking: {podSubnet: 192.168.1.0/16}", "podSubnet '192.168.1.0/16': "),
        ("networking: {podSubnet: pods}", "podSubnet 'pods': "),
        ("networking: {", "cannot read ClusterConfiguration of ConfigMap kube-system/kubeadm-"),
    ],
)
def test_what_is_no_subnet_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        subnets(text)

    assert complaint in str(caught.value)
