"""What may come in by BGP: one test for each sentence of the rule."""

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from pycni.model.bgp import Origin, Path
from pycni.model.network import Link
from pycni.model.resources import AffinityState, TunnelMode
from pycni.model.resources_bgp import BGPConfiguration
from pycni.plan.imports import Accepted, Rejected, judge, judge_prefix
from pycni.plan.inputs import Inputs
from tests.unit.plan.samples import OWN, THEIRS, affinity, inputs, learn, lines, node, path, pod


def reason(made: Inputs, one: Path) -> str:
    verdict = judge(made, one)
    assert isinstance(verdict, Rejected)
    assert verdict.path is one
    return verdict.reason


def routes(made: Inputs, nlri: str) -> list[str]:
    family = ip_network(nlri).version
    return lines(judge_prefix(made, ip_network(nlri)).route, family=family)


# --- what is accepted, and the way out ----------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "far", "near"),
    [
        (
            TunnelMode.ALWAYS,
            ["192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"],
            ["192.168.9.0/26 via 10.10.7.30 dev tunl0 proto bird onlink"],
        ),
        (
            TunnelMode.CROSS_SUBNET,
            ["192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"],
            ["192.168.9.0/26 via 10.10.7.30 dev eth0 proto bird"],
        ),
        (TunnelMode.NEVER, [], ["192.168.9.0/26 via 10.10.7.30 dev eth0 proto bird"]),
    ],
)
def test_the_way_out_follows_the_pools_mode(
    mode: TunnelMode, far: list[str], near: list[str]
) -> None:
    made = inputs(mode=mode)
    learn(made, path(THEIRS), path("192.168.9.0/26", "10.10.7.30"))

    assert (routes(made, THEIRS), routes(made, "192.168.9.0/26")) == (far, near)


def test_ipv6_goes_by_the_underlay_without_tunnel() -> None:
    made = inputs()
    learn(made, path("fd00:1::40/122", "fd10::24", peer="10.10.24.89"))

    assert routes(made, "fd00:1::40/122") == [
        "fd00:1::40/122 via fd10::24 dev eth0 proto bird metric 1024 pref medium"
    ]


def test_an_ipv6_next_hop_in_another_subnet_has_no_way() -> None:
    made = inputs()

    why = reason(made, path("fd00:1::80/122", "fd11::43", peer="10.10.43.25"))

    assert why == "next hop fd11::43 is outside fd10::/64 and pool pool6 has no tunnel"


def test_a_borrowed_address_beats_our_blackhole_by_length() -> None:
    made = inputs()
    made.borrowed[ip_network("192.168.39.200/32")] = "node-2"
    learn(made, path("192.168.39.200/32"))

    assert routes(made, "192.168.39.200/32") == [
        "192.168.39.200 via 10.10.43.25 dev tunl0 proto bird onlink"
    ]


# --- what is ours -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nlri", "why"),
    [
        (OWN, f"{OWN} is a block of this node"),
        ("10.10.7.20/32", "10.10.7.20/32 is an address or subnet of this node (eth0)"),
        ("10.10.0.0/20", "10.10.0.0/20 is an address or subnet of this node (eth0)"),
        ("192.168.200.0/24", "192.168.200.0/24 is an address or subnet of this node (eth1)"),
        ("192.168.39.193/32", "192.168.39.193/32 is a pod of this node"),
    ],
)
def test_what_is_this_nodes_own_is_rejected(nlri: str, why: str) -> None:
    made = inputs()
    made.set_endpoint(pod().key, pod("192.168.39.193"))
    made.borrowed[ip_network("192.168.39.193/32")] = "node-2"

    assert reason(made, path(nlri)) == why


def test_our_own_next_hop_is_rejected() -> None:
    made = inputs()
    made.affinities[ip_network("192.168.5.0/26")] = affinity("192.168.5.0/26", "node-0", PENDING)
    made.borrowed[ip_network("192.168.5.1/32")] = "node-0"

    assert reason(made, path("192.168.5.1/32", "10.10.7.20")) == "its next hop is this node"


PENDING = AffinityState.PENDING

# --- nobody can capture anything ----------------------------------------------------------------


@pytest.mark.parametrize("nlri", ["0.0.0.0/0", "10.10.43.0/24", "::/0", "8.8.8.8/32"])
def test_what_lies_in_no_pool_is_rejected(nlri: str) -> None:
    via = "10.10.43.25" if "." in nlri else "fd11::43"

    why = reason(inputs(), path(nlri, via, peer="10.10.43.25"))

    assert why == "it lies in no pool"


@pytest.mark.parametrize("nlri", ["192.168.0.0/16", "192.168.247.0/25", "192.168.247.7/32"])
def test_only_whole_blocks_may_be_announced(nlri: str) -> None:
    why = reason(inputs(), path(nlri))

    assert why == "no block affinity of node-2 covers it (yet)"


def test_a_block_of_another_node_is_rejected() -> None:
    assert reason(inputs(), path(THEIRS, "10.10.24.89")) == (
        "the block belongs to node-2, not to node-1"
    )


@pytest.mark.parametrize("state", [AffinityState.PENDING, AffinityState.PENDING_DELETION])
def test_an_unconfirmed_affinity_gives_no_right(state: AffinityState) -> None:
    made = inputs()
    made.affinities[ip_network(THEIRS)] = affinity(THEIRS, "node-2", state)

    assert reason(made, path(THEIRS)) == (f"the block's affinity is {state.value}, not confirmed")


def test_a_deleted_affinity_gives_no_right() -> None:
    made = inputs()
    made.affinities[ip_network(THEIRS)] = replace(affinity(THEIRS, "node-2"), is_deleted=True)

    assert "not confirmed" in reason(made, path(THEIRS))


def test_an_address_held_by_another_node_is_rejected() -> None:
    made = inputs()
    made.borrowed[ip_network("192.168.39.200/32")] = "node-1"

    assert reason(made, path("192.168.39.200/32")) == (
        "the address is held by node-1, not by node-2"
    )


def test_a_peer_that_is_no_node_is_rejected() -> None:
    assert reason(inputs(), path(THEIRS, "10.10.43.25", peer="10.10.0.1")) == (
        "peer 10.10.0.1 is no node, and no BGPPeer of this node names it"
    )


def test_a_next_hop_that_is_not_the_senders_is_rejected() -> None:
    assert reason(inputs(), path(THEIRS, "10.10.24.89", peer="10.10.43.25")) == (
        "next hop 10.10.24.89 is not the address of node-2"
    )


def test_a_next_hop_of_another_ip_version_is_rejected() -> None:
    assert reason(inputs(), path(THEIRS, "fd11::43", peer="10.10.43.25")) == (
        "next hop fd11::43 is of another IP version (RFC 8950; extended_next_hop)"
    )


@pytest.mark.parametrize(
    "broken", [{"is_up": False}, {"is_up": True, "has_carrier": False}], ids=["down", "no carrier"]
)
@pytest.mark.parametrize("mode", [TunnelMode.ALWAYS, TunnelMode.NEVER])
def test_nothing_leaves_by_an_underlay_without_link(
    mode: TunnelMode, broken: dict[str, bool]
) -> None:
    made = inputs(mode=mode)
    made.links["eth0"] = Link("eth0", 2, **broken)  # type: ignore[arg-type]  # two flags

    assert reason(made, path("192.168.9.0/26", "10.10.7.30")) == (
        "eth0, by which it would leave, has no link"
    )


@pytest.mark.parametrize("pattern", ["eth0", "*th*", "e*0"])
def test_nothing_leaves_by_an_ignored_interface_but_what_a_tunnel_carries(pattern: str) -> None:
    made = inputs(mode=TunnelMode.CROSS_SUBNET)
    made.bgp = BGPConfiguration(ignored_interfaces=("dummy0", pattern))
    learn(made, path(THEIRS))

    assert reason(made, path("192.168.9.0/26", "10.10.7.30")) == (
        "eth0, by which it would leave, is one of the BGPConfiguration's ignoredInterfaces"
    )
    assert routes(made, THEIRS) == ["192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"]


def test_the_link_of_an_ignored_interface_says_nothing() -> None:
    made = inputs(mode=TunnelMode.ALWAYS)
    made.links["eth0"] = Link("eth0", 2, is_up=True, has_carrier=False)
    learn(made, path(THEIRS))
    before = routes(made, THEIRS)

    made.bgp = BGPConfiguration(ignored_interfaces=("eth0",))

    assert before == []
    assert routes(made, THEIRS) == ["192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"]


# --- judged again when facts arrive -------------------------------------------------------------


def test_a_path_that_comes_before_its_affinity_is_used_once_that_arrives() -> None:
    made = inputs()
    late = made.affinities.pop(ip_network(THEIRS))
    learn(made, path(THEIRS))
    before = routes(made, THEIRS)

    made.affinities[late.cidr] = late

    assert before == []
    assert routes(made, THEIRS) == ["192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"]


def test_without_an_address_of_our_own_nothing_is_used_yet() -> None:
    made = inputs()
    made.set_node("node-0", None)

    assert reason(made, path(THEIRS)) == "this node has no IPv4 address yet"


def test_without_an_underlay_interface_nothing_goes_by_it() -> None:
    made = inputs(mode=TunnelMode.NEVER)
    made.addresses.clear()

    assert reason(made, path("192.168.9.0/26", "10.10.7.30")) == (
        "no interface of this node carries 10.10.7.20"
    )


# --- several paths ------------------------------------------------------------------------------


def both() -> Inputs:
    """Return facts with two paths to one block, whose node has two addresses for once."""
    made = inputs()
    made.set_node("node-2b", replace(node("node-2b", "10.10.43.26/20"), name="node-2b"))
    made.nodes_by_address[path(THEIRS, "10.10.43.26").peer] = made.nodes["node-2"]
    learn(made, path(THEIRS, "10.10.43.26"), path(THEIRS))
    return made


def test_equal_paths_make_a_multipath_route() -> None:
    assert routes(both(), THEIRS) == [
        "192.168.247.0/26 proto bird",
        "nexthop via 10.10.43.25 dev tunl0 weight 1 onlink",
        "nexthop via 10.10.43.26 dev tunl0 weight 1 onlink",
    ]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"local_pref": 200}, {}),
        ({}, {"as_path": (65001,), "local_pref": 100}),
        ({"origin": Origin.IGP}, {"origin": Origin.EGP}),
        ({"med": 1}, {"med": 2}),
    ],
    ids=["local-pref", "as-path", "origin", "med"],
)
def test_the_better_path_wins(better: dict[str, Any], worse: dict[str, Any]) -> None:
    made = both()
    made.paths[ip_network(THEIRS)] = (
        path(THEIRS, "10.10.43.26", **worse),
        path(THEIRS, **better),
    )

    verdict = judge_prefix(made, ip_network(THEIRS))

    assert lines(verdict.route) == ["192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"]
    assert [str(p.peer) for p in verdict.used] == ["10.10.43.25"]
    assert [(str(r.path.peer), r.reason) for r in verdict.rejected] == [
        ("10.10.43.26", "another path is better (RFC 4271, 9.1.2.2)")
    ]


def test_a_rejected_path_does_not_hide_a_good_one() -> None:
    made = inputs()
    learn(made, path(THEIRS, "10.10.24.89", local_pref=500), path(THEIRS))

    verdict = judge_prefix(made, ip_network(THEIRS))

    assert lines(verdict.route) == ["192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"]
    assert [r.reason for r in verdict.rejected] == ["the block belongs to node-2, not to node-1"]


def test_no_path_is_no_route() -> None:
    assert judge_prefix(inputs(), ip_network(THEIRS)).route is None


def test_an_accepted_path_names_its_next_hop() -> None:
    verdict = judge(inputs(), path(THEIRS))

    assert isinstance(verdict, Accepted)
    assert verdict.next_hop.oif == "tunl0"
