"""A real cluster by kubeadm, with pycni as its network, on machines that leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest
import yaml

from cluster import eventually
from kubeadm_cluster import (
    LATER_S,
    NODES,
    SOON_S,
    Cluster,
    make_boxes,
    up,
    wait_for_routes,
    wait_for_services,
)
from kubeadm_load import handles, wait_for_books
from lab_driver import CLONE, Lab, Traces, alive, environment, fresh, is_possible, wait_until
from pycni.lab import sockets
from pycni.lab.kubeadm import cgroups
from pycni.lab.kubeadm.spec import SYSCTLS
from pycni.lab.kubeadm.units import STATE

pytestmark = [pytest.mark.kubeadm, *is_possible, pytest.mark.long, pytest.mark.timeout(900)]

API_NAME = "kubernetes.default.svc.cluster.local"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The exercise's three nodes, for all tests that change nothing of them."""
    for lab in fresh("bpf", "kubeadm"):
        up(lab)
        cluster = Cluster(lab)
        wait_for_routes(cluster)
        wait_for_services(cluster)
        yield cluster


@pytest.fixture(scope="module")
def boxes(cluster: Cluster) -> dict[str, tuple[str, str]]:
    """A pod on each node: its name and address."""
    found = make_boxes(cluster, {f"box-{node}": node for node in NODES})
    return {node: (f"box-{node}", found[f"box-{node}"]) for node in NODES}


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab that is not up yet; nothing of it may stay, in its cgroups either."""
    yield from fresh("bpf", "kubeadm-end")


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """The exercise's first node alone: what ends well with one ends well with three."""
    document = yaml.safe_load((CLONE / "examples" / "exercise.yaml").read_text(encoding="utf-8"))
    document |= {"nodes": document["nodes"][:1], "pods": document["pods"][:1], "hosts": []}
    path = tmp_path / "single.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def host_state(lab: Lab) -> tuple[object, ...]:
    """What a cluster could change of its host: files, mounts, sysctls, cgroups."""
    sysctls = {name: Path("/proc/sys", name).read_text(encoding="ascii") for name in SYSCTLS}
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8")
    run = sorted(path.name for path in Path("/run").iterdir())
    return Traces.now(lab), sysctls, mounts, run, cgroups_of(lab)


def cgroups_of(lab: Lab) -> list[Path]:
    places = [hierarchy.cgroups(lab.name)[-1] for hierarchy in cgroups.hierarchies()]
    return [place for place in places if place.exists()]


def test_all_nodes_and_pods_run(cluster: Cluster) -> None:
    nodes = {node["metadata"]["name"]: node for node in cluster.items("nodes")}
    pods = cluster.items("pods", "--all-namespaces")

    assert sorted(nodes) == sorted(NODES)
    assert {pod["status"]["phase"] for pod in pods} == {"Running"}
    addresses = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}
    assert addresses["web"] == "192.168.247.11", "the topology asks for it"
    assert addresses["kube-apiserver-node-0"] == "10.10.7.20"


def test_workers_have_no_python_and_their_agents_are_a_daemonsets(cluster: Cluster) -> None:
    pods = cluster.items("pods", "--all-namespaces", "--selector=app.kubernetes.io/name=pycni")

    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["node-1", "node-2"]
    for node, expected in zip(NODES, ("active", "", ""), strict=True):
        script = "systemctl is-active pycni-agent 2>/dev/null || true; command -v python3 || true"
        said = cluster.lab.execute(node, "sh", "-c", script).split()
        assert said == ([expected, "/usr/bin/python3"] if expected else []), node


def test_pods_of_all_nodes_ping_each_other(
    cluster: Cluster, boxes: dict[str, tuple[str, str]]
) -> None:
    for (name, _), (_, address) in permutations(boxes.values(), 2):
        # The first packet through tc-bpf's tunnels may wait for ARP in vain.
        assert "bytes from" in cluster.execute(name, "ping", "-c", "3", "-W", "2", address)


@pytest.mark.parametrize("node", NODES)
def test_pods_resolve_services_by_the_services_address(
    cluster: Cluster, boxes: dict[str, tuple[str, str]], node: str
) -> None:
    (dns,) = (s for s in cluster.items("services", "-A") if s["metadata"]["name"] == "kube-dns")

    said = cluster.execute(boxes[node][0], "nslookup", API_NAME)

    assert dns["spec"]["clusterIP"] == "10.96.0.10"
    assert "10.96.0.10:53" in said
    assert "Address: 10.96.0.1\n" in said


def test_nodes_route_each_others_blocks_into_the_tunnel(cluster: Cluster) -> None:
    said = cluster.lab.execute("node-0", "ip", "route")
    routes = [line.strip() for line in said.splitlines()]

    assert "192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink" in routes
    assert "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink" in routes
    assert "blackhole 192.168.39.192/26 proto bird" in routes


def test_the_underlay_carries_ip_in_ip(cluster: Cluster, boxes: dict[str, tuple[str, str]]) -> None:
    (name, source), (_, target) = boxes["node-1"], boxes["node-2"]
    # Of BGP there may be packets in tunnels too: none of these is ICMP.
    inner = "proto 4 and ip[29] = 1"
    watch = ["timeout", str(SOON_S), "tcpdump", "-nn", "-t", "-i", "any", "-c", "1", inner]
    ping = cluster.lab.command("kubectl", "exec", name, "--", "ping", "-c", str(SOON_S), target)
    with in_background(ping):
        seen = cluster.lab.execute("router", *watch)

    assert f"IP 10.10.24.89 > 10.10.43.25: IP {source} > {target}: ICMP echo" in seen or (
        f"IP 10.10.43.25 > 10.10.24.89: IP {target} > {source}: ICMP echo" in seen
    ), seen


def test_a_pod_that_is_gone_holds_no_address(cluster: Cluster) -> None:
    def has_route() -> bool:
        return address in cluster.lab.execute("node-1", "ip", "route").split()

    held = handles(cluster)
    address = make_boxes(cluster, {"passing": "node-1"})["passing"]
    assert has_route()

    cluster.kubectl("delete", "pod", "passing")

    # The object goes before its kubelet has cleaned up.
    eventually(lambda: not has_route(), within_s=SOON_S)
    wait_for_books(cluster, held=held)


def test_the_labs_own_checks_all_pass(cluster: Cluster) -> None:
    ran = cluster.lab.run("test", "--output=json")

    checks = {row["check"]: row["verdict"] for row in json.loads(ran.stdout)["checks"]}
    assert ran.returncode == 0, checks
    assert set(checks.values()) == {"PASS"}
    assert "default/web resolves names" in checks


def test_a_service_that_dies_is_started_again(
    cluster: Cluster, boxes: dict[str, tuple[str, str]]
) -> None:
    def pid() -> str:
        # Between two lives there is no such file.
        script = f"cat {STATE}/kubelet.pid || true"
        return cluster.lab.execute("node-1", "sh", "-c", script).strip()

    before = pid()
    cluster.lab.execute("node-1", "kill", "-KILL", before)

    wait_until(lambda: pid() not in ("", before), what=pid)
    assert cluster.lab.execute("node-1", "systemctl", "is-active", "kubelet") == "active\n"
    give_back(cluster, box=boxes["node-1"][0])


def give_back(cluster: Cluster, *, box: str) -> None:
    """Wait until a kubelet that was killed has looked at all of its pods again.

    It calls those with probes unready until it has probed them; a pod that came after it has got
    so far says that it did.
    """
    held = handles(cluster)
    eventually(lambda: cluster.execute(box, "hostname"), within_s=SOON_S)
    make_boxes(cluster, {"after": "node-1"})
    cluster.kubectl("delete", "pod", "after")
    eventually(lambda: not cluster.unready(), within_s=LATER_S, what=cluster.unready)
    wait_for_services(cluster)
    wait_for_books(cluster, held=held)


def test_nothing_is_left_after_down(lab: Lab, single: Path) -> None:
    before = host_state(lab)
    up(lab, "--topology", str(single))
    processes = lab.processes()
    assert cgroups_of(lab)
    assert host_state(lab)[1] == before[1], "the kubelet sets none of the host's sysctls"

    ran = lab.run("down")

    assert ran.returncode == 0, ran.stderr
    assert not alive(processes)
    assert host_state(lab) == before


def test_down_cleans_up_after_a_lab_that_was_killed_half_way(lab: Lab, single: Path) -> None:
    before = host_state(lab)
    words = ["up", "--kubernetes", "--tunnel", lab.tunnel, "--topology", str(single)]
    with in_background(lab.command(*words)) as coming:
        wait_until(lambda: has_pods(lab), seconds=LATER_S)
        processes = lab.processes()

        os.kill(lab.holder_pid(), signal.SIGKILL)

        wait_until(lambda: not alive(processes) and not sockets.is_up(lab.name))
        assert coming.wait(timeout=SOON_S) != 0
    lab.run("down")
    assert host_state(lab) == before


def test_down_cleans_up_after_a_lab_that_was_killed(lab: Lab) -> None:
    """Nobody waits for that one: whoever started it has left, or was killed as well."""
    cgroups.make(lab.name, "node-0")
    assert cgroups_of(lab)

    ran = lab.run("down")

    assert (ran.returncode, cgroups_of(lab)) == (0, [])
    assert "had been killed; nothing is left of it now" in ran.stdout
    assert lab.run("down").returncode == 3, "no lab is up"


@contextlib.contextmanager
def in_background(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command while the block runs."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment(), cwd="/", start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=SOON_S)


def has_pods(lab: Lab) -> bool:
    """Whether the kubelet has made cgroups for the first pods."""
    return any(True for place in cgroups_of(lab) for _ in place.glob("*/kubepods/*/pod*"))
