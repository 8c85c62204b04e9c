"""Nodes that peer with others' BGP: reflectors in the mesh's place, a router of another AS."""

from collections.abc import Iterator
from functools import partial

import pytest

import routers
from cluster import DNSUTILS, WEB, Cluster, eventually, lab, wait_for_answer
from peerings import GATEWAYS, apply, set_mode, wait_for_peers
from routers import NODES

pytestmark = [
    pytest.mark.netns, pytest.mark.peers, pytest.mark.timeout(300),
]  # fmt: skip

# Both reflect for one cluster (RFC 4456): what one has from the other it leaves alone.
REFLECTORS = {"router": "10.10.0.1", "outside": "203.0.113.10"}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with lab("routers") as running:
        yield running


def route_blocks(cluster: Cluster) -> None:
    """Have the router know the blocks."""
    for node, address in NODES.items():
        blocks = [line.split()[1] for line in cluster.routes(node) if line.startswith("blackhole")]
        for block in blocks:
            cluster.run("router", f"ip route add {block} via {address}")


# A connection to a node's BGP port, by packets of this TTL.
CALL = """
import socket, sys
s = socket.socket()
s.settimeout(2)
s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, int(sys.argv[1]))
try:
    s.connect(("10.10.7.20", 179))
    print("heard")
except TimeoutError:
    print("unheard")
"""


def has_route(cluster: Cluster, wanted: str) -> bool:
    return wanted in cluster.routes("node-0")


def wait_until_router_routes(cluster: Cluster) -> None:
    """Wait until the router's kernel has the way to each node's block, not its BGP alone."""

    def ways() -> set[str]:
        lines = [line for line in cluster.routes("router") if line.startswith("192.168.")]
        return {line.partition(" via ")[2].partition(" ")[0] for line in lines}

    eventually(lambda: ways() == set(NODES.values()), within_s=60, what=ways)


def has_no_tunnel(cluster: Cluster) -> bool:
    return not any("tunl0" in line for table in tables(cluster).values() for line in table)


def tables(cluster: Cluster) -> dict[str, list[str]]:
    return {node: cluster.routes(node) for node in NODES}


@pytest.mark.parametrize("engines", [("bird", "bird"), ("frr", "gobgp")], ids="-".join)
def test_reflectors_take_the_place_of_the_mesh(cluster: Cluster, engines: tuple[str, str]) -> None:
    before = tables(cluster)
    reflectors = {node: set(REFLECTORS.values()) for node in NODES}
    made = [routers.Router(*one, cluster_id="10.0.0.9") for one in REFLECTORS.items()]
    for engine, router in zip(engines, made, strict=True):
        routers.start(cluster, engine, router)

    with cluster.stream(DNSUTILS, "192.168.247.10", seconds=12) as losses:
        for place, address in REFLECTORS.items():
            apply(cluster, "BGPPeer", place, peerIP=address, asNumber=64512)
        wait_for_peers(cluster, mesh=True, also=reflectors)
        apply(cluster, "BGPConfiguration", "default", nodeToNodeMeshEnabled=False)
        wait_for_peers(cluster, mesh=False, also=reflectors)
        assert tables(cluster) == before
        routers.end(cluster, made[0])
        one = {node: {REFLECTORS["outside"]} for node in NODES}
        wait_for_peers(cluster, mesh=False, also=one)
        assert tables(cluster) == before

    assert losses[0].lost == 0


@pytest.mark.parametrize("engine", ["bird", "frr", "gobgp"])
def test_a_router_of_another_as_leads_to_the_nodes(cluster: Cluster, engine: str) -> None:
    """Without tunnels: the routers in between know the blocks."""
    routers.start(cluster, engine, routers.Router("router", "10.10.0.1", 65000, hops=1))
    if engine == "gobgp":  # which leaves the kernel's table to others
        route_blocks(cluster)
    gateways = {node: {gateway} for node, gateway in GATEWAYS.items()}
    for node, gateway in GATEWAYS.items():
        # All nodes are of one AS, so it stands in what the router tells of the others.
        apply(
            cluster, "BGPPeer", node, node=node, peerIP=gateway, asNumber=65000,
            numAllowedLocalASNumbers=1, ttlSecurity=1,
        )  # fmt: skip
    wait_for_peers(cluster, mesh=True, also=gateways)
    wait_until_router_routes(cluster)
    learned = "192.168.247.0/26 via 10.10.0.1 dev eth0 proto bird"
    tunnelled = "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"

    with cluster.stream(DNSUTILS, "192.168.247.10", seconds=12) as losses:
        for mode, wanted in (("Never", learned), ("Always", tunnelled), ("Never", learned)):
            set_mode(cluster, mode)
            eventually(partial(has_route, cluster, wanted), within_s=60)
        eventually(lambda: has_no_tunnel(cluster), within_s=60)
        apply(cluster, "BGPConfiguration", "default", nodeToNodeMeshEnabled=False)
        wait_for_peers(cluster, mesh=False, also=gateways)

    assert losses[0].lost == 0
    assert learned in cluster.routes("node-0")
    blocks = [line for line in cluster.routes("router") if line.startswith("192.168.247.0/26 ")]
    assert [" via 10.10.43.25 dev " in line for line in blocks] == [True]
    for ttl, fate in ((255, "heard"), (254, "unheard"), (64, "unheard")):
        assert cluster.execute("router", "python3", "-c", CALL, str(ttl)) == f"{fate}\n"
    source = cluster.run(DNSUTILS, "ip -4 -o address show eth0").split()[3].partition("/")[0]
    wait_for_answer(cluster, WEB, source)
