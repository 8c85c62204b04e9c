"""Agents and BGP engines die and come back; running pods never notice."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from cluster import (
    DNSUTILS,
    DUAL_STACK,
    EXERCISE,
    HOLD_TIME_S,
    Cluster,
    eventually,
    lab,
    wait_for_answer,
    wait_until_steady,
)
from pings import Loss

pytestmark = [pytest.mark.netns, pytest.mark.alone, pytest.mark.timeout(360)]

# It takes two or three seconds, ExaBGP's own back-off up to a minute.
BACK_S = 30
LEARNED = "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"
_BY_BIRD = "dev eth0 proto bird metric 1024 pref medium"
LEARNED6 = f"fd00:192:168::f700/122 via fd00:10:10::4325 {_BY_BIRD}"
ORPHAN6 = f"fd00:192:168::5480/122 via fd00:10:10::2489 {_BY_BIRD}"


@pytest.fixture(scope="module", params=[EXERCISE, DUAL_STACK], ids=lambda path: path.stem)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with lab("restart", topology=request.param) as running:
        yield running


@pytest.fixture(autouse=True)
def steady(cluster: Cluster) -> None:
    """Begin with sessions that are up and the ways that are told by them."""
    wait_until_steady(cluster)


def addresses_of(cluster: Cluster, four: str, six: str) -> list[str]:
    """Return a pod's addresses of the IP versions that this cluster has."""
    return [four, six] if cluster.has_ipv6 else [four]


@contextlib.contextmanager
def streams(
    cluster: Cluster, source: str, targets: list[str], *, seconds: float
) -> Iterator[list[list[Loss]]]:
    """Send to all of these addresses at once."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(cluster.stream(source, target, seconds=seconds))
            for target in targets
        ]


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


def answers(cluster: Cluster, target: str) -> bool:
    return cluster.answers(DNSUTILS, target)


def has_learned(cluster: Cluster, line: str) -> bool:
    return not cluster.has_ipv6 or line in cluster.routes("node-0", family=6)


@pytest.mark.parametrize("accident", [kill_agents, restart_agents, kill_exabgps, kill_both])
def test_no_ping_of_a_running_stream_is_lost(
    cluster: Cluster, accident: Callable[[Cluster], None]
) -> None:
    targets = addresses_of(cluster, "192.168.247.10", "fd00:192:168::f70a")
    with streams(cluster, DNSUTILS, targets, seconds=8) as losses:
        accident(cluster)

    found = [(loss.sent, loss.missing) for (loss,) in losses]
    assert found == [(800, ())] * len(targets), cluster.news()
    for node in ("node-0", "node-1", "node-2"):
        eventually(lambda n=node: all_up(cluster, n), within_s=60)  # type: ignore[misc]


def test_sessions_are_back_soon_after_exabgps_death(cluster: Cluster) -> None:
    pid = cluster.kill_exabgp("node-0")

    eventually(
        lambda: (
            cluster.status("node-0")["bgp_pid"] not in (None, pid) and all_up(cluster, "node-0")
        ),
        within_s=BACK_S,
        what=lambda: cluster.status("node-0"),
    )


def test_pods_are_added_and_deleted_while_the_agent_is_away(cluster: Cluster) -> None:
    cluster.lab("agent", "kill", "node-1")

    cluster.lab("pod", "add", "default/orphan", "--node", "node-1")
    cluster.lab("pod", "add", "default/short", "--node", "node-1")
    cluster.lab("pod", "del", "default/short")
    wait_for_answer(cluster, DNSUTILS, "192.168.84.129")
    if cluster.has_ipv6:  # its block is advertised as soon as there is an agent
        wait_for_answer(cluster, "node-1", "fd00:192:168::5480")
    cluster.lab("agent", "start", "node-1")

    eventually(lambda: cluster.status("node-1")["endpoints"] == 1, within_s=60)
    eventually(lambda: has_learned(cluster, ORPHAN6), within_s=60)
    targets = addresses_of(cluster, "192.168.84.129", "fd00:192:168::5480")
    with streams(cluster, DNSUTILS, targets, seconds=2) as losses:
        pass
    assert [loss.lost for (loss,) in losses] == [0] * len(targets)
    cluster.lab("pod", "del", "default/orphan")
    eventually(lambda: cluster.status("node-1")["endpoints"] == 0, within_s=60)


def test_a_node_without_link_uses_nothing_that_it_has_learned(cluster: Cluster) -> None:
    """It doesn't wait for the hold timer, and its sessions may live through it."""
    # Two IPv4 blocks of others, and one of IPv6, or two once node-1 has had a pod.
    wanted = 3 if cluster.has_ipv6 else 2
    eventually(
        lambda: all_up(cluster, "node-2") and len(learned_by(cluster, "node-2")) >= wanted,
        within_s=60,
        what=lambda: learned_by(cluster, "node-2"),
    )
    before = learned_by(cluster, "node-2")

    cluster.lab("node", "down", "node-2")
    eventually(lambda: not learned_by(cluster, "node-2"), within_s=HOLD_TIME_S)
    # The hold timer would have taken the very paths.
    fates = {path["reason"] for path in cluster.ask("node-2", "bgp_routes")["learned"]}
    problems = cluster.status("node-2")["problems"]
    cluster.lab("node", "up", "node-2")

    assert fates == {"eth0, by which it would leave, has no link"}
    assert any(problem.startswith("eth0, which carries this") for problem in problems), problems
    eventually(
        lambda: set(before) <= set(learned_by(cluster, "node-2")),
        within_s=BACK_S,
        what=lambda: (learned_by(cluster, "node-2"), before),
    )
    eventually(lambda: all_up(cluster, "node-2"), within_s=60)
    # The router, too, has to find its neighbour again.
    for target in addresses_of(cluster, "192.168.247.10", "fd00:192:168::f70a"):
        eventually(lambda t=target: answers(cluster, t), within_s=BACK_S)  # type: ignore[misc]


def learned_by(cluster: Cluster, node: str) -> list[str]:
    """Return a node's routes to others' blocks."""
    lines = [line for family in (4, 6) for line in cluster.routes(node, family=family)]
    return [line for line in lines if " via " in line and " proto bird" in line]


def test_dead_node_is_withdrawn_and_a_returning_one_reachable_soon(cluster: Cluster) -> None:
    cluster.lab("node", "down", "node-2")

    eventually(
        lambda: LEARNED not in cluster.routes("node-0"),
        within_s=2 * HOLD_TIME_S,
        what=lambda: cluster.routes("node-0"),
    )
    # Another session, with a hold timer of its own.
    eventually(lambda: LEARNED6 not in cluster.routes("node-0", family=6), within_s=2 * HOLD_TIME_S)
    time.sleep(15)  # long enough for the back-off to grow well beyond five seconds
    cluster.lab("node", "up", "node-2")

    targets = addresses_of(cluster, "192.168.247.10", "fd00:192:168::f70a")
    eventually(lambda: all(answers(cluster, target) for target in targets), within_s=BACK_S)
