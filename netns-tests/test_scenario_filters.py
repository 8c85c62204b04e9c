"""What routers hear of the nodes, and what nodes take from them: filters and communities."""

import json
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Network

import pytest

import routers
from cluster import DNSUTILS, Cluster, eventually, lab
from peerings import GATEWAYS, apply, peers_up, set_mode, wait_for_peers
from router_tables import Table, learned
from routers import NODES, Router

pytestmark = [
    pytest.mark.netns, pytest.mark.peers, pytest.mark.long, pytest.mark.timeout(240),
]  # fmt: skip

ROUTER = Router("router", "10.10.0.1", 65000, hops=1)
BLOCKS = {
    "node-0": "192.168.39.192/26",
    "node-1": "192.168.84.128/26",
    "node-2": "192.168.247.0/26",
}
LEARNED = f"{BLOCKS['node-2']} via 10.10.0.1 dev eth0 proto bird"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with lab("filters") as running:
        yield running


def rejecting(block: str) -> list[dict[str, str]]:
    return [{"action": "Reject", "matchOperator": "Equal", "cidr": block}]


def peer_with(cluster: Cluster, *filters: str) -> None:
    for node, gateway in GATEWAYS.items():
        apply(
            cluster, "BGPPeer", node, node=node, peerIP=gateway, asNumber=65000,
            numAllowedLocalASNumbers=1, ttlSecurity=1, filters=list(filters),
        )  # fmt: skip


def said(cluster: Cluster, node: str) -> dict[str, list[dict[str, str]]]:
    """What `pycnictl routes` answers."""
    base = f"/run/pycni-lab/{cluster.name}"
    pycnictl = f"{base}/venv/bin/python -I -m pycni.ctl"
    text = cluster.run(node, f"{pycnictl} routes --run-dir {base}/{node}/run -o json")
    answer: dict[str, list[dict[str, str]]] = json.loads(text)
    return answer


def withheld(cluster: Cluster, node: str) -> list[str]:
    """Why a node keeps what it could announce to itself."""
    return [one["why"] for one in said(cluster, node)["withheld"]]


def fates(cluster: Cluster, node: str, block: str) -> list[str]:
    """What becomes of a block's path that the router has told a node."""
    paths = said(cluster, node)["paths"]
    return [p["used"] for p in paths if (p["prefix"], p["peer"]) == (block, GATEWAYS[node])]


def knows(cluster: Cluster, engine: str, wanted: Table) -> bool:
    return learned(cluster, engine, ROUTER) == wanted


def shows(cluster: Cluster, line: str, *, wanted: bool) -> bool:
    return (line in cluster.routes("node-0")) is wanted


def downs(cluster: Cluster) -> list[str]:
    """Every session of any node that has ever ended."""
    peers = (peer for node in NODES for peer in cluster.status(node)["peers"])
    return [f"{peer['peer']}: {peer['last_error']}" for peer in peers if peer["last_error"]]


def start(cluster: Cluster, engine: str) -> None:
    """Have a router of another AS peer with all nodes, beside the mesh."""
    routers.start(cluster, engine, ROUTER)
    peer_with(cluster)
    wait_for_peers(cluster, mesh=True, also={node: {g} for node, g in GATEWAYS.items()})


@pytest.mark.parametrize("engine", ["bird", "frr", "gobgp"])
def test_filters_rule_both_ways_and_sessions_stay(cluster: Cluster, engine: str) -> None:
    start(cluster, engine)
    set_mode(cluster, "Never")
    everything: Table = {block: set() for block in BLOCKS.values()}
    some = {block: tags for block, tags in everything.items() if block != BLOCKS["node-1"]}
    seen = partial(learned, cluster, engine, ROUTER)
    eventually(partial(knows, cluster, engine, everything), within_s=60, what=seen)
    eventually(partial(shows, cluster, LEARNED, wanted=True), within_s=60)
    before = downs(cluster)

    peer_with(cluster, "mine")
    eventually(partial(knows, cluster, engine, {}), within_s=60, what=seen)
    eventually(partial(shows, cluster, LEARNED, wanted=False), within_s=60)
    assert any("BGPFilter mine" in problem for problem in cluster.status("node-0")["problems"])

    apply(cluster, "BGPFilter", "mine", exportV4=rejecting(BLOCKS["node-1"]))
    eventually(partial(knows, cluster, engine, some), within_s=60, what=seen)
    kept = partial(withheld, cluster, "node-1")
    why = "BGPFilter mine rejects it (exportV4[0])"
    # What the router knows now it has of the other two nodes.
    eventually(lambda: kept() == [why], within_s=60, what=kept)

    apply(cluster, "BGPFilter", "mine", importV4=rejecting(BLOCKS["node-2"]))
    eventually(partial(knows, cluster, engine, everything), within_s=60, what=seen)
    fate = partial(fates, cluster, "node-0", BLOCKS["node-2"])
    why = "BGPFilter mine rejects it (importV4[0])"
    eventually(lambda: fate() == [why], within_s=60, what=fate)
    eventually(partial(shows, cluster, LEARNED, wanted=False), within_s=60)

    apply(cluster, "BGPFilter", "mine")
    eventually(partial(shows, cluster, LEARNED, wanted=True), within_s=60)
    assert downs(cluster) == before


@pytest.mark.parametrize("engine", ["bird", "frr", "gobgp"])
def test_routers_see_the_communities_of_prefixes(cluster: Cluster, engine: str) -> None:
    start(cluster, engine)
    seen = partial(learned, cluster, engine, ROUTER)
    before = downs(cluster)

    for cidr, texts in (
        ("192.168.0.0/16", ["pods", "64512:1:2"]),
        ("192.168.247.0/24", ["pods", "64512:1:2"]),
        ("192.168.0.0/16", ["64512:1:2"]),
    ):
        apply(
            cluster, "BGPConfiguration", "default",
            communities=[{"name": "pods", "value": "64512:100"}],
            prefixAdvertisements=[{"cidr": cidr, "communities": texts}],
        )  # fmt: skip
        tags = {text.replace("pods", "64512:100") for text in texts}
        wanted = {
            block: tags if IPv4Network(block).subnet_of(IPv4Network(cidr)) else set[str]()
            for block in BLOCKS.values()
        }
        eventually(partial(knows, cluster, engine, wanted), within_s=60, what=seen)

    assert downs(cluster) == before


def has_password(cluster: Cluster, node: str, text: str) -> bool:
    """Tell whether both sessions of a node's mesh are up, with this password."""
    path = f"/run/pycni-lab/{cluster.name}/{node}/run/exabgp/exabgp.conf"
    configured = cluster.run(node, f"cat {path}").count(f'md5-password "{text}"')
    return configured == 2 and len(peers_up(cluster, node)) == 2


def test_the_mesh_takes_passwords_without_losing_a_packet(cluster: Cluster) -> None:
    with cluster.stream(DNSUTILS, "192.168.247.10", seconds=14) as losses:
        for text in ("first", "second"):
            apply(cluster, "BGPConfiguration", "default", nodeMeshPassword=text)
            for node in NODES:
                eventually(partial(has_password, cluster, node, text), within_s=60)

    assert losses[0].missing == (), cluster.news()
