"""The exercise's cluster as facts of node-0, for tests of the plan."""

from ipaddress import IPv4Interface, ip_address, ip_interface, ip_network
from typing import Any

from pycni.model.bgp import Path
from pycni.model.endpoints import AssignedAddress, EndpointKey, EndpointState, WorkloadEndpoint
from pycni.model.network import Address, KernelState, Link, NextHop, Route, RouteKey
from pycni.model.resources import AffinityState, BlockAffinity, IPPool, Node, TunnelMode
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.iproute import ip_route_lines

OWN = "192.168.39.192/26"
THEIRS = "192.168.247.0/26"
NODE_2 = ip_address("10.10.43.25")


def pool(
    cidr: str = "192.168.0.0/16",
    mode: TunnelMode = TunnelMode.ALWAYS,
    **fields: Any,  # noqa: ANN401 - any field of a pool.
) -> IPPool:
    version = ip_network(cidr).version
    size = 26 if version == 4 else 122
    mode = mode if version == 4 else TunnelMode.NEVER
    return IPPool(f"pool{version}", ip_network(cidr), block_size=size, ipip_mode=mode, **fields)


def node(name: str, ipv4: str, *, ipv6: str | None = None, tunnel: str | None = None) -> Node:
    return Node(
        name,
        ipv4=IPv4Interface(ipv4),
        ipv6=ip_interface(ipv6) if ipv6 else None,
        ipip_tunnel_address=ip_address(tunnel) if tunnel else None,
    )


def affinity(
    cidr: str, owner: str, state: AffinityState = AffinityState.CONFIRMED
) -> BlockAffinity:
    return BlockAffinity(owner, ip_network(cidr), state)


def pod(
    *addresses: str,
    veth: str = "cali1",
    container: str = "one",
    state: EndpointState = EndpointState.READY,
) -> WorkloadEndpoint:
    return WorkloadEndpoint(
        key=EndpointKey("net", container, "eth0"),
        node="node-0",
        netns=f"/run/netns/{container}",
        host_veth=veth,
        handle_id=f"net.{container}",
        state=state,
        addresses=tuple(AssignedAddress(ip_interface(a)) for a in addresses),
        mtu=1480,
    )


def path(
    nlri: str,
    via: str = "10.10.43.25",
    *,
    peer: str | None = None,
    **fields: Any,  # noqa: ANN401 - any field of a path.
) -> Path:
    return Path(ip_network(nlri), ip_address(via), peer=ip_address(peer or via), **fields)


def by_tunnel(dst: str, gateway: str, *, protocol: int = 12) -> Route:
    hop = NextHop("tunl0", ip_address(gateway), is_onlink=True)
    return Route(RouteKey(ip_network(dst)), next_hops=frozenset({hop}), protocol=protocol)


def inputs(*, mode: TunnelMode = TunnelMode.ALWAYS, settings: Settings | None = None) -> Inputs:
    """Return what node-0 knows: three nodes, a block each, and its own underlay."""
    made = Inputs(settings or Settings("node-0"))
    made.pools = {"pool4": pool(mode=mode), "pool6": pool("fd00:1::/64")}
    for one in (
        node("node-0", "10.10.7.20/20", ipv6="fd10::7/64", tunnel="192.168.39.192"),
        node("node-1", "10.10.24.89/20", ipv6="fd10::24/64"),
        node("node-2", "10.10.43.25/20", ipv6="fd11::43/64"),
        node("node-3", "10.10.7.30/20"),
    ):
        made.set_node(one.name, one)
    for one_block in (
        affinity(OWN, "node-0"),
        affinity("192.168.84.128/26", "node-1"),
        affinity(THEIRS, "node-2"),
        affinity("192.168.9.0/26", "node-3"),
        affinity("fd00:1::40/122", "node-1"),
        affinity("fd00:1::80/122", "node-2"),
    ):
        made.affinities[one_block.cidr] = one_block
    made.addresses = {
        Address("eth0", ip_interface("10.10.7.20/20")),
        Address("eth0", ip_interface("fd10::7/64")),
        Address("eth1", ip_interface("192.168.200.1/24")),
    }
    made.links = {"eth0": Link("eth0", 2, mtu=1500, is_up=True)}
    return made


def with_pod(*addresses: str, **options: str) -> Inputs:
    made = inputs()
    one = pod(*addresses, **options)  # type: ignore[arg-type]  # veth, container
    made.set_endpoint(one.key, one)
    return made


def learn(made: Inputs, *paths: Path) -> None:
    for one in paths:
        made.paths[one.nlri] = (*made.paths.get(one.nlri, ()), one)


def lines(*routes: Route | None, family: int = 4) -> list[str]:
    """Print routes as `ip route` would."""
    table: dict[RouteKey, tuple[Route, ...]] = {r.key: (r,) for r in routes if r is not None}
    return ip_route_lines(KernelState(routes=table), family=family)
