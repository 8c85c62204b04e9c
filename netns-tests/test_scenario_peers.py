"""Nodes without a mesh that BGPPeers join: who calls back, and where all listen."""

from collections.abc import Iterator
from functools import partial

import pytest

from cluster import Cluster, eventually, lab
from peerings import apply, has_peers, peers_up
from routers import NODES

pytestmark = [
    pytest.mark.netns, pytest.mark.peers, pytest.mark.timeout(300),
]  # fmt: skip

PORT = 1179
THERE, BACK = "192.168.84.128/26", "192.168.39.192/26"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with lab("peers") as running:
        yield running


def learned(cluster: Cluster, node: str) -> set[str]:
    """The other nodes' blocks that a node has routes to."""
    return {line.split()[0] for line in cluster.routes(node) if "dev tunl0" in line}


def connections(cluster: Cluster, node: str) -> list[str]:
    """The BGP connections of a node, by the addresses at their ends."""
    text = cluster.run(node, f"ss -Htn state established '( sport = :{PORT} or dport = :{PORT} )'")
    ends = (line.split()[-2:] for line in text.splitlines())
    return ["-".join(sorted(end.rpartition(":")[0] for end in pair)) for pair in ends]


def configured(cluster: Cluster, node: str) -> set[str]:
    return {peer["peer"] for peer in cluster.status(node)["peers"]}


def wait_for(cluster: Cluster, wanted: dict[str, set[str]]) -> None:
    for node, peers in wanted.items():
        what = partial(peers_up, cluster, node)
        eventually(partial(has_peers, cluster, peers, node), within_s=60, what=what)


def wait_until_configured(cluster: Cluster, node: str, wanted: set[str]) -> None:
    what = partial(configured, cluster, node)
    eventually(lambda: configured(cluster, node) == wanted, within_s=60, what=what)


def wait_until_learned(cluster: Cluster, wanted: dict[str, set[str]]) -> None:
    """Wait for the kernels: sessions say what came by them before it is written there."""
    for node, blocks in wanted.items():
        what = partial(learned, cluster, node)
        eventually(lambda w=what, b=blocks: w() == b, within_s=60, what=what)  # type: ignore[misc]


def one_way(cluster: Cluster, node: str) -> list[str]:
    return [text for text in cluster.status(node)["problems"] if "none of node-1 leads" in text]


def test_peerings_make_one_session_of_two_nodes(cluster: Cluster) -> None:
    zero, one = NODES["node-0"], NODES["node-1"]
    joined = {"node-0": {one}, "node-1": {zero}, "node-2": set[str]()}
    # Who is called back no more keeps what it knows for that long.
    session = {"node": "node-0", "peerIP": one, "asNumber": 64512, "maxRestartTime": "5s"}

    apply(cluster, "BGPPeer", "there", **session)
    apply(cluster, "BGPConfiguration", "default", nodeToNodeMeshEnabled=False, listenPort=PORT)
    wait_for(cluster, joined)
    for node, peers in joined.items():
        wait_until_configured(cluster, node, peers)
    both = {"node-0": {THERE}, "node-1": {BACK}}
    wait_until_learned(cluster, both)
    ends = ["-".join(sorted((zero, one)))]
    eventually(
        lambda: [connections(cluster, node) for node in joined] == [ends, ends, []],
        within_s=60,
        what=lambda: [connections(cluster, node) for node in joined],
    )

    # Nobody calls back now, and what has come by the session goes after it.
    apply(cluster, "BGPPeer", "there", **session, reversePeering="Manual")
    wait_until_configured(cluster, "node-1", set())
    wait_until_learned(cluster, {"node-0": set(), "node-1": set()})
    eventually(lambda: one_way(cluster, "node-0") != [], within_s=90)

    # One of the other node's own leads back.
    apply(
        cluster, "BGPPeer", "back",
        node="node-1", peerIP=zero, asNumber=64512, reversePeering="Manual",
    )  # fmt: skip
    wait_for(cluster, joined)
    wait_until_learned(cluster, both)
    said = partial(one_way, cluster, "node-0")
    eventually(lambda: said() == [], within_s=60, what=said)

    # One of all nodes does the mesh's work.
    apply(cluster, "BGPPeer", "everybody", peerSelector="all()")
    wait_for(cluster, {node: set(NODES.values()) - {own} for node, own in NODES.items()})
    wait_until_learned(cluster, {"node-2": {THERE, BACK}})
