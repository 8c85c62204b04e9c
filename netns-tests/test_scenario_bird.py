"""BIRD 2 as a member of the mesh, in place of one node's agent."""

import shutil
from collections.abc import Iterator

import pytest

from cluster import DNSUTILS, Cluster, eventually, lab, wait_for_answer

pytestmark = [pytest.mark.netns, pytest.mark.peers, pytest.mark.timeout(240)]

LEARNED = "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"
CONFIG = """
router id 10.10.43.25;
protocol device {}
protocol static own { ipv4; route 192.168.247.0/26 blackhole;
  # Not its block: must not be believed.
  route 192.168.39.192/26 blackhole; route 0.0.0.0/0 blackhole; route 192.168.99.0/26 blackhole; }
template bgp mesh { local 10.10.43.25 as 64512; hold time 9; graceful restart yes;
  multihop; ipv4 { import all; export where proto = "own"; next hop self; }; }
protocol bgp n0 from mesh { neighbor 10.10.7.20 as 64512; }
protocol bgp n1 from mesh { neighbor 10.10.24.89 as 64512; }
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    if shutil.which("bird") is None:
        pytest.fail("BIRD is missing: run  apt-get install bird2")
    with lab("bird") as running:
        yield running


def birdc(cluster: Cluster, words: str) -> str:
    return cluster.run("node-2", f"birdc -s /run/bird.ctl {words}", check=False)


def told_by_node_0(cluster: Cluster) -> str:
    """What BIRD has learned by its session with node-0."""
    return birdc(cluster, "show route protocol n0 all")


def wait_for_route(cluster: Cluster, *, is_there: bool = True) -> None:
    """Wait until node-0 has the route to BIRD's block, or has it no more."""
    eventually(
        lambda: (LEARNED in cluster.routes("node-0")) is is_there,
        within_s=60,
        what=lambda: cluster.routes("node-0"),
    )


def has_bird(cluster: Cluster, node: str) -> bool:
    peers = {p["peer"]: p for p in cluster.status(node)["peers"]}
    bird = peers["10.10.43.25"]
    return bird["state"] == "up" and bird["paths"] == 4 and not bird["stale"]


def test_bird_takes_the_place_of_an_agent_and_leaves(cluster: Cluster) -> None:
    with cluster.stream(DNSUTILS, "192.168.247.10", seconds=6) as losses:
        cluster.lab("agent", "stop", "node-2")
        cluster.run("node-2", f"cat > /run/bird.conf <<'X'\n{CONFIG}\nX")
        # -R: it says that forwarding went on meanwhile (RFC 4724's F bit). Without that its
        # first OPEN makes the others drop what they kept.
        cluster.run("node-2", "bird -R -c /run/bird.conf -s /run/bird.ctl -P /run/bird.pid")
        for node in ("node-0", "node-1"):
            eventually(lambda n=node: has_bird(cluster, n), within_s=60)  # type: ignore[misc]

    assert losses[0].lost == 0
    assert LEARNED in cluster.routes("node-0")
    assert "192.168.99.0/26" not in "".join(cluster.routes("node-0"))
    assert "blackhole 192.168.39.192/26 proto bird" in cluster.routes("node-0")
    eventually(lambda: "192.168.84.128/26" in birdc(cluster, "show route"), within_s=30)
    # Each node tells it by a session of its own.
    eventually(
        lambda: "192.168.39.192/26" in told_by_node_0(cluster),
        within_s=30,
        what=lambda: told_by_node_0(cluster),
    )
    assert "BGP.next_hop: 10.10.7.20" in told_by_node_0(cluster)

    birdc(cluster, "down")  # a Cease, after which RFC 4724 wants withdrawal

    wait_for_route(cluster, is_there=False)
    cluster.lab("agent", "start", "node-2")
    wait_for_route(cluster)
    wait_for_answer(cluster, DNSUTILS, "192.168.247.10")


def test_bird_that_is_killed_keeps_its_routes_until_it_is_back(cluster: Cluster) -> None:
    cluster.lab("agent", "stop", "node-2")
    cluster.run("node-2", f"cat > /run/bird.conf <<'X'\n{CONFIG}\nX")
    start = "bird -c /run/bird.conf -s /run/bird.ctl -P /run/bird.pid"
    cluster.run("node-2", start)
    eventually(lambda: has_bird(cluster, "node-0"), within_s=60)
    # Its first OPEN, without -R, made the node drop what it had kept.
    wait_for_route(cluster)
    wait_for_answer(cluster, DNSUTILS, "192.168.247.10")

    with cluster.stream(DNSUTILS, "192.168.247.10", seconds=6) as losses:
        cluster.run("node-2", "kill -9 $(cat /run/bird.pid); rm -f /run/bird.ctl")
        eventually(lambda: any(p["stale"] for p in cluster.status("node-0")["peers"]), within_s=30)
        cluster.run("node-2", f"{start} -R")
        eventually(lambda: has_bird(cluster, "node-0"), within_s=60)

    assert losses[0].lost == 0
    assert LEARNED in cluster.routes("node-0")
