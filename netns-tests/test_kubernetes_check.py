"""What a node in a cluster tells of policies and of itself, beside a real API server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from cluster import NotYet, eventually
from kubernetes_host import KubernetesHost, kubernetes_host
from pycni.agent.checks import FIRST_S
from pycni.agent.policies import REASON
from pycni.datastore.kubernetes_cluster import CHECK_ANNOTATION, EVENTS
from pycni.datastore.kubernetes_objects import PATHS
from pycni.model.resources import IPPool, Node

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Namespace

pytestmark = [
    pytest.mark.netns, pytest.mark.kubernetes, pytest.mark.timeout(300),
]  # fmt: skip

POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
def node(netns: Callable[[], Namespace], tmp_path: Path) -> Iterator[KubernetesHost]:
    with kubernetes_host(tmp_path, netns) as host:
        host.make_node()
        host.start_agent()
        host.wait_until_served()
        yield host


def events(node: KubernetesHost) -> list[str]:
    """Return the messages of the events about policies."""
    found = node.ask("GET", EVENTS)["items"]
    ours = [one for one in found if one["reason"] == REASON]
    assert all(one["type"] == "Warning" for one in ours)
    assert all(one["involvedObject"]["name"] == "node-0" for one in ours)
    return [one["message"].split(":")[0] for one in ours]


def has_told(node: KubernetesHost, *messages: str) -> bool:
    if sorted(events(node)) != sorted(messages):
        raise NotYet(str(events(node)))
    return True


def make_policy(node: KubernetesHost, name: str) -> None:
    node.ask("POST", POLICIES, {"metadata": {"name": name}, "spec": {"podSelector": {}}})


def has_no_problem(node: KubernetesHost) -> bool:
    return not node.status()["problems"]


def test_policies_are_said_not_to_be_enforced_until_they_are_gone(node: KubernetesHost) -> None:
    one = "1 NetworkPolicy object is not enforced"
    two = "2 NetworkPolicy objects are not enforced"
    eventually(lambda: has_no_problem(node), within_s=60, what=node.problems)
    make_policy(node, "one")

    eventually(lambda: node.complains(f"{one}: pycni has no policies yet"), within_s=60)
    eventually(lambda: has_told(node, one), within_s=60)
    said = node.try_ctl("status", "--run-dir", str(node.directory / "run"))
    assert said.status == 3
    assert f"problem: network policies: {one}" in said.output

    make_policy(node, "two")
    eventually(lambda: has_told(node, one, two), within_s=60)

    node.ask("DELETE", f"{POLICIES}/one")
    node.ask("DELETE", f"{POLICIES}/two")
    eventually(lambda: has_no_problem(node), within_s=60)
    assert has_told(node, one, two)

    make_policy(node, "three")
    eventually(lambda: has_told(node, one, one, two), within_s=60)
    node.stop_agent()
    node.start_agent()
    eventually(lambda: has_told(node, one, one, one, two), within_s=60)


def check(node: KubernetesHost, *words: str) -> dict[str, Any]:
    """Return the report on the one node."""
    said = node.try_ctl("check", "-o", "json", *words)
    (report,) = json.loads(said.output)["nodes"]
    assert report["node"] == "node-0"
    assert said.status == (3 if report["findings"] else 1 if report["unchecked"] else 0)
    found: dict[str, Any] = report
    return found


def kinds(report: dict[str, Any]) -> list[str]:
    return [one["check"] for one in report["findings"]]


def is_published(node: KubernetesHost) -> bool:
    me = node.ask("GET", f"{PATHS[Node]}/node-0")
    if CHECK_ANNOTATION not in me["metadata"]["annotations"]:
        raise NotYet(str(me["metadata"]["annotations"]))
    return True


def test_all_nodes_tell_what_their_agents_have_found(node: KubernetesHost) -> None:
    node.namespace.sh("iptables-nft -P FORWARD DROP")
    node.stop_agent()  # before it has looked for the first time
    assert check(node, "--all")["unchecked"][0].startswith("its agent has published nothing")
    node.start_agent()

    eventually(lambda: is_published(node), within_s=FIRST_S + 60)

    # In this namespace there is no name server either, nor did an installer write a network.
    assert kinds(check(node, "--all")) == ["cni-configuration", "dns", "forward-policy"]
    annotations = node.ask("GET", f"{PATHS[Node]}/node-0")["metadata"]["annotations"]
    assert annotations["projectcalico.org/IPv4Address"] == "10.10.7.20/20"


def test_a_check_looks_at_resolver_definitions_and_the_api_server(node: KubernetesHost) -> None:
    net_dir = node.directory / "net"
    net_dir.mkdir()
    (net_dir / "10-pycni.conflist").write_text(json.dumps(node.config))
    resolv_conf = node.directory / "resolv.conf"
    resolv_conf.write_text("nameserver 10.10.7.20\n")
    words = ("--node", "node-0", "--net-dir", str(net_dir), "--resolv-conf", str(resolv_conf))

    assert kinds(check(node, *words)) == ["dns"]

    node.stop_agent()
    node.ask("DELETE", f"{DEFINITIONS}/{PATHS[IPPool].rsplit('/', 1)[1]}.crd.projectcalico.org")
    eventually(lambda: kinds(check(node, *words)) == ["api", "dns"], within_s=60)

    node.api.kill_apiserver()
    report = check(node, *words)
    assert kinds(report) == ["api", "dns"]
    assert "does not answer" in report["findings"][0]["what"]
    assert report["unchecked"][0].startswith("forward-policy, ways to other nodes: ")
