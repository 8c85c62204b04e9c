"""Settings of BGP on running nodes: which interfaces count, and what one node has of its own."""

from collections.abc import Iterator
from functools import partial

import pytest

from cluster import DNSUTILS, Cluster, eventually, lab, wait_for_answer
from peerings import apply, has_peers, others, peers_up
from routers import NODES

pytestmark = [
    pytest.mark.netns, pytest.mark.peers, pytest.mark.timeout(240),
]  # fmt: skip

PASSWORD = "never-in-a-log"  # noqa: S105 - an example
UP = "a session is up"
CONNECTED = "connected to"
RELOADS = "performing reload"
"""What the agent and ExaBGP say of a session, and of a reload, when asked to say more."""
FAR = "192.168.247.10"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("settings") as running:
        yield running


def learned(cluster: Cluster, node: str) -> list[str]:
    """The routes of a node that others told it of."""
    return [line for line in cluster.routes(node) if "dev tunl0" in line]


def linkless(cluster: Cluster, node: str) -> list[str]:
    return [text for text in cluster.status(node)["problems"] if "has no link" in text]


def wait_for_all(cluster: Cluster) -> None:
    for node in NODES:
        what = partial(peers_up, cluster, node)
        eventually(partial(has_peers, cluster, others(cluster, node), node), within_s=60, what=what)


def sockets(cluster: Cluster, node: str) -> list[str]:
    """Where a node accepts BGP sessions."""
    lines = cluster.run(node, "ss -Htln '( sport >= :1 and sport <= :1999 )'").splitlines()
    return sorted(line.split()[3] for line in lines)


def agent_log(cluster: Cluster, node: str) -> str:
    return cluster.run(node, f"cat /run/pycni-lab/{cluster.name}/{node}/agent.log")


def exabgp_log(cluster: Cluster, node: str) -> str:
    """What the running ExaBGP has logged."""
    return cluster.run(node, f"cat /run/pycni-lab/{cluster.name}/{node}/run/exabgp.log")


def exabgp_logs(cluster: Cluster, node: str) -> str:
    """What the running ExaBGP has logged, and the one before it."""
    logs = f"/run/pycni-lab/{cluster.name}/{node}/run/exabgp.log"
    return cluster.run(node, f"cat {logs}.1 {logs}")


def test_the_link_of_an_ignored_interface_takes_no_route_away(cluster: Cluster) -> None:
    now = partial(learned, cluster, "node-0")
    # Another test may have begun sessions anew, whose routes are still to come.
    eventually(lambda: len(now()) == 2, within_s=60, what=now)
    before = now()
    try:
        cluster.lab("node", "down", "node-0")
        eventually(lambda: now() == [], within_s=30, what=now)
        told = linkless(cluster, "node-0")

        apply(cluster, "BGPConfiguration", "default", ignoredInterfaces=["dummy0", "eth*"])

        # Peers' routes are kept under graceful restart, and nothing takes them away now.
        eventually(lambda: now() == before, within_s=60, what=now)
        assert (len(before), len(told), linkless(cluster, "node-0")) == (2, 1, [])
    finally:
        cluster.lab("node", "up", "node-0")
        apply(cluster, "BGPConfiguration", "default")
    wait_for_all(cluster)
    eventually(lambda: now() == before, within_s=60, what=now)
    wait_for_answer(cluster, DNSUTILS, FAR)


def test_one_node_listens_where_its_own_settings_say(cluster: Cluster) -> None:
    apply(cluster, "BGPConfiguration", "node.node-1", listenPort=1179)

    ports = partial(sockets, cluster, "node-1")
    eventually(lambda: ports() == [f"{NODES['node-1']}:1179"], within_s=60, what=ports)
    wait_for_all(cluster)
    assert sockets(cluster, "node-0") == [f"{NODES['node-0']}:179"]
    # Who calls it calls it there; either end's call may have become the session.
    ask = "ss -Htn state established '( dport = :179 or sport = :179 )'"
    calls = partial(cluster.run, "node-0", ask)
    eventually(lambda: f"{NODES['node-1']}:179 " not in calls(), within_s=60, what=calls)
    wait_for_all(cluster)

    apply(cluster, "BGPConfiguration", "node.node-1")
    eventually(lambda: ports() == [f"{NODES['node-1']}:179"], within_s=60, what=ports)
    wait_for_all(cluster)


def test_nodes_that_are_bound_to_no_address_listen_at_all_of_them(cluster: Cluster) -> None:
    apply(cluster, "BGPConfiguration", "default", bindMode="None")

    heard = partial(sockets, cluster, "node-2")
    eventually(lambda: heard() == ["0.0.0.0:179"], within_s=60, what=heard)
    wait_for_all(cluster)

    apply(cluster, "BGPConfiguration", "default", bindMode="NodeIP")
    eventually(lambda: heard() == [f"{NODES['node-2']}:179"], within_s=60, what=heard)
    wait_for_all(cluster)


def test_debug_is_heard_at_once_of_exabgp_at_its_next_start_and_without_passwords(
    cluster: Cluster,
) -> None:
    said = agent_log(cluster, "node-1")

    apply(
        cluster, "BGPConfiguration", "default",
        logSeverityScreen="Debug", nodeMeshPassword=PASSWORD,
    )  # fmt: skip
    # The password has sessions begin anew, and ExaBGP stays.
    eventually(lambda: UP in agent_log(cluster, "node-1"), within_s=60)
    wait_for_all(cluster)
    assert UP not in said
    assert "ExaBGP ended" not in agent_log(cluster, "node-1").removeprefix(said)
    assert CONNECTED not in exabgp_log(cluster, "node-1")

    cluster.lab("agent", "stop", "node-1")
    cluster.lab("agent", "start", "node-1")
    wait_for_all(cluster)

    eventually(lambda: CONNECTED in exabgp_log(cluster, "node-1"), within_s=60)
    reloads = exabgp_log(cluster, "node-1").count(RELOADS)
    # It reads its configuration anew while it says so much, with another password in it.
    apply(
        cluster, "BGPConfiguration", "default",
        logSeverityScreen="Debug", nodeMeshPassword=f"{PASSWORD}-2",
    )  # fmt: skip
    eventually(lambda: exabgp_log(cluster, "node-1").count(RELOADS) > reloads, within_s=60)
    wait_for_all(cluster)
    for log in (agent_log, exabgp_logs):
        assert PASSWORD not in log(cluster, "node-1")

    apply(cluster, "BGPConfiguration", "default")
    wait_for_all(cluster)
