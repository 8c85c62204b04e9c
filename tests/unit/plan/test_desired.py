"""What is wanted of a node, kind by kind."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.model.endpoints import EndpointState
from pycni.model.network import Address, Link, RouteKey
from pycni.model.resources import AffinityState, BGPPeer, TunnelMode
from pycni.plan import desired
from pycni.plan.inputs import Inputs, Settings, route_key
from tests.unit.plan.samples import OWN, THEIRS, affinity, inputs, learn, lines, path, pod, pool


def with_pod(*addresses: str, **options: str) -> Inputs:
    made = inputs()
    one = pod(*addresses, **options)  # type: ignore[arg-type]  # veth, container
    made.set_endpoint(one.key, one)
    return made


# --- routes -------------------------------------------------------------------------------------


def test_the_exercises_table() -> None:
    made = with_pod("192.168.39.193", veth="cali12b0eb5c038")
    two = pod("192.168.39.194", veth="calibe752d56965", container="two")
    made.set_endpoint(two.key, two)
    learn(made, path(THEIRS), path("192.168.84.128/26", "10.10.24.89"))

    assert lines(*desired.wanted_routes(made).values()) == [
        "blackhole 192.168.39.192/26 proto bird",
        "192.168.39.193 dev cali12b0eb5c038 scope link",
        "192.168.39.194 dev calibe752d56965 scope link",
        "192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink",
        "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink",
    ]


def test_a_rejected_path_is_no_route() -> None:
    made = inputs()
    learn(made, path("192.168.0.0/16"))

    assert lines(*desired.wanted_routes(made).values()) == [
        "blackhole 192.168.39.192/26 proto bird"
    ]
    assert [r.reason for r in desired.rejected_paths(made)] == [
        "no block affinity of node-2 covers it (yet)"
    ]


@pytest.mark.parametrize("state", [AffinityState.PENDING, AffinityState.PENDING_DELETION])
def test_only_confirmed_blocks_get_a_blackhole(state: AffinityState) -> None:
    made = inputs()
    made.affinities[ip_network(OWN)] = affinity(OWN, "node-0", state)

    assert desired.wanted_routes(made) == {}


def test_a_block_of_one_address_gets_no_blackhole() -> None:
    made = inputs()
    made.affinities = {ip_network("192.168.5.5/32"): affinity("192.168.5.5/32", "node-0")}

    assert desired.wanted_routes(made) == {}


def test_the_pod_in_a_block_of_one_address_is_routed() -> None:
    made = with_pod("192.168.5.5")
    made.affinities = {ip_network("192.168.5.5/32"): affinity("192.168.5.5/32", "node-0")}

    assert lines(*desired.wanted_routes(made).values()) == ["192.168.5.5 dev cali1 scope link"]


def test_an_unfinished_pod_is_not_routed() -> None:
    made = inputs()
    one = pod("192.168.39.193", state=EndpointState.INTENT)
    made.set_endpoint(one.key, one)

    assert "192.168.39.193" not in " ".join(lines(*desired.wanted_routes(made).values()))


def test_keys_that_we_never_write_are_never_wanted() -> None:
    made = inputs()

    assert desired.route(made, RouteKey(ip_network(OWN), table=100)) is None
    assert desired.route(made, RouteKey(ip_network(OWN), priority=7)) is None


def test_a_single_key_is_computed_as_all_are() -> None:
    made = with_pod("192.168.39.193", "fd00:1::1")
    learn(made, path(THEIRS))

    everything = desired.wanted_routes(made)

    assert {k: desired.route(made, k) for k in desired.wanted_route_keys(made)} == everything
    assert lines(everything[route_key(ip_network("fd00:1::1/128"))], family=6) == [
        "fd00:1::1 dev cali1 metric 1024 pref medium"
    ]


# --- tunnel -------------------------------------------------------------------------------------


def tunnel(made: Inputs) -> tuple[str, int] | None:
    tunnels = desired.wanted_tunnels(made)
    return next(((t.name, t.mtu) for t in tunnels.values()), None)


def test_the_tunnel_is_smaller_than_the_underlay_by_one_header() -> None:
    made = inputs()
    made.links["eth0"] = Link("eth0", 2, mtu=9000)

    assert tunnel(made) == ("tunl0", 8980)


def test_a_stated_mtu_counts() -> None:
    assert tunnel(inputs(settings=Settings("node-0", tunnel_mtu=1400, tunnel_name="ipip7"))) == (
        "ipip7",
        1400,
    )


def test_an_underlay_that_is_not_listed_counts_as_ethernet() -> None:
    made = inputs()
    made.links.clear()

    assert tunnel(made) == ("tunl0", 1480)


def test_without_ipip_pools_there_is_no_tunnel() -> None:
    assert tunnel(inputs(mode=TunnelMode.NEVER)) is None


def test_before_the_underlay_is_known_there_is_no_tunnel() -> None:
    made = inputs()
    made.addresses.clear()

    assert tunnel(made) is None


def test_a_tunnel_that_is_there_stays_while_the_underlay_address_is_away() -> None:
    made = inputs()
    made.addresses.clear()
    made.links["tunl0"] = Link("tunl0", 3, "ipip", mtu=1234)

    assert tunnel(made) == ("tunl0", 1234)


def test_the_tunnel_carries_the_nodes_tunnel_address() -> None:
    assert {(a.ifname, str(a.interface)) for a in desired.wanted_addresses(inputs())} == {
        ("tunl0", "192.168.39.192/32")
    }


def test_no_tunnel_address_without_tunnel_or_node() -> None:
    unknown = inputs()
    unknown.set_node("node-0", None)

    assert desired.wanted_addresses(inputs(mode=TunnelMode.NEVER)) == set()
    assert desired.wanted_addresses(unknown) == set()


# --- sysctls, nftables --------------------------------------------------------------------------


def test_forwarding_is_wanted_of_both_families_where_a_pool_has_them() -> None:
    made = inputs()
    wanted = desired.wanted_sysctls(made)
    del made.pools["pool6"]

    assert wanted["net.ipv4.ip_forward"] == wanted["net.ipv6.conf.all.forwarding"] == "1"
    assert "net.ipv6.conf.all.forwarding" not in desired.wanted_sysctls(made)


def test_the_tunnel_takes_replies_from_anywhere_and_pods_are_checked() -> None:
    wanted = desired.wanted_sysctls(with_pod("192.168.39.193"))

    assert wanted["net.ipv4.conf.tunl0.rp_filter"] == "0"
    assert wanted["net.ipv4.conf.cali1.rp_filter"] == "1"
    assert wanted["net.ipv4.conf.cali1.route_localnet"] == "0"
    assert "net.ipv6.conf.cali1.forwarding" not in wanted


def test_without_tunnel_its_sysctl_is_not_wanted() -> None:
    assert "net.ipv4.conf.tunl0.rp_filter" not in desired.wanted_sysctls(
        inputs(mode=TunnelMode.NEVER)
    )


def test_a_pod_with_ipv6_has_its_sysctls() -> None:
    wanted = desired.wanted_sysctls(with_pod("192.168.39.193", "fd00:1::1"))

    assert wanted["net.ipv6.conf.cali1.forwarding"] == "1"


def test_the_host_ends_of_ready_pods_are_wanted_up() -> None:
    assert desired.wanted_pod_links(with_pod("192.168.39.193")) == {"cali1": 1480}


def test_nftables_hides_pods_of_pools_that_ask_for_it() -> None:
    made = inputs()
    made.pools["pool4"] = pool(nat_outgoing=True)

    ruleset = desired.wanted_ruleset(made)

    assert ruleset is not None
    assert "elements = { 192.168.0.0/16 }" in ruleset.text
    assert "10.10.7.20, 10.10.7.30, 10.10.24.89, 10.10.43.25" in ruleset.text


def test_nftables_is_not_wanted_before_node_and_pools_are_known() -> None:
    unknown, empty = inputs(), inputs()
    unknown.set_node("node-0", None)
    empty.pools.clear()

    assert desired.wanted_ruleset(unknown) is None
    assert desired.wanted_ruleset(empty) is None


# --- BGP ----------------------------------------------------------------------------------------


def advertised(made: Inputs) -> list[str]:
    return sorted(f"{a.nlri} via {a.next_hop}" for a in desired.wanted_advertisements(made))


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


def test_without_an_address_nothing_is_advertised_and_nobody_called() -> None:
    made = inputs()
    made.set_node("node-0", None)

    assert advertised(made) == []
    assert desired.wanted_neighbours(made) == ()


def neighbours(made: Inputs) -> list[str]:
    return [
        f"{n.local} as {n.local_as} to {n.peer} as {n.peer_as} port {n.port}"
        for n in desired.wanted_neighbours(made)
    ]


def test_the_mesh_calls_every_other_node() -> None:
    assert neighbours(inputs()) == [
        "10.10.7.20 as 64512 to 10.10.7.30 as 64512 port 179",
        "10.10.7.20 as 64512 to 10.10.24.89 as 64512 port 179",
        "10.10.7.20 as 64512 to 10.10.43.25 as 64512 port 179",
    ]


def test_as_numbers_come_from_the_node_or_from_all() -> None:
    made = inputs()
    made.bgp = replace(made.bgp, as_number=65000, listen_port=1179)
    for name, number in (("node-0", 65010), ("node-1", 65011)):
        made.set_node(name, replace(made.nodes[name], as_number=number))
    made.set_node("node-3", None)

    assert neighbours(made) == [
        "10.10.7.20 as 65010 to 10.10.24.89 as 65011 port 1179",
        "10.10.7.20 as 65010 to 10.10.43.25 as 65000 port 1179",
    ]


def test_nodes_without_ipv4_are_not_called() -> None:
    made = inputs()
    made.set_node("node-1", replace(made.nodes["node-1"], ipv4=None))

    assert not [line for line in neighbours(made) if "10.10.24.89" in line]


def test_configured_peers_are_called_without_mesh() -> None:
    made = inputs()
    made.bgp = replace(made.bgp, is_node_mesh_enabled=False)
    made.peers = {
        "all": BGPPeer("all", ip_address("10.10.0.1"), 65001, port=180, password="x"),  # noqa: S106 - an example.
        "mine": BGPPeer("mine", ip_address("10.10.0.2"), 65002, node="node-0"),
        "other": BGPPeer("other", ip_address("10.10.0.3"), 65003, node="node-1"),
        "self": BGPPeer("self", ip_address("10.10.7.20"), 65003),
    }

    assert neighbours(made) == [
        "10.10.7.20 as 64512 to 10.10.0.1 as 65001 port 180",
        "10.10.7.20 as 64512 to 10.10.0.2 as 65002 port 179",
    ]
    assert desired.wanted_neighbours(made)[0].password == "x"  # noqa: S105 - as above.


def test_everything_together() -> None:
    made = with_pod("192.168.39.193")

    everything = desired.compute(made)

    assert everything.routes == desired.wanted_routes(made)
    assert everything.addresses == desired.wanted_addresses(made)
    assert everything.sysctls == desired.wanted_sysctls(made)
    assert everything.ruleset == desired.wanted_ruleset(made)


# --- indexes ------------------------------------------------------------------------------------


def test_of_two_nodes_with_one_address_the_first_by_name_has_it_whatever_the_order() -> None:
    address = ip_address("10.10.24.89")
    winners = []
    for names in (("node-1", "node-1a"), ("node-1a", "node-1")):
        made = inputs()
        one = made.nodes["node-1"]
        made.set_node("node-1", None)
        for name in names:
            made.set_node(name, replace(one, name=name))
        winners.append(made.nodes_by_address[address].name)
        made.set_node("node-1", None)
        winners.append(made.nodes_by_address[address].name)

    assert winners == ["node-1", "node-1a", "node-1", "node-1a"]


def test_a_node_that_moves_leaves_its_old_address() -> None:
    made = inputs()
    moved = made.nodes["node-3"]
    made.set_node("node-1", replace(made.nodes["node-1"], ipv4=moved.ipv4))

    assert ip_address("10.10.24.89") not in made.nodes_by_address
    assert made.nodes_by_address[ip_address("10.10.7.30")].name == "node-1"
    made.set_node("node-1", None)
    assert made.nodes_by_address[ip_address("10.10.7.30")].name == "node-3"


def test_a_later_node_that_moves_elsewhere_takes_nothing_of_the_first() -> None:
    made = inputs()
    shared = made.nodes["node-1"].ipv4
    made.set_node("node-2", replace(made.nodes["node-2"], ipv4=shared))
    made.set_node("node-2", replace(made.nodes["node-2"], ipv4=None))

    assert made.nodes_by_address[ip_address("10.10.24.89")].name == "node-1"


def test_the_successor_of_a_pod_keeps_interface_and_address_when_the_old_record_goes() -> None:
    made = with_pod("192.168.39.193", container="old")
    new = pod("192.168.39.193", container="new")
    made.set_endpoint(new.key, new)

    touched = made.set_endpoint(pod(container="old").key, None)

    assert touched == {ip_network("192.168.39.193/32")}
    assert made.host_veths["cali1"] is new
    assert made.pods[ip_network("192.168.39.193/32")] is new
    assert made.prefixes_behind("cali1") == (ip_network("192.168.39.193/32"),)
    assert made.prefixes_behind("cali2") == ()


def test_an_underlay_address_on_two_interfaces_belongs_to_the_first_by_name() -> None:
    made = inputs()
    made.addresses.add(Address("bond0", made.nodes["node-0"].ipv4))  # type: ignore[arg-type]  # it has one

    assert made.underlay(4) == "bond0"


def test_a_node_without_ipv6_has_no_underlay_for_it() -> None:
    made = inputs()
    made.set_node("node-0", replace(made.nodes["node-0"], ipv6=None))

    assert made.underlay(6) is None
    assert made.own_interface(6) is None


def test_a_forgotten_pod_leaves_nothing_wanted() -> None:
    made = with_pod("192.168.39.193")

    touched = made.set_endpoint(pod().key, None)

    assert touched == {ip_network("192.168.39.193/32")}
    assert desired.wanted_pod_links(made) == {}
    assert made.host_veths == {}


@pytest.mark.parametrize("order", ["old first", "new first"])
def test_of_two_sandboxes_of_a_pod_the_finished_one_has_the_interface(order: str) -> None:
    """Their records come in any order; the pod's own interface is no matter of the old one."""
    made = Inputs(Settings("node-0"))
    old = replace(pod("10.0.0.1", container="old", state=EndpointState.INTENT), pod_name="web")
    new = replace(pod("10.0.0.2", container="new"), pod_name="web")
    for one in (old, new) if order == "old first" else (new, old):
        made.set_endpoint(one.key, one)

    assert made.host_veths["cali1"] == new
    made.set_endpoint(old.key, None)
    assert made.host_veths["cali1"] == new
    made.set_endpoint(old.key, old)
    made.set_endpoint(new.key, None)
    assert made.host_veths["cali1"] == old
    made.set_endpoint(old.key, None)
    assert made.host_veths == {}
