"""One node whose datastore is a real API server, which goes away and comes back."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from cluster import eventually
from kubernetes_host import KubernetesHost, kubernetes_host
from plugin_host import NETWORK, Pod
from pycni.datastore.kubernetes_objects import PATHS
from pycni.model.endpoints import POD_ANNOTATION
from pycni.model.resources import Block, BlockAffinity, Handle, Node

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Namespace

LOOKS = 5
"""How many looks in a row have to show the same number before nothing more is waited for."""

pytestmark = [
    pytest.mark.netns, pytest.mark.kubernetes, pytest.mark.timeout(300),
]  # fmt: skip


@pytest.fixture
def host(netns: Callable[[], Namespace], tmp_path: Path) -> Iterator[KubernetesHost]:
    with kubernetes_host(tmp_path, netns) as made:
        yield made


@pytest.fixture
def node(host: KubernetesHost) -> KubernetesHost:
    host.make_node()
    host.start_agent()
    host.wait_until_served()
    return host


def test_a_pod_comes_and_goes_by_the_api(node: KubernetesHost) -> None:
    pod = node.pod()

    added = node.call("ADD", pod)
    assert added.status == 0, added.output
    (address,) = added.addresses
    (block,) = node.ask("GET", PATHS[Block])["items"]
    (affinity,) = node.ask("GET", PATHS[BlockAffinity])["items"]
    handles = [one["spec"] for one in node.ask("GET", PATHS[Handle])["items"]]
    (me,) = node.ask("GET", PATHS[Node])["items"]
    assert block["spec"]["affinity"] == "host:node-0"
    assert affinity["spec"]["state"] == "confirmed"
    assert handles == [
        {"handleID": f"{NETWORK}.c0ffee", "block": {block["spec"]["cidr"]: 1}, "deleted": False}
    ]
    assert me["metadata"]["annotations"]["projectcalico.org/IPv4Address"] == "10.10.7.20/20"
    assert node.call("CHECK", pod, {"prevResult": added.document}).status == 0
    assert f"{address.split('/')[0]} dev cali" in node.namespace.sh("ip route")
    node.wait_until_block_is_routed()
    assert f"blackhole {block['spec']['cidr']}" in node.namespace.sh("ip route")
    assert "findings: 0 " in node.ctl("ipam", "check", "--run-dir", str(node.directory / "run"))

    assert node.call("DEL", pod).status == 0

    assert node.settled()


def test_annotations_of_pod_and_namespace_choose_and_tell_addresses(node: KubernetesHost) -> None:
    pools = (
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: %s}\nspec: {cidr: %s}\n"
    )
    node.ctl("apply", "-f", "-", stdin=pools % ("one", "10.1.0.0/24"))
    node.ctl("apply", "-f", "-", stdin=pools % ("two", "10.2.0.0/24"))
    namespace = node.ask("GET", "/api/v1/namespaces/default")
    namespace["metadata"]["annotations"] = {f"{POD_ANNOTATION}ipv4pools": '["one"]'}
    node.ask("PUT", "/api/v1/namespaces/default", namespace)
    plain = node.make_pod("plain")
    named = node.make_pod("named", ipv4pools='["two"]', hwAddr="02:00:00:00:00:0a")
    exact = node.make_pod("exact", ipAddrs='["192.168.7.7"]')
    wrong = node.make_pod("wrong", ipv4pools="two")

    # The CNI server hears of pools and namespaces by watching.
    for pod, prefix in ((plain, "10.1.0."), (named, "10.2.0.")):
        eventually(partial(gives, node, pod, prefix), within_s=60, what=node.agent_log)

    added = {pod.container: node.call("ADD", pod) for pod in (plain, named, exact, wrong)}

    (of_plain,) = added["container-plain"].addresses
    (of_named,) = added["container-named"].addresses
    assert of_plain.startswith("10.1.0.")
    assert of_named.startswith("10.2.0.")
    assert added["container-exact"].addresses == ["192.168.7.7/32"]
    refused = added["container-wrong"]
    assert refused.code == 7
    assert "annotation cni.projectcalico.org/ipv4pools: 'two' is no JSON" in refused.document["msg"]
    notes = {"podIP": of_named, "podIPs": of_named, "containerID": "container-named"}
    eventually(lambda: node.is_noted("named", **notes), within_s=60)

    assert node.call("DEL", named).status == 0

    gone = {"podIP": "", "podIPs": "", "containerID": "container-named"}
    eventually(lambda: node.is_noted("named", **gone), within_s=60)


def gives(node: KubernetesHost, pod: Pod, prefix: str) -> bool:
    """Tell whether a pod gets such an address, and let it go."""
    added = node.call("ADD", pod)
    assert node.call("DEL", pod).status == 0
    return added.status == 0 and added.addresses[0].startswith(prefix)


def test_an_add_writes_twice_and_a_del_three_times(node: KubernetesHost) -> None:
    assert node.call("ADD", node.pod("first")).status == 0  # claims the block
    pods = [node.pod(f"c{number}") for number in range(10)]
    before = writes(node)

    for pod in pods:
        assert node.call("ADD", pod).status == 0
    added = writes(node, least=before + 20)
    for pod in pods:
        assert node.call("DEL", pod).status == 0
    deleted = writes(node, least=added + 30)

    assert (added - before, deleted - added) == (20, 30)


def writes(node: KubernetesHost, *, least: int = 0) -> int:
    """Return how many writes there were, `least` of them at least, once no more are counted.

    That follows the answer, by how much nobody says.
    """
    seen: list[int] = []

    def rests() -> bool:
        seen.append(node.writes())
        return seen[-1] >= least and seen[-LOOKS:] == [seen[-1]] * LOOKS

    eventually(rests, within_s=60, what=lambda: seen)
    return seen[-1]


def test_many_at_once_write_no_more_than_one_after_the_other(node: KubernetesHost) -> None:
    assert node.call("ADD", node.pod("first")).status == 0
    pods = [node.pod(f"c{number}") for number in range(16)]
    before = writes(node)

    with ThreadPoolExecutor(16) as callers:
        added = list(callers.map(lambda pod: node.call("ADD", pod), pods))
        between = writes(node)
        deleted = list(callers.map(lambda pod: node.call("DEL", pod), pods))

    assert {one.status for one in (*added, *deleted)} == {0}
    assert len({tuple(one.addresses) for one in added}) == 16
    # A handle each, and blocks' writes that several share.
    assert 16 < between - before <= 32
    assert 32 < writes(node) - between <= 48
    assert node.settled_but("first")


def test_an_api_that_is_away_hurts_no_pod(node: KubernetesHost) -> None:
    stays, goes, comes = node.pod("stays"), node.pod("goes"), node.pod("comes")
    for pod in (stays, goes):
        assert node.call("ADD", pod).status == 0
    node.wait_until_block_is_routed()
    routes = node.namespace.sh("ip route show | grep -v 'dev cali'")
    node.api.kill_apiserver()

    refused = node.call("ADD", comes)
    deleted = node.call("DEL", goes)

    assert refused.code == 11, refused.output
    assert "the API server does not answer" in refused.document["msg"]
    assert deleted.status == 0, deleted.output
    assert len(node.namespace.sh("ip route show | grep 'dev cali'").splitlines()) == 1
    assert node.namespace.sh("ip route show | grep -v 'dev cali'") == routes
    node.start_apiserver()

    eventually(lambda: node.settled_but("stays"), within_s=60)
    assert node.add(comes).status == 0


def test_an_agent_that_starts_while_the_api_is_away_deletes_nothing(node: KubernetesHost) -> None:
    stays, goes = node.pod("stays"), node.pod("goes")
    for pod in (stays, goes):
        assert node.call("ADD", pod).status == 0
    node.wait_until_block_is_routed()
    routes = node.namespace.sh("ip route")
    node.api.kill_apiserver()
    node.stop_agent(signal.SIGKILL)
    node.start_agent()

    eventually(lambda: node.complains("does not answer"), within_s=60, what=node.agent_log)
    assert node.namespace.sh("ip route") == routes
    assert node.call("DEL", goes).status == 0
    node.start_apiserver()

    node.wait_until_served()
    eventually(lambda: node.settled_but("stays"), within_s=60)
    assert node.call("DEL", stays).status == 0
    assert node.settled()


def test_without_an_agent_a_del_is_remembered(node: KubernetesHost) -> None:
    pod, other = node.pod("one"), node.pod("two")
    assert node.call("ADD", pod).status == 0
    node.stop_agent()

    refused = node.call("ADD", other)
    assert node.call("DEL", pod).status == 0

    assert refused.code == 11, refused.output
    assert "nobody else on this node may use the cluster's objects" in refused.document["msg"]
    assert "cali" not in node.namespace.sh("ip link")
    node.start_agent()
    eventually(node.settled, within_s=60)


def test_an_agent_waits_for_the_kubelet_to_make_the_node(host: KubernetesHost) -> None:
    host.start_agent()
    sentence = "there is no Node node-0 in the cluster"
    eventually(lambda: host.complains(sentence), within_s=60, what=host.agent_log)
    host.make_node()

    host.wait_until_served()
    assert host.add(host.pod()).status == 0
