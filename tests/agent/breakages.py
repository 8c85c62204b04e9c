"""What somebody can break on the exercise's first node."""

from ipaddress import ip_address, ip_interface, ip_network

from pycni.model.network import Address, NextHop, Route, RouteKey, Scope
from tests.agent.cluster import NodeAgent
from tests.agent.exercise import VETH


def route(text: str, *, dev: str, protocol: int = 4, via: str | None = None) -> Route:
    gateway = ip_address(via) if via else None
    scope = Scope.UNIVERSE if via else Scope.LINK
    hops = frozenset({NextHop(dev, gateway=gateway)})
    return Route(RouteKey(ip_network(text)), scope=scope, next_hops=hops, protocol=protocol)


def set_tunnel_down(node: NodeAgent) -> None:
    node.kernel.change_link("tunl0", is_up=False)


def delete_tunnel(node: NodeAgent) -> None:
    node.kernel.delete_link("tunl0")


def shrink_tunnel(node: NodeAgent) -> None:
    node.kernel.change_link("tunl0", mtu=1280)


def remove_tunnel_address(node: NodeAgent) -> None:
    node.kernel.delete_address(Address("tunl0", ip_interface("192.168.39.192/32")))


def flush_bird(node: NodeAgent) -> None:
    node.kernel.flush_routes(protocol=12)


def set_pod_interface_down(node: NodeAgent) -> None:
    node.kernel.change_link(VETH, is_up=False)


def delete_pod_route(node: NodeAgent) -> None:
    (there,) = (r for r in node.kernel.routes() if VETH in r.oifs)
    node.kernel.delete_route(there)


def set_underlay_down_and_up(node: NodeAgent) -> None:
    node.kernel.change_link("eth0", is_up=False)
    node.kernel.change_link("eth0", is_up=True)
    node.kernel.create_route(route("0.0.0.0/0", dev="eth0", via="10.10.0.1", protocol=3))


def renew_underlay_address(node: NodeAgent) -> None:
    node.kernel.delete_address(Address("eth0", node.address))
    node.kernel.add_address(Address("eth0", node.address))
    node.kernel.create_route(route("0.0.0.0/0", dev="eth0", via="10.10.0.1", protocol=3))


def forbid_forwarding(node: NodeAgent) -> None:
    node.kernel.write_sysctl("net.ipv4.ip_forward", "0")


def loosen_pod_source_check(node: NodeAgent) -> None:
    node.kernel.write_sysctl(f"net.ipv4.conf.{VETH}.rp_filter", "0")


def replace_ruleset(node: NodeAgent) -> None:
    node.kernel.write_ruleset("something else")


def delete_ruleset(node: NodeAgent) -> None:
    node.kernel.write_ruleset(None)


def change_learned_route(node: NodeAgent) -> None:
    node.kernel.overwrite_route(route("192.168.247.0/26", dev="eth0", via="10.10.0.1", protocol=12))


BREAKAGES = [
    set_tunnel_down,
    delete_tunnel,
    shrink_tunnel,
    remove_tunnel_address,
    flush_bird,
    set_pod_interface_down,
    delete_pod_route,
    set_underlay_down_and_up,
    renew_underlay_address,
    forbid_forwarding,
    loosen_pod_source_check,
    replace_ruleset,
    delete_ruleset,
    change_learned_route,
]
