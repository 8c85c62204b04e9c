"""The configurations of docs/routers.md, as they stand there, in the lab of those addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cluster import DNSUTILS, ROOT, Cluster, eventually, lab
from peerings import GATEWAYS, apply, set_mode, wait_for_peers
from router_tables import next_hops
from routers import NODES, Router, end

pytestmark = [
    pytest.mark.netns, pytest.mark.peers, pytest.mark.long, pytest.mark.timeout(150),
]  # fmt: skip

DOCUMENT = ROOT / "docs" / "routers.md"
BLOCKS = {
    "192.168.39.192/26": "node-0",
    "192.168.84.128/26": "node-1",
    "192.168.247.0/26": "node-2",
}
ROUTER = Router("router", "10.10.0.1")
FILES = {"bird": "bird.conf", "frr": "frr.conf", "gobgp": "gobgpd.toml"}
COMMANDS = {
    "bird": ["bird -c bird.conf -s bird.ctl -P bgp.pid"],
    "frr": [
        "mkdir -p /run/frr && chown frr: . /run/frr && touch none && chown frr: none",
        "/usr/lib/frr/zebra -d -f none -i zebra.pid --vty_socket . -z zserv.api",
        "/usr/lib/frr/bgpd -d -f none -i bgp.pid --vty_socket . -z zserv.api",
        "vtysh --vty_socket . -f frr.conf",
    ],
    "gobgp": [
        "{ gobgpd -f gobgpd.toml --api-hosts 127.0.0.1:50051 > log 2>&1 & echo $! > bgp.pid; }"
    ],
}


def examples(document: Path = DOCUMENT) -> dict[tuple[str, str], str]:
    """Return each example by what reads it and by the role: ("bird", "router")."""
    text = document.read_text()
    found = re.findall(
        r"^```(\w+) (router|reflector|range)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE
    )
    return {(reader, role): body for reader, role, body in found}


def ranged(engine: str, role: str) -> str:
    """Return an example that takes sessions from a range, in place of each node by itself."""
    text = examples()[engine, role]
    each = {
        "bird": r"protocol bgp node_.*\n",
        "frr": r" neighbor 10\..*\n",
        "gobgp": r"\[\[neighbors\]\]\n(  .*\n)+\n?",
    }
    without, count = re.subn(each[engine], "", text)
    assert count == len(NODES)
    return without + examples()[engine, "range"]


CASES = sorted(one for one in examples() if one[0] != "yaml" and one[1] != "range")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with lab("documented") as running:
        yield running


def start(cluster: Cluster, engine: str, text: str) -> None:
    cluster.run(ROUTER.place, f"mkdir -p {ROUTER.directory}")
    cluster.run(ROUTER.place, f"cat > {ROUTER.directory}/{FILES[engine]} <<'X'\n{text}X")
    for command in COMMANDS[engine]:
        said = cluster.run(ROUTER.place, f"cd {ROUTER.directory} && {command}")
        assert "Unknown command" not in said, said


def apply_example(cluster: Cluster, role: str) -> None:
    base = f"/run/pycni-lab/{cluster.name}"
    pycnictl = f"{base}/venv/bin/python -I -m pycni.ctl --datastore {base}/datastore.db"
    cluster.run("node-0", f"{pycnictl} apply -f - <<'X'\n{examples()['yaml', role]}X")


def tables(cluster: Cluster) -> dict[str, list[str]]:
    return {node: cluster.routes(node) for node in NODES}


def by_router(line: str, gateway: str) -> str:
    block, _, rest = line.partition(" via ")
    return f"{block} via {gateway} dev eth0 proto bird" if block in BLOCKS and rest else line


def peer(cluster: Cluster, role: str) -> None:
    """Apply what is documented for a role, and let it take the place of the mesh."""
    peers = {node: {ROUTER.address} for node in NODES}
    if role == "router":
        peers = {node: {gateway} for node, gateway in GATEWAYS.items()}
        set_mode(cluster, "Never")
    apply_example(cluster, role)
    wait_for_peers(cluster, mesh=True, also=peers)
    apply(cluster, "BGPConfiguration", "default", nodeToNodeMeshEnabled=False)
    wait_for_peers(cluster, mesh=False, also=peers)


@pytest.mark.parametrize(("engine", "role"), CASES, ids=map("-".join, CASES))
def test_what_is_documented_works(cluster: Cluster, engine: str, role: str) -> None:
    before = tables(cluster)
    wanted = before
    if role == "router":
        wanted = {
            node: [by_router(line, GATEWAYS[node]) for line in lines]
            for node, lines in before.items()
        }
    start(cluster, engine, examples()[engine, role])

    peer(cluster, role)

    seen = partial(next_hops, cluster, engine, ROUTER)
    owners = {block: NODES[node] for block, node in BLOCKS.items()}
    eventually(lambda: seen() == owners, within_s=20, what=seen)
    eventually(lambda: tables(cluster) == wanted, within_s=20, what=partial(tables, cluster))
    end(cluster, ROUTER)


@pytest.mark.parametrize("engine", ["bird", "frr"])
def test_a_node_of_a_range_restarts_without_a_loss(cluster: Cluster, engine: str) -> None:
    start(cluster, engine, ranged(engine, "router"))
    peer(cluster, "router")

    with cluster.stream(DNSUTILS, "192.168.247.10", seconds=12) as losses:
        cluster.lab("agent", "kill", "node-2")
        cluster.lab("agent", "start", "node-2")

    assert losses[0].missing == (), cluster.news()
    end(cluster, ROUTER)


def test_a_reflector_takes_nodes_of_a_range(cluster: Cluster) -> None:
    before = tables(cluster)
    start(cluster, "gobgp", ranged("gobgp", "reflector"))

    peer(cluster, "reflector")

    eventually(lambda: tables(cluster) == before, within_s=20, what=partial(tables, cluster))
    end(cluster, ROUTER)


def test_every_engine_and_role_has_an_example() -> None:
    """But GoBGP as a router, which leaves the kernel's table to others."""
    roles = {(reader, role) for reader in (*FILES, "yaml") for role in ("router", "reflector")}
    ranges = {(engine, "range") for engine in FILES}
    assert examples().keys() == (roles | ranges) - {("gobgp", "router")}
