"""A node leaves for good: others hear of it first and lose nothing, whatever interrupts it."""

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from cluster import (
    DNSUTILS,
    DUAL_STACK,
    HOLD_TIME_S,
    LAB,
    Cluster,
    eventually,
    lab,
    wait_for_answer,
)
from route_monitor import monitored

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]

BLOCK = "192.168.84.128/26"
LEARNED = f"{BLOCK} via 10.10.24.89 dev tunl0 proto bird onlink"
OWN = f"blackhole {BLOCK} proto bird"
LEARNED6 = "fd00:192:168::5480/122 via fd00:10:10::2489 dev eth0 proto bird metric 1024 pref medium"
PEERS = ("node-0", "node-2")
"""Those that stay, with the pods of the streams."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("leave") as running:
        yield running


@pytest.fixture(autouse=True)
def member(cluster: Cluster) -> None:
    """Let node-1 be a member without pods, whatever was tried before."""
    cluster.run("node-1", "pycnictl node join")
    wait_until_learned(cluster)


def wait_until_learned(cluster: Cluster) -> None:
    for node in PEERS:
        seen = partial(cluster.routes, node)
        eventually(lambda s=seen: LEARNED in s(), within_s=60, what=seen)  # type: ignore[misc]


def wait_until_empty(cluster: Cluster) -> None:
    """Wait until node-1 has no route of ours.

    It has left once the datastore has nothing of it; that its own routes are not wanted any more
    the agent hears by watching, a moment later.
    """

    def ours() -> list[str]:
        return [line for line in cluster.routes("node-1") if " proto bird" in line]

    eventually(lambda: not ours(), within_s=60, what=ours)


@contextlib.contextmanager
def deletions(cluster: Cluster, directory: Path, *nodes: str) -> Iterator[dict[str, datetime]]:
    """Note when each of these nodes lost a route to the block."""
    logs = {node: directory / node for node in nodes}
    result: dict[str, datetime] = {}

    def is_lost(node: str) -> bool:
        found = re.search(
            rf"\[(\S+)\] Deleted (blackhole )?{re.escape(BLOCK)}", logs[node].read_text()
        )
        if found is not None:
            result[node] = datetime.fromisoformat(found[1])
        return node in result

    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.enter_context(monitored(cluster, node, logs[node]))
        yield result
        for node in nodes:
            eventually(partial(is_lost, node), within_s=60, what=logs[node].read_text)


def left_of(cluster: Cluster, node: str) -> list[str]:
    """Return what the datastore has under a node's name."""
    nodes = json.loads(cluster.run("node-0", "pycnictl get nodes -o json"))["items"]
    shown = cluster.run("node-0", "pycnictl ipam show --addresses").splitlines()
    names = [one["metadata"]["name"] for one in nodes]
    return [*(name for name in names if name == node), *(line for line in shown if node in line)]


def test_a_node_with_pods_stays(cluster: Cluster) -> None:
    cluster.lab("pod", "add", "default/last", "--node", "node-1")

    said = cluster.run("node-1", "pycnictl node leave 2>&1", check=False)

    assert "can't leave while pods are here: " in said
    assert "default/last" in said
    time.sleep(1)
    assert all(LEARNED in cluster.routes(node) for node in PEERS)
    cluster.lab("pod", "del", "default/last")


def test_others_hear_of_it_first_and_lose_nothing(cluster: Cluster, tmp_path: Path) -> None:
    with (
        cluster.stream(DNSUTILS, "192.168.247.10", seconds=8) as losses,
        deletions(cluster, tmp_path, "node-0", "node-1", "node-2") as lost,
    ):
        began = datetime.now().astimezone()
        said = cluster.run("node-1", "pycnictl node leave")

    assert "node node-1 has left" in said
    assert [(one.sent, one.lost) for one in losses] == [(800, 0)]
    for node in PEERS:
        assert lost[node] < lost["node-1"], lost
        # They are told: neither a hold time nor a restart's time passes.
        assert (lost[node].astimezone() - began).total_seconds() < HOLD_TIME_S, lost
    assert left_of(cluster, "node-1") == []
    wait_until_empty(cluster)


def test_a_node_that_left_gets_no_pod_until_it_joins(cluster: Cluster) -> None:
    cluster.run("node-1", "pycnictl node leave")
    refused = cluster.lab("pod", "add", "default/late", "--node", "node-1", check=False)
    cluster.lab("agent", "stop", "node-1")
    without = cluster.lab("pod", "add", "default/late", "--node", "node-1", check=False)
    cluster.lab("agent", "start", "node-1")
    eventually(lambda: "left" in str(cluster.status("node-1")["problems"]), within_s=60)
    assert (refused, without) == ("", "")
    assert left_of(cluster, "node-1") == []

    cluster.run("node-1", "pycnictl node join")
    cluster.lab("pod", "add", "default/late", "--node", "node-1")

    wait_until_learned(cluster)
    # It has to learn the way there as well.
    wait_for_answer(cluster, "default/late", "192.168.247.10")
    cluster.lab("pod", "del", "default/late")


@pytest.mark.parametrize("after_s", [0.0, 0.4, 1.0])
def test_a_killed_agent_goes_on_leaving(cluster: Cluster, after_s: float) -> None:
    words = [LAB, "exec", "--name", cluster.name, "node-1", "--", "pycnictl", "node", "leave"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as leaving:
        eventually(lambda: cluster.status("node-1")["problems"] != [], within_s=60)
        time.sleep(after_s)
        cluster.lab("agent", "kill", "node-1")
        time.sleep(0.5)
        cluster.lab("agent", "start", "node-1")
        said, _ = leaving.communicate(timeout=120)

    assert (leaving.returncode, "has left" in said) == (0, True)
    assert left_of(cluster, "node-1") == []
    for node in PEERS:
        eventually(lambda n=node: LEARNED not in cluster.routes(n), within_s=60)  # type: ignore[misc]
    wait_until_empty(cluster)


def test_both_ip_versions_are_withdrawn() -> None:
    with lab("leave6", topology=DUAL_STACK) as dual:
        dual.lab("pod", "add", "default/last", "--node", "node-1")
        for node in PEERS:
            eventually(lambda n=node: LEARNED6 in dual.routes(n, family=6), within_s=60)  # type: ignore[misc]
        dual.lab("pod", "del", "default/last")
        before = dual.routes("node-0", family=6)

        said = dual.run("node-1", "pycnictl node leave 2>&1")

        assert said == "node node-1 has left; its agent can be removed now\n"
        for node in PEERS:
            eventually(lambda n=node: BLOCK not in "".join(dual.routes(n)), within_s=60)  # type: ignore[misc]

        def missing() -> set[str]:
            return set(before) - set(dual.routes("node-0", family=6))

        eventually(lambda: missing() == {LEARNED6}, within_s=60, what=missing)
        assert left_of(dual, "node-1") == []
