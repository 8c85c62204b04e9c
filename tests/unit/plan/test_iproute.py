"""Lines of `ip route`; the kernel's contract suite compares them to iproute2's own."""

from ipaddress import IPv6Address, ip_address, ip_network

import pytest

from pycni.errors import InvalidInput
from pycni.model.network import (
    KernelState,
    NextHop,
    Route,
    RouteKey,
    RouteType,
    Scope,
)
from pycni.plan.iproute import ip_route_lines, protocol_number, route_text
from pycni.plan.podroute import pod_route
from tests.unit.plan.samples import by_tunnel


def state(*routes: Route) -> KernelState:
    return KernelState(routes={route.key: (route,) for route in routes})


def test_the_table_of_a_node() -> None:
    table = state(
        by_tunnel("192.168.247.0/26", "10.10.43.25"),
        pod_route(ip_address("192.168.39.194"), host_veth="calibe752d56965"),
        pod_route(ip_address("192.168.39.193"), host_veth="cali12b0eb5c038"),
        Route(RouteKey(ip_network("192.168.39.192/26")), RouteType.BLACKHOLE, protocol=12),
        by_tunnel("192.168.84.128/26", "10.10.24.89"),
        Route(
            RouteKey(ip_network("10.10.0.0/20")),
            scope=Scope.LINK,
            next_hops=frozenset({NextHop("eth0")}),
            src=ip_address("10.10.7.20"),
            protocol=2,
        ),
        Route(
            RouteKey(ip_network("0.0.0.0/0")),
            next_hops=frozenset({NextHop("eth0", ip_address("10.10.0.1"))}),
        ),
        Route(RouteKey(ip_network("10.99.0.0/16"), table=100), RouteType.BLACKHOLE),
    )

    assert ip_route_lines(table, family=4) == [
        "default via 10.10.0.1 dev eth0",
        "10.10.0.0/20 dev eth0 proto kernel scope link src 10.10.7.20",
        "blackhole 192.168.39.192/26 proto bird",
        "192.168.39.193 dev cali12b0eb5c038 scope link",
        "192.168.39.194 dev calibe752d56965 scope link",
        "192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink",
        "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink",
    ]


def test_ipv6_lists_children_before_parents_and_the_default_last() -> None:
    table = state(
        Route(RouteKey(ip_network("::/0"), priority=1024), RouteType.UNREACHABLE),
        Route(RouteKey(ip_network("fd00::/64"), priority=1024), RouteType.BLACKHOLE, protocol=12),
        pod_route(IPv6Address("fd00::1"), host_veth="cali1", protocol=12),
    )

    assert ip_route_lines(table, family=6) == [
        "fd00::1 dev cali1 proto bird metric 1024 pref medium",
        "blackhole fd00::/64 dev lo proto bird metric 1024 pref medium",
        "unreachable default dev lo metric 1024 pref medium",
    ]


def test_multipath_routes_take_a_line_per_next_hop() -> None:
    hops = frozenset(
        {
            NextHop("eth0", ip_address("10.0.0.9"), weight=3),
            NextHop("tunl0", ip_address("10.0.0.7"), is_onlink=True),
        }
    )
    route = Route(RouteKey(ip_network("10.5.0.0/16")), next_hops=hops, protocol=12)

    assert ip_route_lines(state(route), family=4) == [
        "10.5.0.0/16 proto bird",
        "nexthop via 10.0.0.7 dev tunl0 weight 1 onlink",
        "nexthop via 10.0.0.9 dev eth0 weight 3",
    ]


def test_rare_attributes() -> None:
    route = Route(
        RouteKey(ip_network("10.6.0.0/16"), tos=8, priority=5),
        scope=Scope(100),
        next_hops=frozenset({NextHop("eth0", ip_address("fe80::1"))}),
        src=ip_address("10.0.0.1"),
        protocol=80,
        mtu=1400,
    )

    assert route_text(route) == (
        "10.6.0.0/16 tos 0x08 via inet6 fe80::1 dev eth0 proto 80 scope 100 "
        "src 10.0.0.1 metric 5 mtu 1400"
    )


@pytest.mark.parametrize(
    ("given", "number"), [("bird", 12), ("bgp", 186), (12, 12), (255, 255), (1, 1)]
)
def test_a_route_protocol_is_named_or_numbered(given: int | str, number: int) -> None:
    assert protocol_number(given) == number


@pytest.mark.parametrize("given", ["birds", "", "unspec", 0, 256, -1])
def test_an_unknown_route_protocol_is_refused(given: int | str) -> None:
    with pytest.raises(InvalidInput, match="route protocol"):
        protocol_number(given)
