"""A router outside learns the addresses of Services from a lab's nodes, and reaches them."""

import re
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pytest
import yaml

import routers
from cluster import Cluster, eventually, lab
from peerings import GATEWAYS, apply, wait_for_peers
from routers import NODES, Router

pytestmark = [
    pytest.mark.netns, pytest.mark.peers, pytest.mark.long, pytest.mark.timeout(300),
]  # fmt: skip

ROUTER = Router("router", "10.10.0.1", 65000, hops=1)
RANGES = {
    "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
    "serviceLoadBalancerIPs": [{"cidr": "198.51.100.0/24"}],
}
ALL = set(NODES.values())
SHOP, UNUSED = "198.51.100.7", "198.51.100.99"
PODS = {"node-0": "192.168.39.193", "node-2": "192.168.247.10"}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with lab("services") as running:
        yield running


def services(*nodes: str) -> str:
    """A Service of policy Local, with a ready endpoint on each of these nodes."""
    service = {
        "kind": "Service",
        "metadata": {"name": "shop"},
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "clusterIP": "10.96.0.7",
        },
        "status": {"loadBalancer": {"ingress": [{"ip": SHOP}]}},
    }
    endpoints = {
        "kind": "EndpointSlice",
        "metadata": {"name": "shop-1", "labels": {"kubernetes.io/service-name": "shop"}},
        "addressType": "IPv4",
        "endpoints": [{"nodeName": node, "conditions": {"ready": True}} for node in nodes],
    }
    return yaml.safe_dump_all([service, endpoints])


def have_services(cluster: Cluster, text: str) -> None:
    path = f"/run/pycni-lab/{cluster.name}/services/services.yaml"
    cluster.run("node-0", f"cat > {path}.new <<'X'\n{text}\nX\nmv {path}.new {path}")


def next_hops(cluster: Cluster, prefix: str) -> set[str]:
    """The nodes by which the router has learned a prefix."""
    asked = f"cd {ROUTER.directory} && birdc -s bird.ctl show route for {prefix} all"
    said = cluster.run("router", asked, check=False)
    exact = said.split(prefix, 1)[-1] if prefix in said else ""
    return set(re.findall(r"BGP\.next_hop: (\S+)", exact))


def leads_to(cluster: Cluster, prefix: str, nodes: Iterable[str]) -> bool:
    return next_hops(cluster, prefix) == {NODES[node] for node in nodes}


def wait_until_it_leads_to(cluster: Cluster, prefix: str, *nodes: str) -> float:
    seen = partial(next_hops, cluster, prefix)
    return eventually(partial(leads_to, cluster, prefix, nodes), within_s=60, what=seen)


def wait_until_router_routes(cluster: Cluster, prefix: str) -> None:
    """Wait until the router's kernel has a way there, not its BGP alone."""
    eventually(
        lambda: " via " in cluster.run("router", f"ip route show {prefix}"),
        within_s=60,
        what=lambda: cluster.routes("router"),
    )


def proxy(cluster: Cluster, node: str) -> None:
    """Have a node lead the Service's address to its pod, as kube-proxy does."""
    cluster.run(
        node,
        "nft add table ip proxy;"
        " nft 'add chain ip proxy in { type nat hook prerouting priority dstnat; }';"
        f" nft add rule ip proxy in ip daddr {SHOP} dnat to {PODS[node]}",
    )


def announced_for(cluster: Cluster, node: str) -> dict[str, str]:
    rows: list[dict[str, Any]] = cluster.ask(node, "bgp_routes")["announced"]
    return {row["prefix"]: row["for"] for row in rows}


def said_of_services(cluster: Cluster, node: str) -> set[tuple[str | None, str]]:
    """Which nodes (None: a router) told a node of LoadBalancer addresses, and what became of it."""
    rows: list[dict[str, Any]] = cluster.ask(node, "bgp_routes")["learned"]
    return {(row["node"], row["reason"]) for row in rows if row["prefix"].startswith("198.51.")}


def is_explained(said: str) -> bool:
    """Tell whether it is said of both nodes with pods what they announce, and why."""
    here = re.search(rf"node-0 +announces it +as {SHOP}/32, .* ready endpoint here", said)
    there = re.search(r"node-2 +announces it +as 198.51.100.0/24, .* has no ready", said)
    return None not in (here, there)


def unserved(cluster: Cluster) -> int:
    return sum(cluster.status(node)["drops"]["no_service"] for node in NODES)


def test_addresses_of_services_are_announced_and_move_with_their_endpoints(
    cluster: Cluster,
) -> None:
    routers.start(cluster, "bird", ROUTER)
    for node, gateway in GATEWAYS.items():
        apply(cluster, "BGPPeer", node, node=node, peerIP=gateway, asNumber=65000, ttlSecurity=1)
    wait_for_peers(cluster, mesh=True, also={n: {g} for n, g in GATEWAYS.items()})
    for node in PODS:
        proxy(cluster, node)

    # Ranges whole from every node, with Services or without.
    apply(cluster, "BGPConfiguration", "default", **RANGES)
    for cidr in ("10.96.0.0/12", "198.51.100.0/24"):
        wait_until_it_leads_to(cluster, cidr, *NODES)

    # What no Service has is dropped by the first node: it does not come back to the router.
    wait_until_router_routes(cluster, "198.51.100.0/24")
    cluster.run("outside", f"ping -c 1 -W 1 {UNUSED}", check=False)
    eventually(lambda: unserved(cluster) == 1, within_s=60, what=lambda: unserved(cluster))

    # Of policy Local from the node with the endpoint alone; nodes are told none of it.
    have_services(cluster, services("node-0"))
    wait_until_it_leads_to(cluster, f"{SHOP}/32", "node-0")
    wait_until_it_leads_to(cluster, "10.96.0.7/32", "node-0")
    assert announced_for(cluster, "node-0")[f"{SHOP}/32"] == (
        "LoadBalancer IP of Service default/shop: externalTrafficPolicy Local, with a ready"
        " endpoint here"
    )
    for node in NODES:
        assert not [line for line in cluster.routes(node) if line.startswith(("10.96", "198.51"))]
    # The router tells everybody what it has; other nodes tell none of it.
    ignored = "it lies in 198.51.100.0/24, a range of Services, which no node learns"
    heard = partial(said_of_services, cluster, "node-1")
    eventually(lambda: heard() == {(None, ignored)}, within_s=60, what=heard)
    # Node-1 hears of Services by itself, as each node does.
    explained = partial(cluster.run, "node-1", f"pycnictl bgp explain {SHOP}")
    eventually(lambda: is_explained(explained()), within_s=60, what=explained)

    with cluster.stream("outside", SHOP, seconds=6) as losses:
        have_services(cluster, services("node-2"))
        moved_s = wait_until_it_leads_to(cluster, f"{SHOP}/32", "node-2")
    (loss,) = losses
    sys.stdout.write(f"moved within {moved_s:.2f} s, {loss.lost} of {loss.sent} packets lost\n")
    assert loss.lost <= 100, loss  # one second

    # Nobody announces it any more, and the ranges stay.
    have_services(cluster, services())
    wait_until_it_leads_to(cluster, f"{SHOP}/32")
    assert next_hops(cluster, "198.51.100.0/24") == ALL

    apply(cluster, "BGPConfiguration", "default")
    wait_until_it_leads_to(cluster, "198.51.100.0/24")
