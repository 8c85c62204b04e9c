"""Peerings of the lab's nodes with routers: what an operator applies, and when they are up."""

from functools import partial

import yaml

from cluster import Cluster, eventually
from routers import NODES, NODES6

GATEWAYS = {"node-0": "10.10.0.1", "node-1": "10.10.16.1", "node-2": "10.10.32.1"}


def apply(cluster: Cluster, kind: str, name: str, **spec: object) -> None:
    """Have the cluster hold an object, as an operator does."""
    document = {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }
    base = f"/run/pycni-lab/{cluster.name}"
    pycnictl = f"{base}/venv/bin/python -I -m pycni.ctl --datastore {base}/datastore.db"
    cluster.run("node-0", f"{pycnictl} apply -f - <<'X'\n{yaml.safe_dump(document)}\nX")


# Node-1 has no IPv6 pods.
OWNERS = (NODES, {name: address for name, address in NODES6.items() if name != "node-1"})
"""The nodes that have blocks, for each family."""


def peers_up(cluster: Cluster, node: str) -> set[str]:
    """The peers that have told all they know: of their own block, or of all others'."""
    return {
        p["peer"]
        for p in cluster.status(node)["peers"]
        if p["state"] == "up" and not p["stale"] and p["paths"] >= least_paths(p["peer"], node)
    }


def least_paths(peer: str, node: str) -> int:
    """How many blocks a peer knows that a node has to hear of."""
    owners = OWNERS[":" in peer]
    return 1 if peer in owners.values() else len(owners.keys() - {node})


def has_peers(cluster: Cluster, wanted: set[str], node: str) -> bool:
    return peers_up(cluster, node) == wanted


def wait_for_peers(cluster: Cluster, *, mesh: bool, also: dict[str, set[str]]) -> None:
    for node in NODES:
        wanted = also[node] | (others(cluster, node) if mesh else set())
        peers = partial(peers_up, cluster, node)
        eventually(partial(has_peers, cluster, wanted, node), within_s=60, what=peers)


def others(cluster: Cluster, node: str) -> set[str]:
    """The addresses by which all other nodes tell something."""
    families = OWNERS if cluster.has_ipv6 else OWNERS[:1]
    return {address for family in families for name, address in family.items() if name != node}


def set_mode(cluster: Cluster, mode: str) -> None:
    pool = {"cidr": "192.168.0.0/16", "blockSize": 26, "natOutgoing": True}
    apply(cluster, "IPPool", "default-ipv4-ippool", **pool, ipipMode=mode)
