"""Agents and BGP engines die and come back; running pods never notice."""

import time
from collections.abc import Callable, Iterator

import pytest

from cluster import DNSUTILS, HOLD_TIME_S, Cluster, eventually, lab

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]

LEARNED = "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("restart") as running:
        yield running


def all_up(cluster: Cluster, node: str) -> bool:
    return all(p["state"] == "up" and not p["stale"] for p in cluster.status(node)["peers"])


def kill_agents(cluster: Cluster) -> None:
    for node in ("node-0", "node-2"):
        cluster.lab("agent", "kill", node)
    time.sleep(1)
    for node in ("node-0", "node-2"):
        cluster.lab("agent", "start", node)


def restart_agents(cluster: Cluster) -> None:
    for node in ("node-0", "node-2"):
        cluster.lab("agent", "stop", node)
        cluster.lab("agent", "start", node)


def kill_exabgps(cluster: Cluster) -> None:
    for node in ("node-0", "node-2"):
        cluster.kill_exabgp(node)


def kill_both(cluster: Cluster) -> None:
    kill_exabgps(cluster)
    kill_agents(cluster)


@pytest.mark.parametrize("accident", [kill_agents, restart_agents, kill_exabgps, kill_both])
def test_no_ping_of_a_running_stream_is_lost(
    cluster: Cluster, accident: Callable[[Cluster], None]
) -> None:
    with cluster.stream(DNSUTILS, "192.168.247.10", seconds=8) as losses:
        accident(cluster)

    assert losses[0].sent == 800
    assert losses[0].lost == 0
    for node in ("node-0", "node-1", "node-2"):
        eventually(lambda n=node: all_up(cluster, n), within_s=20)  # type: ignore[misc]


def test_sessions_are_back_within_five_seconds_of_exabgps_death(cluster: Cluster) -> None:
    pid = cluster.status("node-0")["bgp_pid"]

    cluster.run("node-0", f"kill -9 {pid}")

    eventually(
        lambda: (
            cluster.status("node-0")["bgp_pid"] not in (None, pid) and all_up(cluster, "node-0")
        ),
        within_s=5.0,
        what=lambda: cluster.status("node-0"),
    )


def test_pods_are_added_and_deleted_while_the_agent_is_away(cluster: Cluster) -> None:
    cluster.lab("agent", "kill", "node-1")

    cluster.lab("pod", "add", "default/orphan", "--node", "node-1")
    cluster.lab("pod", "add", "default/short", "--node", "node-1")
    cluster.lab("pod", "del", "default/short")
    assert cluster.run(DNSUTILS, "ping -c 2 -W 2 192.168.84.129")
    cluster.lab("agent", "start", "node-1")

    eventually(lambda: cluster.status("node-1")["endpoints"] == 1, within_s=10)
    with cluster.stream(DNSUTILS, "192.168.84.129", seconds=2) as losses:
        pass
    assert losses[0].lost == 0
    cluster.lab("pod", "del", "default/orphan")
    eventually(lambda: cluster.status("node-1")["endpoints"] == 0, within_s=5)


def test_dead_node_is_withdrawn_and_a_returning_one_reachable_soon(cluster: Cluster) -> None:
    cluster.lab("node", "down", "node-2")

    eventually(
        lambda: LEARNED not in cluster.routes("node-0"),
        within_s=HOLD_TIME_S + 1.0,
        what=lambda: cluster.routes("node-0"),
    )
    time.sleep(15)  # long enough for the back-off to grow well beyond five seconds
    cluster.lab("node", "up", "node-2")

    took = eventually(
        lambda: "1 received" in cluster.run(DNSUTILS, "ping -c 1 -W 1 192.168.247.10", check=False),
        within_s=5.0,
    )
    assert took < 5.0
