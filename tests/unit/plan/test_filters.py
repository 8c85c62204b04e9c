"""What BGPFilters keep from peers, and from us."""

from ipaddress import ip_address, ip_network

import pytest

from pycni.model.resources import TunnelMode
from pycni.model.resources_bgp import (
    BGPFilter,
    BGPPeer,
    FilterAction,
    FilterRule,
    MatchOperator,
    PrefixMatch,
)
from pycni.plan.exports import wanted_adj_ribs_out, wanted_advertisements, withheld
from pycni.plan.filters import kept_in, kept_out, missing_filters
from pycni.plan.imports import Accepted, judge
from pycni.plan.inputs import Inputs
from pycni.plan.peering import wanted_neighbours
from tests.unit.plan.samples import OWN, THEIRS, affinity, inputs, path, with_pod

ROUTER = ip_address("10.10.0.1")
PEERING = BGPPeer("router", ROUTER, 64512, filters=("one",))
BORROWED = "192.168.247.9/32"


def rule(
    action: str,
    operator: str | None = None,
    cidr: str = "",
    *,
    lengths: tuple[int | None, int | None] = (None, None),
    interface: str | None = None,
    is_for_learned: bool = False,
) -> FilterRule:
    prefixes = (
        PrefixMatch(ip_network(cidr), MatchOperator(operator), *lengths) if operator else None
    )
    return FilterRule(FilterAction(action), prefixes, interface, is_for_learned)


def filtered(*filters: BGPFilter, peering: BGPPeer = PEERING) -> Inputs:
    """Node-0 with a borrowed address, and a peering whose filters are these."""
    made = with_pod(BORROWED.partition("/")[0])
    made.borrowed[ip_network(BORROWED)] = "node-0"
    made.peers = {peering.name: peering}
    made.filters = {one.name: one for one in filters}
    return made


def heard(made: Inputs, peer: str = str(ROUTER)) -> list[str]:
    wanted = wanted_adj_ribs_out(made, wanted_neighbours(made))
    return sorted(str(a.nlri) for a in wanted.to(ip_address(peer)))


# --- rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "applies_to"),
    [
        (rule("Reject"), "10.1.0.0/16 10.1.2.0/24 10.1.2.3/32 10.0.0.0/8 10.2.0.0/16"),
        (rule("Reject", "Equal", "10.1.0.0/16"), "10.1.0.0/16"),
        (
            rule("Reject", "NotEqual", "10.1.0.0/16"),
            "10.1.2.0/24 10.1.2.3/32 10.0.0.0/8 10.2.0.0/16",
        ),
        (rule("Reject", "In", "10.1.0.0/16"), "10.1.0.0/16 10.1.2.0/24 10.1.2.3/32"),
        (rule("Reject", "NotIn", "10.1.0.0/16"), "10.0.0.0/8 10.2.0.0/16"),
        (rule("Reject", "In", "10.1.0.0/16", lengths=(17, 24)), "10.1.2.0/24"),
        (rule("Reject", "In", "10.1.0.0/16", lengths=(8, 16)), "10.1.0.0/16"),
        (rule("Reject", "In", "10.1.0.0/16", lengths=(24, None)), "10.1.2.0/24 10.1.2.3/32"),
        (
            rule("Reject", "NotIn", "10.1.0.0/16", lengths=(None, 24)),
            "10.1.2.3/32 10.0.0.0/8 10.2.0.0/16",
        ),
    ],
)
def test_which_prefixes_a_rule_means(one: FilterRule, applies_to: str) -> None:
    made = filtered(BGPFilter("one", export_v4=(one,), import_v4=(one,)))
    prefixes = ("10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.0.0.0/8", "10.2.0.0/16")

    for kept in (kept_in, kept_out):
        rejected = [
            text for text in prefixes if kept(made, PEERING, ip_network(text), interface=None)
        ]
        assert rejected == applies_to.split()


@pytest.mark.parametrize(
    ("pattern", "interface", "applies"),
    [
        ("eth0", "eth0", True),
        ("eth0", "eth01", False),
        ("cali*", "cali1a", True),
        ("*.calico", "vxlan.calico", True),
        ("*", None, True),
        ("*0", None, False),
    ],
)
def test_which_interfaces_a_rule_means(
    pattern: str, interface: str | None, *, applies: bool
) -> None:
    made = filtered(BGPFilter("one", export_v4=(rule("Reject", interface=pattern),)))

    why = kept_in(made, PEERING, ip_network(OWN), interface=interface)

    assert (why is not None) is applies


def test_remote_peers_are_the_source_of_what_comes_in_alone() -> None:
    one = rule("Reject", is_for_learned=True)
    made = filtered(BGPFilter("one", export_v4=(one,), import_v4=(one,)))

    assert kept_in(made, PEERING, ip_network(OWN), interface=None) is None
    assert kept_out(made, PEERING, ip_network(THEIRS), interface="eth0") is not None


def test_the_first_rule_that_applies_decides() -> None:
    rules = (
        rule("Reject", "Equal", "10.1.0.0/16"),
        rule("Accept", "In", "10.0.0.0/8"),
        rule("Reject"),
    )
    made = filtered(BGPFilter("one", import_v4=rules))

    why = [
        kept_out(made, PEERING, ip_network(text), interface="eth0")
        for text in ("10.1.0.0/16", "10.2.0.0/16", "192.168.0.0/16")
    ]

    assert why == [
        "BGPFilter one rejects it (importV4[0])",
        None,
        "BGPFilter one rejects it (importV4[2])",
    ]


def test_where_no_rule_applies_the_next_filter_decides_and_then_it_passes() -> None:
    peering = BGPPeer("router", ROUTER, 64512, filters=("one", "two"))
    made = filtered(
        BGPFilter("one", import_v6=(rule("Accept", "In", "fd00:1::/64"),)),
        BGPFilter("two", import_v6=(rule("Reject", "In", "fd00::/16"),)),
        peering=peering,
    )

    why = [
        kept_out(made, peering, ip_network(text), interface="eth0")
        for text in ("fd00:1::/122", "fd00:2::/122", "fd01::/122", "10.0.0.0/8")
    ]

    assert why == [None, "BGPFilter two rejects it (importV6[0])", None, None]


# --- what goes out ------------------------------------------------------------------------------


def test_each_peer_hears_what_its_filters_let_pass() -> None:
    made = filtered(BGPFilter("one", export_v4=(rule("Reject", "In", "192.168.247.0/24"),)))
    made.affinities[ip_network("fd00:1::/122")] = affinity("fd00:1::/122", "node-0")

    assert heard(made) == [OWN, "fd00:1::/122"]
    assert heard(made, "10.10.43.25") == [BORROWED, OWN, "fd00:1::/122"]


def test_what_a_peer_is_not_told_has_a_reason() -> None:
    made = filtered(BGPFilter("one", export_v4=(rule("Reject"),), export_v6=(rule("Reject"),)))
    made.affinities[ip_network("fd00:1::/122")] = affinity("fd00:1::/122", "node-0")

    found = withheld(made, wanted_neighbours(made))

    assert [(str(one.nlri), str(one.peer), one.reason) for one in found] == [
        (BORROWED, "10.10.0.1", "BGPFilter one rejects it (exportV4[0])"),
        (OWN, "10.10.0.1", "BGPFilter one rejects it (exportV4[0])"),
    ]
    assert withheld(inputs(), wanted_neighbours(inputs())) == []


def test_a_borrowed_address_has_its_pods_interface_and_a_block_none() -> None:
    made = filtered(BGPFilter("one", export_v4=(rule("Reject", interface="cali*"),)))

    assert heard(made) == [OWN]


def test_ipv6_has_rules_of_its_own() -> None:
    made = filtered(BGPFilter("one", export_v6=(rule("Reject"),)))
    made.affinities[ip_network("fd00:1::/122")] = affinity("fd00:1::/122", "node-0")

    assert heard(made) == [BORROWED, OWN]


def test_peers_whose_filters_let_everything_pass_share_what_all_hear() -> None:
    made = filtered(BGPFilter("one", export_v4=(rule("Accept"),)))

    wanted = wanted_adj_ribs_out(made, wanted_neighbours(made))

    assert wanted.particular == {}
    assert wanted.common == wanted_advertisements(made)


def test_what_a_filter_accepts_is_not_announced_for_that() -> None:
    made = filtered(BGPFilter("one", export_v4=(rule("Accept"),)))
    made.pools.clear()

    assert heard(made) == []


def test_filters_of_a_peering_between_nodes_hold_for_both() -> None:
    peering = BGPPeer("nodes", node="node-2", peer_selector="all()", filters=("one",))
    made = filtered(BGPFilter("one", export_v4=(rule("Reject"),)), peering=peering)

    assert heard(made, "10.10.43.25") == []
    assert heard(made, "10.10.24.89") == [BORROWED, OWN]


# --- what comes in ------------------------------------------------------------------------------


def test_a_filter_takes_from_what_may_come_in() -> None:
    made = filtered(BGPFilter("one", import_v4=(rule("Reject", "In", "192.168.247.0/24"),)))
    passed_on = path(THEIRS, "10.10.43.25", peer=str(ROUTER))

    verdict = judge(made, passed_on)

    assert not isinstance(verdict, Accepted)
    assert verdict.reason == "BGPFilter one rejects it (importV4[0])"
    assert isinstance(judge(made, path(THEIRS)), Accepted)


@pytest.mark.parametrize("mode", [TunnelMode.ALWAYS, TunnelMode.NEVER])
def test_the_interface_of_what_comes_in_is_the_one_that_it_would_leave_by(mode: TunnelMode) -> None:
    made = inputs(mode=mode)
    made.peers = {"router": PEERING}
    made.filters = {"one": BGPFilter("one", import_v4=(rule("Reject", interface="tunl*"),))}

    verdict = judge(made, path("192.168.9.0/26", "10.10.7.30", peer=str(ROUTER)))

    assert isinstance(verdict, Accepted) is (mode is TunnelMode.NEVER)


@pytest.mark.parametrize(
    ("nlri", "via", "why"),
    [
        (OWN, str(ROUTER), f"{OWN} is a block of this node"),
        ("0.0.0.0/0", str(ROUTER), "it lies in no pool"),
        (THEIRS, "10.10.24.89", "the block belongs to node-2, not to node-1"),
        (
            THEIRS,
            "10.10.0.7",
            "next hop 10.10.0.7 is no node's address, and not the peer's own",
        ),
    ],
)
def test_a_filter_admits_nothing_that_may_not_come_in(nlri: str, via: str, why: str) -> None:
    made = filtered(BGPFilter("one", import_v4=(rule("Accept"),)))

    verdict = judge(made, path(nlri, via, peer=str(ROUTER)))

    assert not isinstance(verdict, Accepted)
    assert verdict.reason == why


# --- filters that are not there -----------------------------------------------------------------


def test_with_a_missing_filter_nothing_is_exchanged_until_it_is_there() -> None:
    peering = BGPPeer("router", ROUTER, 64512, filters=("one", "two"))
    made = filtered(BGPFilter("one", export_v4=(rule("Accept"),)), peering=peering)
    passed_on = path(THEIRS, "10.10.43.25", peer=str(ROUTER))

    verdict = judge(made, passed_on)

    assert not isinstance(verdict, Accepted)
    assert verdict.reason == "BGPFilter two, which BGPPeer router names, is not there"
    assert heard(made) == []
    assert missing_filters(made) == [(ROUTER, "router", "two")]
    made.filters["two"] = BGPFilter("two")
    assert isinstance(judge(made, passed_on), Accepted)
    assert heard(made) == [BORROWED, OWN]
    assert missing_filters(made) == []


def test_what_another_node_misses_is_no_problem_of_ours() -> None:
    made = filtered(peering=BGPPeer("router", ROUTER, 64512, node="node-1", filters=("one",)))

    assert missing_filters(made) == []


def test_without_filters_all_peers_share_what_is_announced() -> None:
    made = filtered(peering=BGPPeer("router", ROUTER, 64512))

    wanted = wanted_adj_ribs_out(made, wanted_neighbours(made))

    assert (wanted.common, wanted.particular) == (wanted_advertisements(made), {})
