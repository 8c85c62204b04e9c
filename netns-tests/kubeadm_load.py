"""A cluster by kubeadm under load: its pods, streams between them, and its books."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from cluster import eventually
from kubeadm_cluster import LATER_S, NODES, SOON_S, Cluster
from pycni.lab.kubeadm.cluster import ADMIN
from pycni.lab.kubeadm.kit import TOOLBOX

TICK_S = 0.05
_CONTAINER = re.compile(r'"containerID": *"(\w+)"')
_ECHO = re.compile(r"\bseq=(\d+) ")


def start_pods(
    cluster: Cluster,
    wanted: dict[str, str],
    *,
    command: Sequence[str] = ("sleep", "3600"),
    grace_s: int = 1,
    label: str = "load",
    within_s: int = LATER_S,
) -> None:
    """Make pods by name on nodes at once, and wait until all are ready."""
    container = {"name": "box", "image": TOOLBOX, "command": list(command)}
    documents = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"for": label}},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": grace_s,
                "automountServiceAccountToken": False,
                "containers": [container],
            },
        }
        for name, node in wanted.items()
    ]
    cluster.lab.feed(yaml.safe_dump_all(documents), "kubectl", "create", "--filename=-")
    ready = f"--timeout={within_s}s", "pod", "--selector", f"for={label}"
    cluster.kubectl("wait", "--for=condition=Ready", *ready, timeout=within_s + 10)


@dataclass(frozen=True, slots=True)
class Stream:
    """A pod that pings another one for ever, whose log says which echoes came."""

    cluster: Cluster
    pod: str

    def echoes(self) -> list[int]:
        """Return the numbers of all echoes so far."""
        return [int(number) for number in _ECHO.findall(self.cluster.kubectl("logs", self.pod))]

    def lost(self) -> list[int]:
        """Return the numbers of which no echo came, once the stream is seen to go on."""
        until = max(self.echoes(), default=0) + round(1 / TICK_S)
        eventually(
            lambda: max(self.echoes(), default=0) >= until,
            within_s=SOON_S,
            what=lambda: f"{self.pod} wants {until}, has {self.echoes()[-1:]}",
        )
        came = self.echoes()
        return sorted(set(range(max(came))) - set(came))


def start_streams(cluster: Cluster) -> list[Stream]:
    """Let a pod of each node ping one of the next node; return once all do."""
    start_pods(cluster, {f"target-{node}": node for node in NODES}, label="target")
    addresses = {p["metadata"]["name"]: p["status"]["podIP"] for p in cluster.items("pods")}
    streams = []
    for at, node in enumerate(NODES):
        target = addresses[f"target-{NODES[(at + 1) % len(NODES)]}"]
        # A new block's route comes a moment after its pod, and the first packet through tc-bpf's
        # tunnels may wait for ARP in vain: what counts begins with the first answer.
        first = f"until ping -c 1 -W 1 {target} >/dev/null; do sleep 0.2; done"
        script = f"{first}; exec ping -i {TICK_S} {target}"
        pod = f"stream-{node}"
        start_pods(cluster, {pod: node}, command=("sh", "-c", script), label=pod)
        streams.append(Stream(cluster, pod))

    def silent() -> list[str]:
        return [stream.pod for stream in streams if not stream.echoes()]

    eventually(lambda: not silent(), within_s=SOON_S, what=silent)
    return streams


def lost_of(streams: Sequence[Stream]) -> dict[str, list[int]]:
    """Return which packets each stream has lost, of those that lost any."""
    return {stream.pod: lost for stream in streams if (lost := stream.lost())}


def journals(cluster: Cluster) -> dict[str, int]:
    """Return how many releases each node owes to the cluster."""
    script = "ls /var/lib/pycni/journal 2>/dev/null | wc -l"
    return {node: int(cluster.lab.execute(node, "sh", "-c", script)) for node in NODES}


def debtors(cluster: Cluster) -> dict[str, set[str]]:
    """Return the containers whose release each node owes to the cluster."""
    script = "cat /var/lib/pycni/journal/*.json 2>/dev/null || true"
    said = {node: cluster.lab.execute(node, "sh", "-c", script) for node in NODES}
    return {node: set(_CONTAINER.findall(text)) for node, text in said.items()}


def containers_of(cluster: Cluster, label: str) -> dict[str, set[str]]:
    """Return each node's pods of that label, by the containers whose addresses they have."""
    found: dict[str, set[str]] = {node: set() for node in NODES}
    for pod in cluster.items("pods", f"--selector=for={label}"):
        notes = pod["metadata"].get("annotations", {})
        found[pod["spec"]["nodeName"]].add(notes.get("cni.projectcalico.org/containerID", ""))
    return found


def findings(cluster: Cluster) -> str:
    """Return what is wrong with the books of addresses; nothing, where all is right."""
    words = ("pycnictl", "--kubeconfig", ADMIN, "ipam", "check")
    ran = cluster.lab.run("exec", "node-0", "--", *words)
    return "" if "findings: 0 " in ran.stdout else ran.stdout + ran.stderr


def handles(cluster: Cluster) -> int:
    """Return how many attachments hold addresses."""
    return len(cluster.items("ipamhandles.crd.projectcalico.org"))


def wait_for_books(cluster: Cluster, *, held: int | None = None) -> None:
    """Wait until the books are right and nothing is owed, with so many handles if it is told.

    The API server forgets a pod before its node has given back its address.
    """

    def state() -> tuple[str, dict[str, int], int | None]:
        return findings(cluster), journals(cluster), None if held is None else handles(cluster)

    rest = ("", dict.fromkeys(NODES, 0), held)
    eventually(lambda: state() == rest, within_s=SOON_S, what=state)


def agents(cluster: Cluster) -> dict[str, str]:
    """Return each node's agent: its process id, empty where none runs."""
    script = r"pgrep -f 'python -I (-m pycni\.agent|[^ ]*/pycni-agent)$' || true"
    return {node: cluster.lab.execute(node, "sh", "-c", script).strip() for node in NODES}
