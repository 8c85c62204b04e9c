"""Where an address stands, and how others learn the way to it."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from pycni.ipam import block as arithmetic
from pycni.ipam.books import Books
from pycni.ipam.reserved import NOTHING, Reserved
from pycni.ipam.whereabouts import (
    Standing,
    Whereabouts,
    advertised,
    borrowed,
    locate,
    rests_until,
)
from pycni.model.resources import AffinityState, BlockAffinity, IPReservation
from tests.unit.written_books import (
    CIDR,
    DETAILS,
    FREE,
    POD,
    POD_HANDLE,
    POOL,
    TUNNEL,
    TUNNEL_HANDLE,
    books,
    empty_block,
    full_block,
    give,
)

SINCE = "2026-01-01T00:00:00Z"


def at(address: IPv4Address, found: Books | None = None) -> Whereabouts:
    return locate(address, books=found or books(), reserved=NOTHING)


def way(address: IPv4Address, found: Books) -> str:
    return advertised(at(address, found), books=found)


def lent_to_node_1() -> Books:
    return books(blocks=(give(empty_block(), POD_HANDLE, **DETAILS | {"node": "node-1"}),))


def test_address_in_use_is_found_with_its_holder_block_and_pool() -> None:
    where = at(POD)

    assert (where.standing, where.pool, where.node) == (Standing.HELD, POOL, "node-0")
    assert where.block is not None
    assert where.block.cidr == CIDR
    assert where.given is not None
    assert where.given.attribute.handle_id == POD_HANDLE
    assert not where.is_borrowed


def test_address_of_a_block_is_free_until_given() -> None:
    where = at(FREE)

    assert (where.standing, where.node, where.is_borrowed) == (Standing.FREE, None, False)


def test_address_in_no_pool_is_not_ours_to_give() -> None:
    where = at(IPv4Address("10.0.0.1"))

    assert (where.standing, where.pool, where.block) == (Standing.OUTSIDE, None, None)
    assert not where.is_borrowed


def test_address_of_a_pool_is_free_where_no_block_is_yet() -> None:
    where = at(POOL.cidr[-2])  # type: ignore[arg-type]  # IPv4, as its pool.

    assert (where.standing, where.pool, where.block) == (Standing.FREE, POOL, None)
    assert (where.given, where.node, where.is_borrowed) == (None, None, False)


def test_released_address_rests() -> None:
    rest = arithmetic.release_by_handle(full_block(), POD_HANDLE, resting_since=SINCE).block

    where = at(POD, books(blocks=(rest,)))

    assert (where.standing, where.released_at) == (Standing.RESTING, SINCE)
    assert at(FREE, books(blocks=(rest,))).standing is Standing.FREE


def test_reserved_address_is_told_from_a_free_one() -> None:
    reserved = Reserved([IPReservation("router", (IPv4Network(f"{FREE}/32"),))])

    assert locate(FREE, books=books(), reserved=reserved).standing is Standing.RESERVED


def test_nothing_is_concluded_from_a_corrupt_block() -> None:
    broken = replace(full_block(), unallocated=())

    assert at(POD, books(blocks=(broken,))).standing is Standing.UNKNOWN
    assert borrowed([broken]) == []


@pytest.mark.parametrize(
    ("since", "until"), [(SINCE, "2026-01-01T00:20:00Z"), ("yesterday", "yesterday")]
)
def test_rest_ends_after_the_cooldown(since: str, until: str) -> None:
    assert rests_until(since, cooldown_s=1200) == until


def test_borrowed_addresses_are_those_of_other_nodes() -> None:
    assert borrowed(books().blocks) == []
    assert [one.address for _, one in borrowed(lent_to_node_1().blocks)] == [TUNNEL]


def test_block_is_advertised_by_its_owner() -> None:
    assert way(POD, books()) == "192.168.39.192/26 by node-0, whose block it is"


def test_borrowed_address_is_advertised_by_its_node_too() -> None:
    assert way(TUNNEL, lent_to_node_1()) == (
        "192.168.39.192/32 by node-1, which borrows it;"
        " 192.168.39.192/26 by node-0, whose block it is"
    )


def test_borrowed_tunnel_address_is_not_advertised_by_its_node() -> None:
    block = give(empty_block(), TUNNEL_HANDLE, node="node-1", type="ipipTunnelAddress")

    assert "borrows" not in way(TUNNEL, books(blocks=(block,)))


def test_pool_without_export_is_not_advertised() -> None:
    quiet = replace(POOL, disable_bgp_export=True)

    assert way(POD, books(pools=(quiet,))).endswith("pool default has disableBGPExport")


def test_address_in_no_pool_is_not_advertised() -> None:
    assert way(POD, books(pools=())) == "not at all: it lies in no pool"


@pytest.mark.parametrize(
    "affinity",
    [
        BlockAffinity("node-0", CIDR, AffinityState.PENDING),
        BlockAffinity("node-1", CIDR, AffinityState.CONFIRMED),
        BlockAffinity("node-0", CIDR, AffinityState.CONFIRMED, is_deleted=True),
    ],
)
def test_block_that_nobody_owns_for_certain_is_not_advertised(affinity: BlockAffinity) -> None:
    assert "no node owns its block" in way(POD, books(affinities=(affinity,)))
    assert "no node owns its block" in way(POD, books(affinities=(affinity,), blocks=()))
