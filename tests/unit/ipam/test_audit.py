"""Each rule about the books: what breaks it is found, and nothing else is."""

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

from pycni.ipam import block as arithmetic
from pycni.ipam.audit import MEND, audit
from pycni.ipam.books import Books, Held, recounted
from pycni.ipam.findings import Kind
from pycni.model.resources import AffinityState, BlockAffinity, Handle, IPPool
from pycni.model.service_ranges import LOAD_BALANCER
from tests.unit.written_books import (
    AFFINITY,
    CIDR,
    DETAILS,
    OTHER,
    POD,
    POD_HANDLE,
    POOL,
    START,
    TUNNEL,
    books,
    empty_block,
    full_block,
    give,
    kinds,
    only,
    records,
)


def test_sound_books_have_no_findings() -> None:
    assert audit(books()) == ()
    assert audit(Books()) == ()


# --- blocks -------------------------------------------------------------------------------------


def test_corrupt_block_is_named_and_nothing_else_is_concluded_from_it() -> None:
    broken = replace(full_block(), unallocated=())

    found = only(books(blocks=(broken,)))

    assert (found.kind, found.block, found.repair) == (Kind.BLOCK_CORRUPT, CIDR, "")
    assert "unallocated and allocations disagree" in found.sentence


def test_block_within_another_is_named() -> None:
    inner = empty_block(IPv4Network("192.168.39.224/27"))
    mine = BlockAffinity("node-0", inner.cidr, AffinityState.CONFIRMED)

    found = only(books(blocks=(inner, full_block()), affinities=(AFFINITY, mine)))

    assert (found.kind, found.block) == (Kind.BLOCKS_OVERLAP, inner.cidr)
    assert f"lies in block {CIDR}" in found.sentence


def test_every_block_within_a_large_one_is_named() -> None:
    inside = [empty_block(IPv4Network(f"192.168.39.{n}/32"), affinity=None) for n in (193, 240)]

    assert kinds(books(blocks=(full_block(), *inside))) == [Kind.BLOCKS_OVERLAP] * 2


def test_blocks_of_both_families_do_not_overlap() -> None:
    other = arithmetic.new_block(IPv6Network("::c0a8:2780/122"), affinity=None, sequence_number=1)
    pool = IPPool("six", IPv6Network("::/64"), block_size=122)

    assert audit(books(blocks=(full_block(), other), pools=(POOL, pool))) == ()


def test_empty_block_in_no_pool_can_go() -> None:
    stray = empty_block(IPv4Network("10.0.0.0/26"), affinity=None)

    found = only(books(blocks=(full_block(), stray)))

    assert (found.kind, found.subject) == (Kind.BLOCK_WITHOUT_POOL, "block 10.0.0.0/26")
    assert found.repair == MEND


def test_block_in_no_pool_where_addresses_only_rest_can_go() -> None:
    used = give(empty_block(IPv4Network("10.0.0.0/26")), "a")
    rests = arithmetic.release_by_handle(used, "a", resting_since="2026-01-01T00:00:00Z").block

    found = audit(books(blocks=(full_block(), rests)))

    assert [(one.kind, one.repair) for one in found] == [
        (Kind.BLOCK_WITHOUT_POOL, MEND),
        (Kind.BLOCK_WITHOUT_AFFINITY, MEND),
    ]


def test_used_block_in_no_pool_needs_judgement() -> None:
    found = only(books(pools=()))

    assert (found.kind, found.repair) == (Kind.BLOCK_WITHOUT_POOL, "")
    assert "2 of its addresses are in use" in found.sentence


def test_empty_block_of_a_gone_node_that_claims_it_not_can_be_deleted() -> None:
    stray = empty_block(OTHER, affinity="node-9")

    unclaimed, _ = audit(books(blocks=(full_block(), stray)))

    assert (unclaimed.kind, unclaimed.node) == (Kind.BLOCK_WITHOUT_AFFINITY, "node-9")
    assert unclaimed.repair == f"pycnictl delete block {OTHER}"


def test_used_block_of_a_gone_node_that_claims_it_not_needs_judgement() -> None:
    orphan = replace(full_block(), affinity="node-9")

    unclaimed, gone = audit(books(blocks=(orphan,), affinities=()))

    assert (unclaimed.kind, unclaimed.repair) == (Kind.BLOCK_WITHOUT_AFFINITY, "")
    assert "delete the pods that use its addresses" in unclaimed.sentence
    assert gone.kind is Kind.BLOCK_OF_GONE_NODE


def test_block_without_affinity_of_a_living_node_is_taken_up() -> None:
    found = only(books(affinities=()))

    assert (found.kind, found.block, found.repair) == (Kind.BLOCK_WITHOUT_AFFINITY, CIDR, MEND)
    assert "until that node takes it up" in found.sentence


def test_block_without_owner_needs_no_affinity() -> None:
    lent = replace(full_block(), affinity=None)

    assert audit(books(blocks=(lent,), affinities=())) == ()


# --- affinities ---------------------------------------------------------------------------------


def test_confirmed_affinity_without_a_block_is_named() -> None:
    stray = BlockAffinity("node-1", OTHER, AffinityState.CONFIRMED)

    found = only(books(affinities=(AFFINITY, stray)))

    assert (found.kind, found.node, found.block) == (Kind.AFFINITY_WITHOUT_BLOCK, "node-1", OTHER)
    assert (found.subject, found.repair) == ("affinity node-1-192-168-84-128-26", MEND)


def test_confirmed_affinity_for_anothers_block_is_named() -> None:
    stray = BlockAffinity("node-1", CIDR, AffinityState.CONFIRMED)

    found = only(books(affinities=(AFFINITY, stray)))

    assert (found.kind, found.node) == (Kind.AFFINITY_FOR_OTHERS_BLOCK, "node-1")
    assert "which belongs to node-0" in found.sentence


def test_confirmed_affinity_for_a_block_of_nobody_is_named() -> None:
    lent = replace(full_block(), affinity=None)

    assert "belongs to no node" in only(books(blocks=(lent,))).sentence


def test_unfinished_claims_are_information() -> None:
    claims = [
        BlockAffinity("node-1", OTHER, AffinityState.PENDING),
        BlockAffinity("node-1", CIDR, AffinityState.PENDING_DELETION),
    ]

    found = audit(books(affinities=(AFFINITY, *claims)))

    assert [one.kind for one in found] == [Kind.CLAIM_UNFINISHED] * 2
    assert all(one.is_information and not one.repair for one in found)
    assert not only(books(pools=())).is_information


# --- nodes --------------------------------------------------------------------------------------


def test_block_affinity_and_addresses_of_a_node_that_is_gone_are_named() -> None:
    found = audit(books(nodes=frozenset({"node-1"})))

    assert [(one.kind, one.address) for one in found] == [
        (Kind.BLOCK_OF_GONE_NODE, None),
        (Kind.AFFINITY_OF_GONE_NODE, None),
        (Kind.ADDRESS_OF_GONE_NODE, TUNNEL),
        (Kind.ADDRESS_OF_GONE_NODE, POD),
    ]
    assert {one.repair for one in found} == {"pycnictl ipam release --node node-0"}
    assert "the tunnel of node-0" in found[2].sentence
    assert "pod default/web of node-0" in found[3].sentence


def test_unfinished_claim_of_a_node_that_is_gone_never_heals() -> None:
    claim = BlockAffinity("node-9", OTHER, AffinityState.PENDING)

    assert kinds(books(affinities=(AFFINITY, claim))) == [Kind.AFFINITY_OF_GONE_NODE]


# --- handles ------------------------------------------------------------------------------------


def test_address_without_a_handle_is_named() -> None:
    handles = books().handles

    found = only(books(handles=handles[1:]))

    assert (found.kind, found.address) == (Kind.ADDRESS_WITHOUT_HANDLE, POD)
    assert (found.handle_id, found.sequence_number) == (POD_HANDLE, START + 1)
    assert (found.node, found.block, found.repair) == ("node-0", CIDR, MEND)


def test_address_that_its_handle_does_not_count_is_named() -> None:
    handles = (Handle("net.c1", ((OTHER, 1),)), books().handles[1])

    found = audit(books(blocks=(full_block(), empty_block(OTHER, affinity=None)), handles=handles))

    assert [one.kind for one in found] == [Kind.ADDRESS_NOT_COUNTED, Kind.HANDLE_MISCOUNTS]
    assert (found[0].address, found[0].repair) == (POD, MEND)
    assert "counts 1 in 192.168.84.128/26, and holds 0 there" in found[1].sentence


def test_handle_that_counts_too_many_or_too_few_is_named() -> None:
    for count in (0, 2):
        handles = (Handle("net.c1", ((CIDR, count),)), books().handles[1])

        found = only(books(handles=handles))

        assert (found.kind, found.handle_id) == (Kind.HANDLE_MISCOUNTS, "net.c1")
        assert (found.block, found.repair) == (CIDR, MEND)


def test_handle_that_counts_nothing_is_named() -> None:
    found = only(books(handles=(*books().handles, Handle("left"))))

    assert (found.kind, found.subject) == (Kind.HANDLE_MISCOUNTS, "handle left")


def test_handles_that_differ_in_capital_letters_share_one_count() -> None:
    block = give(full_block(), "NET.c1")
    handles = (Handle("net.c1", ((CIDR, 2),)), books().handles[1])

    assert audit(books(blocks=(block,), handles=handles)) == ()


def test_recounting_keeps_a_handles_spelling_and_takes_the_blocks_for_a_new_one() -> None:
    held: Held = {CIDR: arithmetic.given_to(full_block(), POD_HANDLE)}

    assert recounted(Handle("net.c1", ((OTHER, 3),)), held) == Handle("net.c1", ((CIDR, 1),))
    assert recounted(None, held) == Handle(POD_HANDLE, ((CIDR, 1),))
    assert recounted(Handle("net.c1"), {}) is None


def test_address_without_any_handle_is_not_asked_for_one() -> None:
    block = full_block()
    nameless = tuple(replace(one, handle_id=None) for one in block.attributes)

    found = books(blocks=(replace(block, attributes=nameless),), handles=(), records=(records(),))

    assert audit(found) == ()


# --- resting addresses --------------------------------------------------------------------------


def test_resting_addresses_are_nobodys() -> None:
    rest = arithmetic.release_by_handle(
        full_block(), POD_HANDLE, resting_since="2026-01-01T00:00:00Z"
    ).block

    found = books(blocks=(rest,), handles=books().handles[1:], records=(records(),))

    assert audit(found) == ()


# --- all -----------------------------------------------------------------------------------------


def test_findings_come_most_fundamental_first_and_in_the_order_of_addresses() -> None:
    block = give(give(empty_block(), "b", **DETAILS), "a", **DETAILS)

    found = audit(books(blocks=(block,), handles=(), records=(), pools=()))

    assert [(one.kind, one.handle_id) for one in found] == [
        (Kind.BLOCK_WITHOUT_POOL, None),
        (Kind.ADDRESS_WITHOUT_HANDLE, "b"),
        (Kind.ADDRESS_WITHOUT_HANDLE, "a"),
    ]


def test_addresses_of_services_and_their_blocks_are_in_order() -> None:
    cidr = IPv4Network("198.51.100.0/26")
    block = give(empty_block(cidr, affinity=LOAD_BALANCER), "lb-x", service="shop")
    affinity = BlockAffinity(LOAD_BALANCER, cidr, AffinityState.CONFIRMED)
    handle = Handle("lb-x", ((cidr, 1),))
    pool = IPPool("balanced", IPv4Network("198.51.100.0/24"))

    assert kinds(Books((pool,), (block,), (handle,), (affinity,), frozenset({"node-0"}))) == []
