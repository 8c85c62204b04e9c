"""A real cluster whose first node changes over from an installed agent to the DaemonSet."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from cluster import eventually
from daemon_host import MANIFEST, image_archive
from kubeadm_cluster import NODES, SOON_S, WITHIN, Cluster, make_boxes, up
from kubeadm_load import journals
from lab_driver import Lab, environment, fresh, is_possible

pytestmark = [pytest.mark.kubeadm, *is_possible, pytest.mark.long, pytest.mark.timeout(900)]

# What an installation has and the image's static relay needs not.
CHANGE_OVER = """
cat >/run/pycni.tar
ctr --namespace k8s.io images import /run/pycni.tar
rm /run/pycni.tar
systemctl stop pycni-agent
rm -r /opt/cni/bin/pycni-engine /opt/pycni/*
"""
PINGS = ("ping", "-q", "-i", "0.05", "-c", "400")
AGENTS = ("--namespace=kube-system", "--selector=app.kubernetes.io/name=pycni")
DAEMONSET = ("--namespace", "kube-system", "rollout")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The exercise's three nodes, the first with an agent of the DaemonSet in place of its own."""
    for lab in fresh("bpf", "kubeadm-set"):
        up(lab)
        cluster = Cluster(lab)
        change_over(lab, NODES[0])
        for name in ("rbac.yaml", MANIFEST.name):
            text = (MANIFEST.parent / name).read_text(encoding="utf-8")
            lab.feed(text, "kubectl", "apply", "--filename=-")
        cluster.kubectl(*DAEMONSET, "status", "daemonset/pycni-node", WITHIN)
        yield cluster


def change_over(lab: Lab, node: str) -> None:
    """Give a node the image, and take what was installed."""
    with image_archive().open("rb") as image:
        ran = subprocess.run(
            lab.command("exec", node, "--", "sh", "-euc", CHANGE_OVER),
            stdin=image, capture_output=True, text=True, check=False, timeout=SOON_S,
            env=environment(**lab.extra), cwd="/",
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_rolling_update_loses_no_packet_between_nodes(cluster: Cluster) -> None:
    boxes = make_boxes(cluster, {"here": "node-0", "there": "node-1"})
    before = {pod["metadata"]["name"] for pod in cluster.items("pods", *AGENTS)}
    cluster.execute("here", "ping", "-c", "3", boxes["there"])

    pinging = subprocess.Popen(
        cluster.lab.command("kubectl", "exec", "here", "--", *PINGS, boxes["there"]),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        env=environment(**cluster.lab.extra), cwd="/",
    )  # fmt: skip
    cluster.kubectl(*DAEMONSET, "restart", "daemonset/pycni-node")
    cluster.kubectl(*DAEMONSET, "status", "daemonset/pycni-node", WITHIN)
    said, _ = pinging.communicate(timeout=SOON_S)

    assert re.search(r"400 packets transmitted, 400 (packets )?received", said), said
    after = {pod["metadata"]["name"] for pod in cluster.items("pods", *AGENTS)}
    assert (len(after), after & before) == (len(NODES), set())
    make_boxes(cluster, {"later": "node-0"})
    cluster.execute("later", "ping", "-c", "3", boxes["there"])


def test_pods_are_deleted_where_no_agent_runs(cluster: Cluster) -> None:
    make_boxes(cluster, {"goes": "node-2"})
    unplaced = '{"spec":{"template":{"spec":{"nodeSelector":{"nowhere":"true"}}}}}'
    placed = '{"spec":{"template":{"spec":{"nodeSelector":{"nowhere":null}}}}}'
    patch = ("--namespace", "kube-system", "patch", "daemonset", "pycni-node", "--patch")

    cluster.kubectl(*patch, unplaced)
    eventually(lambda: not cluster.items("pods", *AGENTS), within_s=SOON_S)
    cluster.kubectl("delete", "pod", "goes")
    # The object is gone before the kubelet has torn the pod down.
    eventually(lambda: any(journals(cluster).values()), within_s=SOON_S)
    cluster.kubectl(*patch, placed)
    cluster.kubectl(*DAEMONSET, "status", "daemonset/pycni-node", WITHIN)

    eventually(lambda: not any(journals(cluster).values()), within_s=SOON_S)
    make_boxes(cluster, {"comes": "node-2"})
