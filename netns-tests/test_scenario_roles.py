"""BIRD, FRR and GoBGP as a member of the mesh, a router of another AS, two reflectors.

Each in both IP versions, with a password, on another port than 179 and, where there is a field for
it, with GTSM; the nodes' kernels and the engines' tables are compared with what they are to hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

import routers
from cluster import DNSUTILS, DUAL_STACK, Cluster, eventually, lab, wait_for_answer
from peerings import GATEWAYS, apply, others, peers_up, set_mode, wait_for_peers
from router_tables import next_hops
from routers import NODES, NODES6, Router

pytestmark = [
    pytest.mark.netns, pytest.mark.peers, pytest.mark.long, pytest.mark.timeout(300),
]  # fmt: skip

BLOCKS = {
    "192.168.39.192/26": "node-0",
    "192.168.84.128/26": "node-1",
    "192.168.247.0/26": "node-2",
    "fd00:192:168::27c0/122": "node-0",
    "fd00:192:168::f700/122": "node-2",
}
PASSWORD = "of-the-peers"  # noqa: S105 - an example
PORT = 1790
ROUTER6 = "fd00:10:10::1"
ENGINES = pytest.mark.parametrize("engine", ["bird", "frr", "gobgp"])
Tables = dict[str, list[str]]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with lab("roles", topology=DUAL_STACK) as running:
        yield running


def tables(cluster: Cluster, *nodes: str) -> Tables:
    """The kernels' tables of both IP versions."""
    return {
        node: [line for family in (4, 6) for line in cluster.routes(node, family=family)]
        for node in nodes or NODES
    }


def owners(*nodes: str) -> dict[str, str]:
    """Each block of these nodes, and the address of the one that has it."""
    return {
        block: (NODES6 if ":" in block else NODES)[node]
        for block, node in BLOCKS.items()
        if node in nodes
    }


def owners6(*nodes: str) -> dict[str, str]:
    """Each block of these nodes, IPv4's too, and the IPv6 address of the one that has it."""
    return {block: NODES6[node] for block, node in BLOCKS.items() if node in nodes}


def expect(cluster: Cluster, engine: str, router: Router, wanted: dict[str, str]) -> None:
    seen = partial(next_hops, cluster, engine, router)
    eventually(lambda: seen() == wanted, within_s=60, what=seen)


def expect_sorted_tables(cluster: Cluster, wanted: Tables) -> None:
    seen = partial(tables, cluster)
    eventually(
        lambda: {node: sorted(lines) for node, lines in seen().items()} == wanted,
        within_s=60,
        what=seen,
    )


def expect_tables(cluster: Cluster, wanted: Tables) -> None:
    seen = partial(tables, cluster, *wanted)
    eventually(lambda: seen() == wanted, within_s=60, what=seen)


def told_by_router(before: Tables) -> Tables:
    """The same tables once each node reaches others' blocks by its router, without tunnels."""
    return {
        node: sorted(by_router(line, GATEWAYS[node]) for line in lines)
        for node, lines in before.items()
    }


def extend_next_hops(cluster: Cluster) -> None:
    """Have the nodes' agents take IPv4 prefixes by IPv6 sessions."""
    for node in NODES:
        config = f"/run/pycni-lab/{cluster.name}/{node}/agent.yaml"
        cluster.run(node, f"echo 'extended_next_hop: true' >> {config}")
        cluster.lab("agent", "stop", node)
        cluster.lab("agent", "start", node)


def by_router(line: str, gateway: str) -> str:
    block, _, rest = line.partition(" via ")
    if block not in BLOCKS or not rest:
        return line
    if ":" in block:
        return f"{block} via {ROUTER6} {rest.partition(' ')[2]}"
    return f"{block} via {gateway} dev eth0 proto bird"


@ENGINES
def test_in_the_mesh(cluster: Cluster, engine: str) -> None:
    kept = ("node-0", "node-1")
    before = tables(cluster, *kept)
    own = tuple(block for block, node in BLOCKS.items() if node == "node-2")
    member = Router(
        "node-2", NODES["node-2"], address6=NODES6["node-2"], blocks=own,
        password=PASSWORD, port=PORT, nodes_port=PORT,
    )  # fmt: skip

    apply(cluster, "BGPConfiguration", "default", listenPort=PORT, nodeMeshPassword=PASSWORD)
    cluster.lab("agent", "stop", "node-2")
    routers.start(cluster, engine, member)

    for node in kept:
        peers = partial(peers_up, cluster, node)
        wanted = others(cluster, node)
        eventually(lambda p=peers, w=wanted: p() == w, within_s=60, what=peers)  # type: ignore[misc]
    expect(cluster, engine, member, owners(*kept))
    expect_tables(cluster, before)
    wait_for_answer(cluster, DNSUTILS, "192.168.247.10")


@ENGINES
def test_as_a_router_of_another_as(cluster: Cluster, engine: str) -> None:
    router = Router(
        "router", "10.10.0.1", 65000, hops=1, address6=ROUTER6, password=PASSWORD, port=PORT
    )
    before = tables(cluster)
    set_mode(cluster, "Never")
    routers.start(cluster, engine, router)
    also = {node: {gateway, ROUTER6} for node, gateway in GATEWAYS.items()}

    for node, gateway in GATEWAYS.items():
        for name, peer in ((node, f"{gateway}:{PORT}"), (f"{node}-6", f"[{ROUTER6}]:{PORT}")):
            apply(
                cluster, "BGPPeer", name, node=node, peerIP=peer, asNumber=65000,
                password=PASSWORD, numAllowedLocalASNumbers=1, ttlSecurity=1,
            )  # fmt: skip
    wait_for_peers(cluster, mesh=True, also=also)
    apply(cluster, "BGPConfiguration", "default", nodeToNodeMeshEnabled=False)
    wait_for_peers(cluster, mesh=False, also=also)

    expect(cluster, engine, router, owners(*NODES))
    expect_sorted_tables(cluster, told_by_router(before))


@ENGINES
def test_as_a_router_that_knows_ipv6_next_hops_alone(cluster: Cluster, engine: str) -> None:
    router = Router(
        "router", "10.10.0.1", 65000, hops=1, address6=ROUTER6, is_extended=True, port=PORT
    )
    before = tables(cluster)
    set_mode(cluster, "Never")
    extend_next_hops(cluster)
    routers.start(cluster, engine, router)
    if engine == "gobgp":  # which leaves the kernel's table to others
        for block, node in owners6(*NODES).items():
            find = f"dev=$(ip -6 route get {node} | sed 's/.* dev \\([^ ]*\\).*/\\1/')"
            cluster.run("router", f"{find}; ip route add {block} via inet6 {node} dev $dev")

    apply(
        cluster, "BGPPeer", "router", peerIP=f"[{ROUTER6}]:{PORT}", asNumber=65000,
        numAllowedLocalASNumbers=1, ttlSecurity=1,
    )  # fmt: skip
    also = {node: {ROUTER6} for node in NODES}
    wait_for_peers(cluster, mesh=True, also=also)
    apply(cluster, "BGPConfiguration", "default", nodeToNodeMeshEnabled=False)
    wait_for_peers(cluster, mesh=False, also=also)

    expect(cluster, engine, router, owners6(*NODES))
    gateway = f"inet6 {ROUTER6}"
    wanted = {
        node: sorted(by_router(line, gateway) for line in lines) for node, lines in before.items()
    }
    expect_sorted_tables(cluster, wanted)
    # The engine's own kernel has them a moment later.
    wait_for_answer(cluster, DNSUTILS, "192.168.247.10")


@ENGINES
def test_as_two_reflectors(cluster: Cluster, engine: str) -> None:
    places = {
        "router": ("10.10.0.1", ROUTER6),
        "outside": ("203.0.113.10", "2001:db8:113::10"),
    }
    made = [
        Router(
            place, four, address6=six, cluster_id="10.0.0.9", hops=2, password=PASSWORD, port=PORT
        )
        for place, (four, six) in places.items()
    ]
    before = tables(cluster)
    for router in made:
        routers.start(cluster, engine, router)

    for place, (four, six) in places.items():
        for name, peer in ((place, f"{four}:{PORT}"), (f"{place}-6", f"[{six}]:{PORT}")):
            apply(
                cluster, "BGPPeer", name, peerIP=peer, asNumber=64512, password=PASSWORD,
                ttlSecurity=2,
            )  # fmt: skip
    also = {node: {end for ends in places.values() for end in ends} for node in NODES}
    wait_for_peers(cluster, mesh=True, also=also)
    apply(cluster, "BGPConfiguration", "default", nodeToNodeMeshEnabled=False)
    wait_for_peers(cluster, mesh=False, also=also)

    for router in made:
        expect(cluster, engine, router, owners(*NODES))
    expect_tables(cluster, before)
