"""A node that is told nothing: its address is the kubelet's, its cluster's first pool kubeadm's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest

from cluster import NotYet, eventually
from kubernetes_host import KubernetesHost, kubernetes_host
from pycni.datastore.kubernetes_objects import PATHS
from pycni.model.resources import IPPool, Node

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Namespace

pytestmark = [
    pytest.mark.netns, pytest.mark.kubernetes, pytest.mark.timeout(300),
]  # fmt: skip


@pytest.fixture
def host(netns: Callable[[], Namespace], tmp_path: Path) -> Iterator[KubernetesHost]:
    with kubernetes_host(tmp_path, netns) as made:
        yield made


def accepts_sessions(host: KubernetesHost, address: str) -> bool:
    sockets = host.namespace.sh("ss -Hltn 'sport = :179'")
    if f"{address}:179" not in sockets:
        raise NotYet(sockets)
    return True


def test_internal_ip_waits_for_its_interface_and_is_followed(host: KubernetesHost) -> None:
    host.make_node("10.10.7.21")
    host.start_agent()
    sentence = "no interface has 10.10.7.21, the InternalIP of Node node-0"
    eventually(lambda: host.complains(sentence), within_s=60, what=host.agent_log)
    assert host.has_addresses()

    host.namespace.run("ip", "addr", "add", "10.10.7.21/20", "dev", "eth0")
    eventually(lambda: host.has_addresses(IPv4Address="10.10.7.21/20"), within_s=60)
    eventually(lambda: accepts_sessions(host, "10.10.7.21"), within_s=60, what=host.agent_log)

    host.namespace.run("ip", "addr", "add", "fd00:10::20/64", "dev", "eth0", "nodad")
    host.readdress("10.10.7.20", "fd00:10::20")

    both = {"IPv4Address": "10.10.7.20/20", "IPv6Address": "fd00:10::20/64"}
    eventually(lambda: host.has_addresses(**both), within_s=60)
    eventually(lambda: accepts_sessions(host, "10.10.7.20"), within_s=60, what=host.agent_log)
    eventually(lambda: accepts_sessions(host, "[fd00:10::20]"), within_s=60)
    host.wait_until_served()
    eventually(lambda: host.problems() == [], within_s=60, what=host.problems)


def test_first_pool_is_kubeadms_and_its_absence_is_told(host: KubernetesHost) -> None:
    host.ctl("delete", "pool", "default")
    host.make_node()
    host.start_agent()
    eventually(lambda: host.complains("there is no IPPool"), within_s=60, what=host.agent_log)
    assert host.call("ADD", host.pod("none")).code == 11

    said = {"ClusterConfiguration": "networking: {podSubnet: 10.128.0.0/12}"}
    config_map = {"metadata": {"name": "kubeadm-config"}, "data": said}
    host.ask("POST", "/api/v1/namespaces/kube-system/configmaps", config_map)

    eventually(lambda: has_pool(host, "10.128.0.0/12"), within_s=60, what=host.agent_log)
    # The CNI server hears of the pool by watching.
    added = host.add(host.pod())
    assert added.status == 0, added.output
    assert ip_interface(added.addresses[0]) in ip_network("10.128.0.0/12")
    # Where the kernel has no tunnels that remains a problem.
    eventually(lambda: host.status()["tunnel_address"] is not None, within_s=60)
    eventually(lambda: "no IPPool" not in str(host.problems()), within_s=60, what=host.problems)


def has_pool(host: KubernetesHost, cidr: str) -> bool:
    pools = [
        (one["metadata"]["name"], one["spec"]) for one in host.ask("GET", PATHS[IPPool])["items"]
    ]
    if not pools:
        raise NotYet("no pool")
    ((name, spec),) = pools
    assert (name, spec["cidr"]) == ("default-ipv4-ippool", cidr)
    assert (spec["ipipMode"], spec["natOutgoing"], spec["blockSize"]) == ("Always", True, 26)
    return True


def test_a_machine_that_takes_a_nodes_name_over_inherits_no_addresses(
    host: KubernetesHost,
) -> None:
    host.make_node()
    host.start_agent()
    host.wait_until_served()
    for number in range(3):
        assert host.call("ADD", host.pod(f"c{number}")).status == 0
    host.stop_agent()
    before = host.held()

    # Its disk and its kernel are new; the Node object is, too.
    for line in host.namespace.run("ip", "-o", "link").stdout.splitlines():
        name = line.split(": ")[1].partition("@")[0]
        if name.startswith("cali"):
            host.namespace.run("ip", "link", "del", name)
    for name in ("run", "state"):
        shutil.rmtree(host.directory / name)
    host.ask("DELETE", f"{PATHS[Node]}/node-0")
    host.make_node()
    host.start_agent()
    host.wait_until_served()

    assert len(before) == 6  # and a handle each
    eventually(lambda: host.held() == [], within_s=60, what=host.agent_log)  # not in minutes
