"""When a node counts as gone, and what its blocks are without it."""

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from pycni.ipam import block as arithmetic
from pycni.ipam.gone import GONE_AFTER_S, Absences, Estate, Turn, estates, take_from
from pycni.model.resources import AffinityState, Block, BlockAffinity
from tests.unit.written_books import (
    AFFINITY,
    CIDR,
    OTHER,
    POD,
    POD_HANDLE,
    START,
    TUNNEL,
    TUNNEL_HANDLE,
    empty_block,
    full_block,
    give,
)

HERE = "node-9"
BOTH = frozenset({HERE, "node-0"})
ALONE = frozenset({HERE})
SINCE = "2026-01-01T00:00:00Z"


def estate(*blocks: Block) -> Estate:
    return estates(blocks or [full_block()], [AFFINITY])["node-0"]


def without_tunnel() -> Block:
    return give(empty_block(), POD_HANDLE, node="node-0")


def looked(absences: Absences, nodes: frozenset[str], now: float, *blocks: Block) -> list[str]:
    """Look at everything; return who is gone."""
    absences.note(nodes)
    found = estates(blocks or [full_block()], [AFFINITY])
    return [one.node for one in absences.gone(found, now=now)]


# --- what a node has ----------------------------------------------------------------------------


def test_a_node_has_its_blocks_and_its_addresses_in_any_block() -> None:
    borrowed = give(empty_block(OTHER, affinity="node-1"), "guest", node="node-0")

    found = estates([full_block(), borrowed], [AFFINITY])

    assert found == {
        "node-0": Estate(
            "node-0",
            blocks=frozenset({CIDR}),
            turns=frozenset(
                {
                    Turn(CIDR, TUNNEL, START),
                    Turn(CIDR, POD, START + 1),
                    Turn(OTHER, OTHER[0], START),
                }
            ),
            tunnels=frozenset({CIDR}),
        ),
        "node-1": Estate("node-1", blocks=frozenset({OTHER})),
    }


def test_the_block_with_the_tunnel_comes_last() -> None:
    later = give(empty_block(OTHER), "pod", node="node-0")

    assert estates([full_block(), later], [])["node-0"].cidrs == [OTHER, CIDR]
    assert estates([later, empty_block()], [])["node-0"].cidrs == [CIDR, OTHER]


def test_affinity_alone_is_something_and_a_corrupt_block_nothing() -> None:
    broken = replace(full_block(), unallocated=())

    assert estates([], [AFFINITY])["node-0"].cidrs == [CIDR]
    assert estates([broken], [AFFINITY]) == {}


def test_addresses_of_no_node_and_blocks_of_nobody_belong_to_no_estate() -> None:
    assert estates([give(empty_block(affinity=None), "by-hand")], []) == {}


# --- who is gone --------------------------------------------------------------------------------


def test_node_is_gone_at_the_second_look_long_enough_after_the_first() -> None:
    absences = Absences(HERE)

    assert looked(absences, ALONE, 0) == []
    assert looked(absences, ALONE, GONE_AFTER_S - 1) == []
    assert looked(absences, ALONE, GONE_AFTER_S) == ["node-0"]


def test_node_that_was_there_in_between_begins_anew() -> None:
    absences = Absences(HERE)
    looked(absences, ALONE, 0)

    absences.note(BOTH)

    assert looked(absences, ALONE, GONE_AFTER_S) == []
    assert looked(absences, ALONE, 2 * GONE_AFTER_S) == ["node-0"]


def test_node_that_never_had_an_object_is_never_gone() -> None:
    absences = Absences(HERE)

    for now in (0, GONE_AFTER_S, 2 * GONE_AFTER_S):
        assert looked(absences, ALONE, now, without_tunnel()) == []


def test_node_whose_object_was_seen_needs_no_tunnel() -> None:
    absences = Absences(HERE)
    absences.note(BOTH)
    looked(absences, ALONE, 0, without_tunnel())

    assert looked(absences, ALONE, GONE_AFTER_S, without_tunnel()) == ["node-0"]


def test_node_that_is_given_something_without_object_lives_until_it_has_one_again() -> None:
    absences = Absences(HERE)
    more = give(full_block(), "later", node="node-0")
    looked(absences, ALONE, 0)

    assert looked(absences, ALONE, GONE_AFTER_S, more) == []
    assert looked(absences, ALONE, 2 * GONE_AFTER_S, more) == []

    absences.note(BOTH)
    assert looked(absences, ALONE, 3 * GONE_AFTER_S, more) == []
    assert looked(absences, ALONE, 4 * GONE_AFTER_S, more) == ["node-0"]


def test_address_that_is_given_again_is_a_sign_of_life() -> None:
    absences = Absences(HERE)
    freed = arithmetic.release_by_handle(full_block(), POD_HANDLE).block
    again = arithmetic.assign(freed, POD, handle_id="new", attributes=[("node", "node-0")])
    looked(absences, ALONE, 0)

    assert looked(absences, ALONE, GONE_AFTER_S, again) == []


def test_node_that_loses_something_is_gone_all_the_same() -> None:
    absences = Absences(HERE)
    less = arithmetic.release_by_handle(full_block(), POD_HANDLE).block
    looked(absences, ALONE, 0)

    assert looked(absences, ALONE, GONE_AFTER_S, less) == ["node-0"]


def test_what_there_was_at_both_looks_only_is_gone() -> None:
    absences = Absences(HERE)
    looked(absences, ALONE, 0)
    less = arithmetic.release_by_handle(full_block(), POD_HANDLE).block
    absences.note(ALONE)

    (gone,) = absences.gone(estates([less], [AFFINITY]), now=GONE_AFTER_S)

    assert gone == estate(less)


def test_nothing_follows_where_even_the_one_who_looks_has_no_object() -> None:
    absences = Absences(HERE)
    looked(absences, BOTH, 0)
    looked(absences, ALONE, 1)

    assert looked(absences, frozenset(), GONE_AFTER_S + 1) == []
    assert looked(absences, ALONE, GONE_AFTER_S + 2) == []
    assert looked(absences, ALONE, 2 * GONE_AFTER_S + 2) == ["node-0"]


def test_the_one_who_looks_is_not_gone() -> None:
    absences = Absences("node-0")
    for now in (0, GONE_AFTER_S):
        assert looked(absences, frozenset({"node-0"}), now) == []


# --- what is left of a block --------------------------------------------------------------------


def test_block_of_which_nobody_else_holds_an_address_goes() -> None:
    taking = take_from(full_block(), estate(), resting_since=SINCE)

    assert taking is not None
    assert taking.block is None
    assert taking.handles == {POD_HANDLE.lower(): 0, TUNNEL_HANDLE: 0}


def test_block_in_which_others_have_borrowed_loses_its_owner_only() -> None:
    shared = give(full_block(), "guest", node="node-1")

    taking = take_from(shared, estate(), resting_since=None)

    assert taking is not None
    assert taking.block is not None
    assert taking.block.affinity is None
    assert [str(one.attribute.handle_id) for one in arithmetic.given(taking.block)] == ["guest"]


def test_what_it_borrowed_goes_back_to_a_living_owner_and_rests_there() -> None:
    lent = give(give(empty_block(OTHER, affinity="node-1"), "own", node="node-1"), "guest")
    lent = arithmetic.release_by_handle(lent, "guest").block
    lent = give(lent, "guest", node="node-0")

    taking = take_from(lent, estate(full_block(), lent), resting_since=SINCE)

    assert taking is not None
    assert taking.block is not None
    assert taking.block.affinity == "node-1"
    assert len(arithmetic.given(taking.block)) == 1
    assert arithmetic.resting_count(taking.block) == 1
    assert taking.handles == {"guest": 0}


def test_block_without_owner_goes_with_its_last_address() -> None:
    orphan = give(empty_block(OTHER, affinity=None), "guest", node="node-0")

    taking = take_from(orphan, estate(full_block(), orphan), resting_since=SINCE)

    assert taking is not None
    assert taking.block is None


def test_handle_that_others_use_too_counts_theirs() -> None:
    shared = give(full_block(), POD_HANDLE.upper(), node="node-1")

    taking = take_from(shared, estate(), resting_since=None)

    assert taking is not None
    assert taking.handles == {POD_HANDLE.lower(): 1, TUNNEL_HANDLE: 0}


def test_address_without_handle_is_nobodys_count() -> None:
    nameless = replace(
        full_block(),
        attributes=tuple(replace(one, handle_id=None) for one in full_block().attributes),
    )

    taking = take_from(nameless, estate(nameless), resting_since=None)

    assert taking is not None
    assert (taking.block, taking.handles) == (None, {})


def test_block_of_which_it_has_nothing_any_more_stays_as_it_is() -> None:
    others = give(empty_block(OTHER, affinity="node-1"), "own", node="node-1")

    taking = take_from(others, estate(), resting_since=None)

    assert taking is not None
    assert taking.block == others


@pytest.mark.parametrize("sign", ["an address", "a block"])
def test_node_that_has_more_than_was_seen_lives(sign: str) -> None:
    if sign == "an address":
        assert take_from(give(full_block(), "x", node="node-0"), estate(), resting_since="") is None
    else:
        assert take_from(empty_block(OTHER), estate(), resting_since="") is None


def test_unfinished_claim_belongs_to_the_node_as_well() -> None:
    cidr = IPv4Network("192.168.1.0/26")
    claim = BlockAffinity("node-0", cidr, AffinityState.PENDING)

    assert estates([], [claim])["node-0"].blocks == {cidr}
