"""What is wanted of BGP: whom to call, and what to advertise."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

from pycni.model.bgp import Family
from pycni.model.resources_bgp import BGPConfiguration, BGPPeer, PrefixAdvertisement
from pycni.plan import peering
from pycni.plan.exports import wanted_advertisements
from pycni.plan.inputs import Inputs
from tests.unit.plan.samples import affinity, inputs, pool, with_pod


def advertised(made: Inputs) -> list[str]:
    return sorted(f"{a.nlri} via {a.next_hop}" for a in wanted_advertisements(made))


def test_own_blocks_are_advertised() -> None:
    made = inputs()
    made.affinities[ip_network("fd00:1::/122")] = affinity("fd00:1::/122", "node-0")

    assert advertised(made) == [
        "192.168.39.192/26 via 10.10.7.20",
        "fd00:1::/122 via fd10::7",
    ]


def test_a_pod_with_a_borrowed_address_is_advertised() -> None:
    made = with_pod("192.168.247.9")
    made.borrowed[ip_network("192.168.247.9/32")] = "node-0"

    assert "192.168.247.9/32 via 10.10.7.20" in advertised(made)


def test_what_has_no_pool_or_may_not_be_exported_is_not_advertised() -> None:
    secret, orphan = inputs(), inputs()
    secret.pools["pool4"] = pool(disable_bgp_export=True)
    orphan.pools.clear()

    assert advertised(secret) == []
    assert advertised(orphan) == []


def test_prefixes_are_advertised_with_the_communities_of_all_cidrs_around_them() -> None:
    made = with_pod("192.168.247.9")
    made.borrowed[ip_network("192.168.247.9/32")] = "node-0"
    made.bgp = BGPConfiguration(
        communities=(("pods", "64512:1"), ("large", "64512:1:2")),
        prefix_advertisements=(
            PrefixAdvertisement(ip_network("192.168.0.0/16"), ("pods", "64512:7")),
            PrefixAdvertisement(ip_network("192.168.39.192/26"), ("large",)),
            PrefixAdvertisement(ip_network("192.168.39.192/32"), ("64512:8",)),
            PrefixAdvertisement(ip_network("fd00::/16"), ("64512:9",)),
        ),
    )

    tagged = {str(a.nlri): sorted(a.communities) for a in wanted_advertisements(made)}

    assert tagged == {
        "192.168.39.192/26": ["64512:1", "64512:1:2", "64512:7"],
        "192.168.247.9/32": ["64512:1", "64512:7"],
    }


def test_a_node_that_leaves_advertises_nothing_once_no_pod_is_here() -> None:
    empty, full = inputs(), with_pod("192.168.39.193")
    empty.is_leaving = full.is_leaving = True

    assert advertised(empty) == []
    assert "192.168.39.192/26 via 10.10.7.20" in advertised(full)


def test_without_an_address_nothing_is_advertised_and_nobody_called() -> None:
    made = inputs()
    made.set_node("node-0", None)

    assert advertised(made) == []
    assert peering.wanted_neighbours(made) == ()


def neighbours(made: Inputs) -> list[str]:
    return [
        f"{n.local} as {n.local_as} to {n.peer} as {n.peer_as} port {n.port}"
        for n in peering.wanted_neighbours(made)
    ]


def test_the_mesh_calls_every_other_node() -> None:
    assert neighbours(inputs()) == [
        "10.10.7.20 as 64512 to 10.10.7.30 as 64512 port 179",
        "10.10.7.20 as 64512 to 10.10.24.89 as 64512 port 179",
        "10.10.7.20 as 64512 to 10.10.43.25 as 64512 port 179",
        "fd10::7 as 64512 to fd10::24 as 64512 port 179",
        "fd10::7 as 64512 to fd11::43 as 64512 port 179",
    ]


def test_a_session_carries_the_prefixes_of_its_ip_version_alone() -> None:
    families = {n.peer.version: n.families for n in peering.wanted_neighbours(inputs())}

    assert families == {4: {Family.IPV4}, 6: {Family.IPV6}}


def test_the_ipv4_address_is_the_router_id_of_ipv6_sessions_too() -> None:
    made = inputs()
    ids = {str(n.router_id) for n in peering.wanted_neighbours(made)}
    made.set_node("node-0", replace(made.nodes["node-0"], ipv4=None))

    assert ids == {"10.10.7.20"}
    assert peering.wanted_neighbours(made) == ()


def test_as_numbers_come_from_the_node_or_from_all() -> None:
    made = inputs()
    made.bgp = replace(made.bgp, as_number=65000, listen_port=1179)
    for name, number in (("node-0", 65010), ("node-1", 65011)):
        made.set_node(name, replace(made.nodes[name], as_number=number))
    made.set_node("node-3", None)

    assert neighbours(made) == [
        "10.10.7.20 as 65010 to 10.10.24.89 as 65011 port 1179",
        "10.10.7.20 as 65010 to 10.10.43.25 as 65000 port 1179",
        "fd10::7 as 65010 to fd10::24 as 65011 port 1179",
        "fd10::7 as 65010 to fd11::43 as 65000 port 1179",
    ]


def test_nodes_are_called_by_the_addresses_that_they_have() -> None:
    made = inputs()
    made.set_node("node-1", replace(made.nodes["node-1"], ipv4=None))
    made.set_node("node-2", replace(made.nodes["node-2"], ipv6=None))

    assert neighbours(made) == [
        "10.10.7.20 as 64512 to 10.10.7.30 as 64512 port 179",
        "10.10.7.20 as 64512 to 10.10.43.25 as 64512 port 179",
        "fd10::7 as 64512 to fd10::24 as 64512 port 179",
    ]


def test_peers_of_an_ip_version_that_this_node_lacks_are_not_called() -> None:
    made = inputs()
    made.set_node("node-0", replace(made.nodes["node-0"], ipv6=None))
    made.peers = {"six": BGPPeer("six", ip_address("fd10::1"), 65004)}

    assert not [line for line in neighbours(made) if "fd1" in line]


def test_configured_peers_are_called_without_mesh() -> None:
    made = inputs()
    made.bgp = replace(made.bgp, is_node_mesh_enabled=False)
    made.peers = {
        "all": BGPPeer("all", ip_address("10.10.0.1"), 65001, port=180, password="x"),  # noqa: S106 - an example.
        "mine": BGPPeer("mine", ip_address("10.10.0.2"), 65002, node="node-0"),
        "other": BGPPeer("other", ip_address("10.10.0.3"), 65003, node="node-1"),
        "self": BGPPeer("self", ip_address("10.10.7.20"), 65003),
        "six": BGPPeer("six", ip_address("fd10::1"), 65004),
    }

    assert neighbours(made) == [
        "10.10.7.20 as 64512 to 10.10.0.1 as 65001 port 180",
        "10.10.7.20 as 64512 to 10.10.0.2 as 65002 port 179",
        "fd10::7 as 64512 to fd10::1 as 65004 port 179",
    ]
    assert peering.wanted_neighbours(made)[0].password == "x"  # noqa: S105 - as above.
