"""A node of Calico's as values: two pods, a neighbour, and what the kernel has of them."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network

from pycni.migrate.network import Networks
from pycni.migrate.plan import Found, PodEnd
from pycni.model.endpoints import host_veth_name
from pycni.model.network import (
    IPAddress,
    KernelState,
    Link,
    NextHop,
    Route,
    RouteKey,
    RouteType,
    Scope,
)
from pycni.model.resources import AllocationAttribute, Block

NETWORK = "k8s-pod-network"
CIDR = ip_network("192.168.39.192/26")
WEB, DB = (host_veth_name(f"default.{name}") for name in ("web", "db"))
NETWORKS = Networks(("10-calico.conflist",), "10-pycni.conflist", NETWORK)
POOLS = (ip_network("192.168.0.0/16"),)


def attribute(handle_id: str | None, **secondary: str) -> AllocationAttribute:
    return AllocationAttribute(handle_id, tuple(secondary.items()))


def of_pod(name: str, *, node: str = "node-0", container: str = "") -> AllocationAttribute:
    handle_id = f"{NETWORK}.{container or name}"
    return attribute(handle_id, namespace="default", node=node, pod=name)


def block(*given: AllocationAttribute, first: int = 1) -> Block:
    """Return the node's block with its tunnel's address and these, one after another."""
    tunnel = attribute("ipip-tunnel-addr-node-0", node="node-0", type="ipipTunnelAddress")
    attributes = (tunnel, *given)
    used = {0: 0} | {first + n: n + 1 for n in range(len(given))}
    return Block(
        CIDR,
        "node-0",
        allocations=tuple(used.get(ordinal) for ordinal in range(64)),
        unallocated=tuple(ordinal for ordinal in range(64) if ordinal not in used),
        attributes=attributes,
        sequence_number=9,
        sequence_numbers=tuple(7 if ordinal in used else None for ordinal in range(64)),
    )


def address(last: int) -> IPAddress:
    return ip_address(f"192.168.39.{last}")


def pod_route(last: int, veth: str) -> Route:
    hop = frozenset({NextHop(veth)})
    return Route(RouteKey(ip_network(address(last))), scope=Scope.LINK, next_hops=hop)


def learned(dst: str = "192.168.84.128/26", *, protocol: int = 12) -> Route:
    hop = frozenset({NextHop("tunl0", ip_address("10.10.24.89"), is_onlink=True)})
    return Route(RouteKey(ip_network(dst)), next_hops=hop, protocol=protocol)


def blackhole(*, protocol: int = 12) -> Route:
    return Route(RouteKey(CIDR), type=RouteType.BLACKHOLE, protocol=protocol)


def veth(name: str, *, alias: str = "") -> Link:
    return Link(name, 7, kind="veth", mtu=1480, mac="ee:ee:ee:ee:ee:ee", is_up=True, alias=alias)


def kernel(routes: Iterable[Route], *links: Link) -> KernelState:
    table: dict[RouteKey, tuple[Route, ...]] = {}
    for route in routes:
        table[route.key] = (*table.get(route.key, ()), route)
    return KernelState(links={link.name: link for link in links}, routes=table)


def end(name: str, *addresses: IPAddress) -> PodEnd:
    return PodEnd(f"/run/netns/{name}", "eth0", "02:00:00:00:00:01", frozenset(addresses))


FOUND = Found(
    node="node-0",
    kernel=kernel(
        (blackhole(), learned(), pod_route(193, WEB), pod_route(194, DB)), veth(WEB), veth(DB)
    ),
    networks=NETWORKS,
    pools=POOLS,
    blocks=(block(of_pod("web"), of_pod("db")),),
    ends={WEB: end("web", address(193)), DB: end("db", address(194))},
)


def changed(**fields: object) -> Found:
    return replace(FOUND, **fields)  # type: ignore[arg-type]  # each test's own
