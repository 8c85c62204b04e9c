"""A cluster by kubeadm, as tests drive it: kubectl in, objects and text out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from pycni.lab.kubeadm.kit import TOOLBOX

if TYPE_CHECKING:
    from lab_driver import Lab

NODES = ("node-0", "node-1", "node-2")


class Cluster:
    """A lab with Kubernetes that is up."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def kubectl(self, *words: str, timeout: float = 120) -> str:
        ran = self.lab.run("kubectl", *words, timeout=timeout)
        assert ran.returncode == 0, f"{words}: {ran.stderr}{ran.stdout}"
        return ran.stdout

    def items(self, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", *words, "-o", "json"))["items"]
        return found

    def execute(self, pod: str, *command: str) -> str:
        return self.kubectl("exec", pod, "--", *command)


def up(lab: Lab, *words: str) -> None:
    ran = lab.run("up", "--kubernetes", "--tunnel", lab.tunnel, *words, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def make_boxes(cluster: Cluster, wanted: dict[str, str]) -> dict[str, str]:
    """Make pods by name on nodes; return their addresses once they run."""
    for name, node in wanted.items():
        spec = {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "box", "image": TOOLBOX, "command": ["sleep", "3600"]}],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        cluster.lab.feed(yaml.safe_dump(pod), "kubectl", "create", "--filename=-")
    cluster.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod", *wanted)
    pods = {pod["metadata"]["name"]: pod for pod in cluster.items("pods")}
    return {name: pods[name]["status"]["podIP"] for name in wanted}
