"""IPv4 prefixes over IPv6 sessions with routers (RFC 8950): whom they go to, and what comes in."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.model.bgp import Advertisement, Family
from pycni.model.resources import TunnelMode
from pycni.model.resources_bgp import BGPFilter, BGPPeer, FilterAction, FilterRule
from pycni.plan.exports import wanted_adj_ribs_out
from pycni.plan.imports import Rejected, judge, judge_prefix
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.peering import wanted_neighbours
from tests.unit.plan.samples import OWN, inputs, learn, lines, path

ROUTER = ip_address("fd10::1")
FOUR = ip_address("10.10.0.1")
THEIRS = "192.168.84.128/26"  # node-1's


def made(*, is_set: bool = True, mode: TunnelMode = TunnelMode.NEVER) -> Inputs:
    """Node-0 without a mesh, and a router that it calls over both IP versions."""
    found = inputs(mode=mode, settings=Settings("node-0", has_extended_next_hop=is_set))
    found.bgp = replace(found.bgp, is_node_mesh_enabled=False)
    peers = (BGPPeer("six", ROUTER, 65001), BGPPeer("four", FOUR, 65001))
    found.peers = {peer.name: peer for peer in peers}
    return found


def families(found: Inputs) -> dict[str, frozenset[Family]]:
    return {str(one.peer): one.families for one in wanted_neighbours(found)}


def told(found: Inputs, peer: str) -> frozenset[Advertisement]:
    return wanted_adj_ribs_out(found, wanted_neighbours(found)).to(ip_address(peer))


def reason(found: Inputs, *, via: str = "fd10::1", peer: str = "fd10::1") -> str:
    verdict = judge(found, path(THEIRS, via, peer=peer))
    assert isinstance(verdict, Rejected)
    return verdict.reason


def test_a_session_with_a_router_over_ipv6_carries_both() -> None:
    assert families(made()) == {
        "10.10.0.1": frozenset({Family.IPV4}),
        "fd10::1": frozenset({Family.IPV4, Family.IPV6}),
    }


def test_without_the_setting_each_session_carries_its_own() -> None:
    assert families(made(is_set=False))["fd10::1"] == frozenset({Family.IPV6})


def test_sessions_between_nodes_carry_their_own() -> None:
    found = made()
    found.bgp = replace(found.bgp, is_node_mesh_enabled=True)

    assert families(found)["fd10::24"] == frozenset({Family.IPV6})


def test_what_goes_by_ipv6_has_our_ipv6_address_as_next_hop() -> None:
    block = ip_network(OWN)

    assert told(made(), "fd10::1") == {Advertisement(block, ip_address("fd10::7"))}
    assert told(made(), "10.10.0.1") == {Advertisement(block, ip_address("10.10.7.20"))}


def test_a_filter_keeps_it_back_there_too() -> None:
    found = made()
    rule = FilterRule(FilterAction.REJECT)
    found.filters = {"none": BGPFilter("none", export_v4=(rule,))}
    found.peers["six"] = replace(found.peers["six"], filters=("none",))

    assert told(found, "fd10::1") == frozenset()


def test_what_comes_in_leaves_by_the_ipv6_neighbour() -> None:
    found = made()
    learn(found, path(THEIRS, "fd10::1", as_path=(65001,)))

    assert lines(judge_prefix(found, ip_network(THEIRS)).route) == [
        f"{THEIRS} via inet6 fd10::1 dev eth0 proto bird"
    ]


@pytest.mark.parametrize("mode", [TunnelMode.ALWAYS, TunnelMode.CROSS_SUBNET])
def test_no_tunnel_leads_to_an_ipv6_address(mode: TunnelMode) -> None:
    assert reason(made(mode=mode), via="fd11::43") == ("the block belongs to node-1, not to node-2")
    found = made(mode=mode)
    found.set_node("node-1", replace(found.nodes["node-1"], ipv6=found.nodes["node-2"].ipv6))
    found.set_node("node-2", replace(found.nodes["node-2"], ipv6=None))
    assert reason(found, via="fd11::43") == (
        "pool pool4 tunnels to IPv4 addresses, and next hop fd11::43 is none"
    )


def test_without_the_setting_it_is_rejected() -> None:
    assert reason(made(is_set=False)) == (
        "next hop fd10::1 is of another IP version (RFC 8950; extended_next_hop)"
    )


def test_by_ipv4_there_is_no_such_thing() -> None:
    assert reason(made(), peer="10.10.0.1") == (
        "next hop fd10::1 is of another IP version (RFC 8950; extended_next_hop)"
    )


def test_a_node_tells_no_such_thing() -> None:
    found = made()
    found.bgp = replace(found.bgp, is_node_mesh_enabled=True)

    assert reason(found, via="fd10::24", peer="fd10::24") == (
        "next hop fd10::24 is of another IP version (RFC 8950; extended_next_hop)"
    )
