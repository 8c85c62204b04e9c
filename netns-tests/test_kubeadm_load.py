"""A real cluster under load: three hundred pods, and a minute without its API server."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest
import yaml

from cluster import eventually
from kubeadm_cluster import LATER_S, NODES, SOON_S, Cluster, make_boxes, up
from kubeadm_load import (
    agents,
    containers_of,
    debtors,
    handles,
    lost_of,
    start_pods,
    start_streams,
    wait_for_books,
)
from lab_driver import fresh, is_possible
from pycni.lab.kubeadm.cluster import is_ready

pytestmark = [pytest.mark.kubeadm, *is_possible, pytest.mark.long, pytest.mark.timeout(1500)]

PODS = 100  # of each node; a kubelet takes 110
# A minute on an idle machine; beside other work several times that.
MANY_S = 400
GROUP = "crd.projectcalico.org"
# The server's own count of requests tells neither who asked nor, beside the kubelet's, what of a
# pod's status was meant: a flow of their own does.
FLOW = "pycni-pods"
FLOW_SCHEMA = {
    "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
    "kind": "FlowSchema",
    "metadata": {"name": FLOW},
    "spec": {
        "priorityLevelConfiguration": {"name": "workload-high"},
        "matchingPrecedence": 100,
        "rules": [
            {
                "subjects": [
                    {
                        "kind": "ServiceAccount",
                        "serviceAccount": {"namespace": "kube-system", "name": "pycni-agent"},
                    }
                ],
                "resourceRules": [
                    {
                        "verbs": ["update", "patch"],
                        "apiGroups": [""],
                        "resources": ["pods", "pods/status"],
                        "namespaces": ["*"],
                    }
                ],
            }
        ],
    },
}
SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
ASIDE = "/var/lib/kubelet/kube-apiserver.yaml"
OUTAGE_S = 60
ENDING = ("sleep", "3601")
# How long a pod may take to go: time for all kubelets to hear that it shall, and to be seen so.
GRACE_S = 20
GOING = ("sleep", "3602")
ASKED_TO_GO = ("sh", "-c", f"trap 'exec {' '.join(GOING)}' TERM; sleep 3600 & wait")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The exercise's three nodes; each test gives them back as they were."""
    for lab in fresh("bpf", "kubeadm-load"):
        up(lab)
        yield Cluster(lab)


def writes(cluster: Cluster) -> Counter[str]:
    """Return how many writes the API server has had from pycni, refused ones too."""
    found: Counter[str] = Counter()
    for name, text, value in SAMPLE.findall(cluster.kubectl("get", "--raw", "/metrics")):
        labels = dict(LABEL.findall(text))
        is_write = labels.get("verb") in ("POST", "PUT", "PATCH", "DELETE")
        if name == "apiserver_request_total" and labels["group"] == GROUP and is_write:
            found[f"{labels['verb']} {labels['resource']} {labels['code']}"] += int(value)
        if name.endswith("dispatched_requests_total") and labels["flow_schema"] == FLOW:
            found["annotations of pods"] += int(value)
    return found


def blocks_of(cluster: Cluster) -> Counter[str]:
    """Return how many blocks each node has."""
    affinities = cluster.items(f"blockaffinities.{GROUP}")
    return Counter(one["spec"]["node"] for one in affinities)


def test_three_hundred_pods_come_and_go_for_few_writes(cluster: Cluster) -> None:
    cluster.lab.feed(yaml.safe_dump(FLOW_SCHEMA), "kubectl", "create", "--filename=-")
    make_boxes(cluster, {"first": "node-0"})
    eventually(lambda: writes(cluster)["annotations of pods"] > 0, within_s=SOON_S)
    before, held = writes(cluster), handles(cluster)
    names = {f"many-{node}-{number}": node for node in NODES for number in range(PODS)}

    start_pods(cluster, names, label="many", within_s=MANY_S)
    eventually(
        lambda: (writes(cluster) - before)["annotations of pods"] >= len(names),
        within_s=SOON_S,
        what=lambda: writes(cluster) - before,
    )
    added = writes(cluster) - before
    many = cluster.items("pods", "--selector=for=many")
    # A hundred pods and a few more fit in two blocks. Empty ones are given back after a while.
    blocks = blocks_of(cluster)
    between = writes(cluster)
    cluster.kubectl("delete", "pod", "--selector=for=many", timeout=MANY_S)
    eventually(
        lambda: handles(cluster) == held,
        within_s=SOON_S,
        what=lambda: f"{handles(cluster)} handles, {held} before",
    )
    deleted = writes(cluster) - between

    for what, made in (("ADD", added), ("DEL", deleted)):
        print(f"{made.total() / len(names):.2f} for a pod's {what}: {dict(made)}")  # noqa: T201
    assert len({pod["status"]["podIP"] for pod in many if is_ready(pod)}) == len(names)
    assert blocks == dict.fromkeys(NODES, 2)
    cluster.kubectl("delete", "pod", "first")
    wait_for_books(cluster, held=held - 1)
    assert added.total() <= 3 * len(names), dict(added)
    assert deleted.total() <= 4 * len(names), dict(deleted)


def test_a_minute_without_api_server_costs_no_packet(cluster: Cluster) -> None:
    held = handles(cluster)
    streams = start_streams(cluster)
    leaving = {f"leaving-{node}-{number}": node for node in NODES for number in range(4)}
    start_pods(cluster, leaving, command=ASKED_TO_GO, label="leaving", grace_s=GRACE_S)
    addresses = {p["status"]["podIP"] for p in cluster.items("pods", "--selector=for=leaving")}
    eventually(
        lambda: all(map(all, containers_of(cluster, "leaving").values())),
        within_s=SOON_S,
        what=lambda: containers_of(cluster, "leaving"),
    )
    going = containers_of(cluster, "leaving")
    start_pods(cluster, {"ends": "node-1"}, command=ENDING, label="ends")
    before = agents(cluster)

    cluster.kubectl("delete", "pod", "--selector=for=leaving", "--wait=false")
    eventually(
        lambda: asked_to_go(cluster) == dict.fromkeys(NODES, 4),
        within_s=GRACE_S,
        what=lambda: asked_to_go(cluster),
    )
    script = f"mv {MANIFEST} {ASIDE}; kill -KILL $(pgrep -x kube-apiserver); date +%s"
    gone_at = int(cluster.lab.execute("node-0", "sh", "-euc", script))
    cluster.lab.execute("node-0", "systemctl", "restart", "pycni-agent")
    for node in NODES[1:]:
        cluster.lab.execute(node, "kill", before[node])
    # A runtime may repeat the DEL of a pod that went long ago: that is owed as well.
    eventually(
        lambda: all(going[node] <= owing for node, owing in debtors(cluster).items()),
        within_s=SOON_S,
        what=lambda: (going, debtors(cluster), asked_to_go(cluster)),
    )
    eventually(
        lambda: all_new(agents(cluster), before), within_s=SOON_S, what=lambda: agents(cluster)
    )
    wait_until_after(cluster, gone_at + OUTAGE_S - 20)
    assert comes_again(cluster, "node-1")
    wait_until_after(cluster, gone_at + OUTAGE_S)
    cluster.lab.execute("node-0", "mv", ASIDE, MANIFEST)
    eventually(lambda: is_served(cluster), within_s=LATER_S)

    # Leaders that lost their lease have ended, and are started again after a while.
    eventually(lambda: not cluster.unready(), within_s=LATER_S, what=cluster.unready)
    wait_for_books(cluster)
    assert not lost_of(streams)
    for node in NODES:
        routes = cluster.lab.execute(node, "ip", "route").split()
        assert not addresses & set(routes), node
    after = make_boxes(cluster, {f"after-{node}": node for node in NODES})
    cluster.kubectl("delete", "pod", "ends", *after, *(stream.pod for stream in streams))
    cluster.kubectl("delete", "pod", "--selector=for=target")
    wait_for_books(cluster, held=held)


def asked_to_go(cluster: Cluster) -> dict[str, int]:
    """Return how many pods of each node its kubelet has asked to end, and still run."""
    find = ("pgrep", "-fxc", " ".join(GOING))
    return {node: int(cluster.lab.run("exec", node, "--", *find).stdout or 0) for node in NODES}


def all_new(now: dict[str, str], before: dict[str, str]) -> bool:
    return all(pid and pid != before[node] for node, pid in now.items())


def wait_until_after(cluster: Cluster, moment: int) -> None:
    """Wait until a moment of the clock: what is measured is what happens meanwhile."""
    script = f"left=$(({moment} - $(date +%s))); [ $left -le 0 ] || sleep $left"
    cluster.lab.run("exec", "node-0", "--", "sh", "-euc", script, timeout=OUTAGE_S + 20)


def comes_again(cluster: Cluster, node: str) -> bool:
    """Kill a container, and see whether its kubelet starts it again without the API server."""
    find = ("pgrep", "-fx", " ".join(ENDING))
    pid = cluster.lab.execute(node, *find).strip()
    cluster.lab.execute(node, "kill", "-KILL", pid)
    eventually(
        lambda: cluster.lab.run("exec", node, "--", *find).stdout.strip() not in ("", pid),
        within_s=SOON_S,
    )
    return not is_served(cluster)


def is_served(cluster: Cluster) -> bool:
    return cluster.lab.run("kubectl", "get", "--raw", "/readyz").returncode == 0
