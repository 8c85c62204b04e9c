"""What each object of the datastore makes dirty: too little would leave something broken."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.agent.dirty import Dirty
from pycni.agent.facts import WATCHED_KINDS
from pycni.agent.messages import Listed
from pycni.model.resources import (
    AffinityState,
    AllocationAttribute,
    Block,
    BlockAffinity,
    Handle,
    IPPool,
    Resource,
)
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer
from tests.unit.agent.node_facts import ALL, dirty, facts, gone, keys, told_of
from tests.unit.plan.samples import OWN, THEIRS, affinity, node, pool
from tests.unit.spoilt_blocks import SPOILS, Spoil


@pytest.mark.parametrize(
    "value", [pool(), node("node-9", "10.10.9.9/20"), BGPConfiguration(), BGPFilter("f")]
)
def test_what_concerns_all_routes_makes_everything_dirty(value: Resource) -> None:
    assert dirty(told_of(value)) == ALL
    assert dirty(gone(value), told_of(value)) == ALL


def test_an_object_told_again_is_nothing_new() -> None:
    assert not dirty(told_of(pool()), told_of(pool()))


def test_an_unknown_object_that_is_gone_is_nothing_new() -> None:
    assert not dirty(gone(pool()))


def test_kinds_that_do_not_matter_are_passed_over() -> None:
    assert not dirty(told_of(Handle("h")))


def test_settings_of_bgp_are_all_nodes_or_one_nodes_own_until_they_go() -> None:
    made, common = facts(), BGPConfiguration(as_number=1, listen_port=1790)
    own, others = BGPConfiguration("node.node-0", listen_port=1791), BGPConfiguration("node.other")
    for value in (common, own, others):
        made.feed(told_of(value), now=0.0)

    settled = (made.inputs.bgp, made.inputs.own_bgp)
    for value in (common, own, others):
        made.feed(gone(value), now=0.0)

    assert settled == (common, replace(common, listen_port=1791))
    assert (made.inputs.bgp, made.inputs.nodes_bgp) == (BGPConfiguration(), {})


def test_a_peer_concerns_what_it_may_have_announced_too() -> None:
    peer = BGPPeer("router", ip_address("10.10.0.1"), as_number=65001)

    assert dirty(told_of(peer)) == Dirty(is_all=True)
    assert dirty(gone(peer), told_of(peer)) == Dirty(is_all=True)


def test_an_affinity_concerns_its_prefix_and_ours_sessions_too() -> None:
    assert dirty(told_of(affinity(THEIRS, "node-2"))) == Dirty(keys=keys(THEIRS))
    assert dirty(told_of(affinity(OWN, "node-0"))) == Dirty(
        keys=keys(OWN), is_bgp=True, is_other=True
    )


@pytest.mark.parametrize("is_reversed", [False, True])
def test_of_two_claims_the_confirmed_one_counts(*, is_reversed: bool) -> None:
    pending = affinity(THEIRS, "node-1", AffinityState.PENDING)
    confirmed = affinity(THEIRS, "node-2")
    order = [confirmed, pending] if is_reversed else [pending, confirmed]
    made = facts(*(told_of(one) for one in order))
    assert made.inputs.affinities[ip_network(THEIRS)] == confirmed

    made.feed(gone(confirmed), now=0.0)

    assert made.inputs.affinities[ip_network(THEIRS)] == pending


def test_a_first_listing_makes_everything_dirty_and_a_later_one_only_what_changed() -> None:
    listed = Listed(BlockAffinity, [affinity(THEIRS, "node-2")])

    assert dirty(listed).is_all
    assert not dirty(listed, listed)
    assert dirty(Listed(BlockAffinity, []), listed) == Dirty(keys=keys(THEIRS))


def test_the_datastore_is_known_once_each_kind_was_listed() -> None:
    made = facts()
    known = []
    for kind in WATCHED_KINDS:
        known.append(made.has_datastore)
        made.feed(Listed(kind, []), now=0.0)

    assert not any(known)
    assert made.has_datastore


@pytest.mark.parametrize(("filters", "is_known"), [((), True), (("f",), False)])
def test_filters_must_be_known_where_a_peer_names_one(
    filters: tuple[str, ...], *, is_known: bool
) -> None:
    peer = BGPPeer("router", ip_address("10.10.0.1"), as_number=65001, filters=filters)
    made = facts()
    for kind in (*WATCHED_KINDS,):
        if kind is not BGPFilter:
            made.feed(Listed(kind, [peer] if kind is BGPPeer else []), now=0.0)

    assert made.has_datastore is is_known
    made.feed(Listed(BGPFilter, [BGPFilter("f")]), now=0.0)
    assert made.has_datastore
    assert made.inputs.filters == {"f": BGPFilter("f")}


def test_a_deleted_pool_stays_in_the_history() -> None:
    made = facts(told_of(pool()), gone(pool()))

    assert made.inputs.pool_history == {ip_network("192.168.0.0/16")}
    assert made.inputs.pools == {}
    assert IPPool in WATCHED_KINDS


def block(*holders: str) -> Block:
    """Return a block of node-2, the first addresses of which these nodes hold."""
    free = 64 - len(holders)
    return Block(
        ip_network(THEIRS),
        affinity="node-2",
        allocations=(*range(len(holders)), *([None] * free)),
        unallocated=tuple(range(len(holders), len(holders) + free)),
        attributes=tuple(AllocationAttribute("h", (("node", node),)) for node in holders),
        sequence_numbers=(None,) * 64,
    )


def test_a_borrowed_address_concerns_its_prefix_and_sessions() -> None:
    first, second = keys("192.168.247.0/32"), keys("192.168.247.1/32")
    borrowed = told_of(block("node-1", "node-2"))

    assert dirty(borrowed) == Dirty(keys=first, is_bgp=True)
    assert dirty(told_of(block("node-2")), borrowed) == Dirty(keys=first, is_bgp=True)
    assert dirty(gone(block()), borrowed) == Dirty(keys=first, is_bgp=True)
    assert dirty(told_of(block("node-0", "node-0")), borrowed).keys == first | second


def test_a_version_of_a_block_that_changes_nothing_borrowed_concerns_nobody() -> None:
    assert not dirty(told_of(block("node-2")))
    assert not dirty(told_of(block("node-1", "node-2")), told_of(block("node-1")))


def test_who_borrows_is_known_until_it_ends() -> None:
    made = facts(told_of(block("node-1", "node-2")))
    before = dict(made.inputs.borrowed)
    made.feed(told_of(block("node-2", "node-0")), now=0.0)
    then = dict(made.inputs.borrowed)
    made.feed(gone(block()), now=0.0)

    assert before == {ip_network("192.168.247.0/32"): "node-1"}
    assert then == {ip_network("192.168.247.1/32"): "node-0"}
    assert made.inputs.borrowed == {}


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_a_block_that_contradicts_itself_changes_nothing_of_who_borrows(spoil: Spoil) -> None:
    made = facts(told_of(block("node-1")))

    assert made.feed(told_of(spoil(block("node-0", "node-0"))), now=0.0) == Dirty()

    assert made.inputs.borrowed == {ip_network("192.168.247.0/32"): "node-1"}
    made.feed(gone(block()), now=0.0)
    assert made.inputs.borrowed == {}
