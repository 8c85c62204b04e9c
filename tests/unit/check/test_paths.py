"""Ways between nodes: which there are, and what it means that some packets don't come."""

from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_network

import pytest

from pycni.check.paths import Passed, Peer, Way, judge, peers_of
from pycni.model.network import KernelState, Link, NextHop, Route, RouteKey
from pycni.model.resources import Node
from pycni.model.tunnels import TunnelKind
from pycni.model.vxlan import VxlanEnd

NONE, SMALL, ALL = (
    Passed(small=False, full=False),
    Passed(small=True, full=False),
    Passed(small=True, full=True),
)
PEER = Peer(
    "node-1",
    Way(ip_address("10.0.0.2"), 1500),
    Way(ip_address("192.168.1.0"), 1480, TunnelKind.IPIP),
)


def state(**routes: str) -> KernelState:
    """Routes by interface, each to one network."""
    found = [
        Route(RouteKey(ip_network(dst)), next_hops=frozenset({NextHop(oif)}))
        for oif, dst in routes.items()
    ]
    links = {"eth0": Link("eth0", 2, mtu=1500), "tunl0": Link("tunl0", 3, mtu=1480)}
    return KernelState(links=links, routes={one.key: (one,) for one in found})


def node(name: str, address: str = "10.0.0.2/24", tunnel: str | None = "192.168.1.0") -> Node:
    inner = ip_address(tunnel) if tunnel else None
    return Node(name, ipv4=IPv4Interface(address), ipip_tunnel_address=inner)


def test_each_other_node_is_tried_both_ways() -> None:
    kernel = state(eth0="10.0.0.0/24", tunl0="192.168.1.0/26")

    found = peers_of([node("node-0"), node("node-1")], own="node-0", kernel=kernel, tunnel="tunl0")

    assert found == [PEER]
    assert PEER.underlay.payloads == (36, 1472)


@pytest.mark.parametrize(
    "kernel",
    [
        state(eth0="0.0.0.0/0"),  # pods' packets go plain, as in one subnet
        state(eth0="10.0.0.0/24"),
    ],
)
def test_a_tunnel_that_nothing_goes_through_is_not_tried(kernel: KernelState) -> None:
    found = peers_of([node("node-1")], own="node-0", kernel=kernel, tunnel="tunl0")

    assert found == [replace(PEER, tunnel=None)]


@pytest.mark.parametrize(
    "other",
    [
        Node("node-1"),
        node("node-1", "10.9.9.9/24"),
        node("node-1", "10.8.0.1/24"),
    ],
)
def test_a_node_without_address_or_route_is_not_tried(other: Node) -> None:
    kernel = state(eth0="10.0.0.0/24", gone="10.8.0.0/24")

    assert peers_of([other], own="node-0", kernel=kernel, tunnel="tunl0") == []


def test_a_node_without_tunnel_address_is_tried_plainly() -> None:
    kernel = state(eth0="10.0.0.0/24")
    nodes = [node("node-1", tunnel=None)]

    assert peers_of(nodes, own="", kernel=kernel, tunnel="tunl0") == [replace(PEER, tunnel=None)]


@pytest.mark.parametrize(
    ("underlay", "tunnel", "checks"),
    [
        (ALL, ALL, []),
        (ALL, None, []),
        (NONE, ALL, []),  # a firewall that knows no probes
        (NONE, NONE, ["node-answers"]),
        (NONE, None, ["node-answers"]),
        (SMALL, NONE, ["packet-size"]),
        (SMALL, SMALL, ["packet-size"]),
        (SMALL, None, ["packet-size"]),
        (ALL, SMALL, ["packet-size"]),
        (NONE, SMALL, ["packet-size"]),
        (ALL, NONE, ["protocol-4"]),
    ],
)
def test_what_is_wrong_follows_from_what_came(
    underlay: Passed, tunnel: Passed | None, checks: list[str]
) -> None:
    peer = PEER if tunnel is not None else replace(PEER, tunnel=None)

    assert [
        one.check for one in judge(peer, underlay=underlay, tunnel=tunnel, is_alive=False)
    ] == checks


@pytest.mark.parametrize("tunnel", [NONE, None])
def test_a_node_that_answers_tcp_alone_can_not_be_probed(tunnel: Passed | None) -> None:
    (found,) = judge(PEER, underlay=NONE, tunnel=tunnel, is_alive=True)

    assert found.check == "probes"


def test_the_advice_counts_the_headers_of_the_narrow_way() -> None:
    (plain,) = judge(PEER, underlay=SMALL, tunnel=SMALL, is_alive=True)
    (tunnelled,) = judge(PEER, underlay=ALL, tunnel=SMALL, is_alive=True)

    assert plain.repair.endswith("SIZE + 8")
    assert tunnelled.repair.endswith("SIZE + 28")
    assert "-s SIZE 192.168.1.0 " in tunnelled.repair


VXLAN = replace(PEER, tunnel=Way(ip_address("192.168.1.0"), 1450, TunnelKind.VXLAN))


def test_a_node_is_tried_by_its_address_inside_the_vxlan_tunnel() -> None:
    kernel = state(eth0="10.0.0.0/24", **{"vxlan.calico": "192.168.1.0/26"})
    kernel.links["vxlan.calico"] = Link("vxlan.calico", 3, mtu=1450)
    other = replace(node("node-1", tunnel=None), vxlan=VxlanEnd(ip_address("192.168.1.0")))

    assert peers_of([other], own="node-0", kernel=kernel, tunnel="tunl0") == [VXLAN]


def test_what_drops_vxlan_is_a_port_and_its_headers_are_more() -> None:
    (dropped,) = judge(VXLAN, underlay=ALL, tunnel=NONE, is_alive=True)
    (plain,) = judge(VXLAN, underlay=SMALL, tunnel=SMALL, is_alive=True)
    (tunnelled,) = judge(VXLAN, underlay=ALL, tunnel=SMALL, is_alive=True)

    assert dropped.check == "vxlan-port"
    assert "--dport 4789 -s 10.0.0.2 " in dropped.repair
    assert plain.repair.endswith("SIZE - 22")
    assert tunnelled.repair.endswith("SIZE + 28")


UNDERLAY6 = Way(ip_address("fd00:10::2"), 1500)
VXLAN6 = Peer("node-1", UNDERLAY6, Way(ip_address("fd00:1::40"), 1430, TunnelKind.VXLAN_V6))


def test_a_node_is_tried_in_each_ip_version_by_which_it_is_tunnelled_to() -> None:
    kernel = state(**{"eth0": "10.0.0.0/24", "vxlan-v6.calico": "fd00:1::40/128"})
    key = RouteKey(ip_network("fd00:10::/64"))
    kernel.routes[key] = (Route(key, next_hops=frozenset({NextHop("eth0")})),)
    kernel.links["vxlan-v6.calico"] = Link("vxlan-v6.calico", 3, mtu=1430)
    inside = VxlanEnd(ip_address("fd00:1::40"))
    plain = replace(node("node-1", tunnel=None), ipv6=IPv6Interface("fd00:10::2/64"))
    other = replace(plain, vxlan6=inside)

    def peers(one: Node) -> list[Peer]:
        return peers_of([one], own="node-0", kernel=kernel, tunnel="tunl0")

    assert peers(other) == [replace(PEER, tunnel=None), VXLAN6]
    assert peers(replace(other, ipv4=None)) == [VXLAN6]
    # Not tunnelled, or its address out of reach: nothing to say of IPv6.
    assert peers(plain) == [replace(PEER, tunnel=None)]
    del kernel.routes[key]
    assert peers(other) == [replace(PEER, tunnel=None)]


def test_headers_and_firewall_of_ipv6_are_its_own() -> None:
    (dropped,) = judge(VXLAN6, underlay=ALL, tunnel=NONE, is_alive=True)
    (plain,) = judge(VXLAN6, underlay=SMALL, tunnel=SMALL, is_alive=True)
    (tunnelled,) = judge(VXLAN6, underlay=ALL, tunnel=SMALL, is_alive=True)
    (unprobed,) = judge(VXLAN6, underlay=NONE, tunnel=NONE, is_alive=True)

    assert dropped.check == "vxlan-port"
    assert "  ip6tables -I INPUT -p udp --dport 4789 -s fd00:10::2 " in dropped.repair
    assert "  ip6tables -I INPUT -p udp --dport 179 " in unprobed.repair
    assert plain.repair.endswith("SIZE - 22")
    assert tunnelled.repair.endswith("SIZE + 48")
    assert UNDERLAY6.payloads == (36, 1452)
