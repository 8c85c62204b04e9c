"""Arithmetic on one block, against Calico's rules and against a simple model."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycni.errors import AlreadyExists, DatastoreUnusable, InvalidInput
from pycni.ipam import block as arithmetic
from pycni.ipam.soundness import verify
from pycni.model.network import IPAddress
from pycni.model.resources import Block

BLOCK = IPv4Network("192.168.39.192/29")
START = 1_700_000_000_000_000_000


def _new() -> Block:
    return arithmetic.new_block(BLOCK, affinity="node-0", sequence_number=START)


def _take(block: Block, count: int = 1, handle: str = "h", **details: str) -> Block:
    return arithmetic.auto_assign(block, count=count, handle_id=handle, attributes=details.items())[
        0
    ]


def _ip(ordinal: int) -> IPv4Address:
    return BLOCK[ordinal]


def test_a_new_block_is_empty_and_ascending() -> None:
    block = _new()

    assert arithmetic.is_empty(block)
    assert arithmetic.free_count(block) == 8
    assert block.unallocated == tuple(range(8))
    verify(block)


def test_addresses_are_given_in_order_with_the_sequence_number_before_the_update() -> None:
    first, one = arithmetic.auto_assign(_new(), count=1, handle_id="a")
    second, two = arithmetic.auto_assign(first, count=2, handle_id="b")

    assert (one, two) == ((_ip(0),), (_ip(1), _ip(2)))
    assert second.sequence_number == START + 2
    assert second.sequence_numbers[:4] == (START, START + 1, START + 1, None)
    assert second.unallocated == (3, 4, 5, 6, 7)


def test_released_ordinals_go_to_the_end() -> None:
    block = _take(_take(_new(), 3), 1, "other")

    after = arithmetic.release(block, {_ip(1): None}).block

    assert after.unallocated == (4, 5, 6, 7, 1)
    assert after.sequence_number == START + 3
    assert after.sequence_numbers[1] is None


def test_equal_attributes_are_kept_once_whatever_their_order() -> None:
    block = _take(_new(), pod="a", node="n")

    after = _take(block, node="n", pod="a")

    assert after.allocations[:2] == (0, 0)
    assert len(after.attributes) == 1


def test_unused_attributes_are_dropped_and_the_rest_renumbered() -> None:
    block = _take(_take(_take(_new(), handle="a"), handle="b"), handle="c")

    after = arithmetic.release(block, {_ip(1): None}).block

    assert [attribute.handle_id for attribute in after.attributes] == ["a", "c"]
    assert after.allocations[:3] == (0, None, 1)


def test_attribute_still_in_use_survives_a_release() -> None:
    block = _take(_new(), 2, "a")

    after = arithmetic.release(block, {_ip(0): None}).block

    assert after.allocations[:2] == (None, 0)


def test_release_with_an_old_sequence_number_is_refused() -> None:
    block = _take(_take(_new()))

    outcome = arithmetic.release(block, {_ip(0): START, _ip(1): START})

    assert outcome.released == (_ip(0),)
    assert outcome.refused == (_ip(1),)


def test_release_under_another_handle_is_refused() -> None:
    block = _take(_new(), handle="mine")

    outcome = arithmetic.release(block, {_ip(0): START}, handle_id="yours")

    assert outcome == arithmetic.Release(block, (), (_ip(0),))


def test_release_of_a_free_address_changes_nothing() -> None:
    block = _take(_new())

    assert arithmetic.release(block, {_ip(5): 1}) == arithmetic.Release(block, ())


def test_release_by_handle_takes_all_of_it_and_nothing_else() -> None:
    block = _take(_take(_take(_new(), 2, "a", pod="x"), 1, "b"), 1, "a", pod="y")

    outcome = arithmetic.release_by_handle(block, "a")

    assert outcome.released == (_ip(0), _ip(1), _ip(3))
    assert [one.address for one in arithmetic.given(outcome.block)] == [_ip(2)]
    assert arithmetic.release_by_handle(outcome.block, "a").block is outcome.block


def test_what_a_handle_holds_comes_with_details_and_sequence_numbers() -> None:
    block = _take(_take(_new(), 1, "a"), 1, "b", type="tunnel")

    (one,) = arithmetic.given_to(block, "b")

    assert (one.address, one.sequence_number) == (_ip(1), START + 1)
    assert one.attribute.secondary == (("type", "tunnel"),)


def test_reserved_addresses_are_passed_over_and_keep_their_place() -> None:
    block, addresses = arithmetic.auto_assign(
        _new(), count=2, handle_id="h", reserved={_ip(0), _ip(2)}
    )

    assert addresses == (_ip(1), _ip(3))
    assert block.unallocated == (0, 2, 4, 5, 6, 7)


def test_a_full_block_gives_what_it_has_then_nothing() -> None:
    full, addresses = arithmetic.auto_assign(_new(), count=9, handle_id="h")

    assert len(addresses) == 8
    assert arithmetic.auto_assign(full, count=1, handle_id="h") == (full, ())


def test_a_particular_address_is_given_once() -> None:
    block = arithmetic.assign(_new(), _ip(5), handle_id="a", attributes=[("pod", "x")])

    assert block.unallocated == (0, 1, 2, 3, 4, 6, 7)
    assert arithmetic.given(block)[0].address == _ip(5)
    with pytest.raises(AlreadyExists, match=r"assign 192\.168\.39\.197 to b: a holds it"):
        arithmetic.assign(block, _ip(5), handle_id="b")


@pytest.mark.parametrize("address", [IPv4Address("10.0.0.1"), IPv6Address("::1")])
def test_an_address_from_elsewhere_is_refused(address: IPAddress) -> None:
    with pytest.raises(InvalidInput, match="lies outside"):
        arithmetic.assign(_new(), address, handle_id="a")


def test_losing_the_owner_is_an_update() -> None:
    after = arithmetic.without_affinity(_new())

    assert (after.affinity, after.sequence_number) == (None, START + 1)


def test_ipv6_blocks_work_alike() -> None:
    cidr = IPv6Network("fd00::/122")
    block = arithmetic.new_block(cidr, affinity=None, sequence_number=1)

    _, addresses = arithmetic.auto_assign(block, count=2, handle_id="h")

    assert addresses == (IPv6Address("fd00::"), IPv6Address("fd00::1"))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (replace(_new(), allocations=(None,) * 7), "7 allocations instead of 8"),
        (replace(_new(), sequence_numbers=()), "instead of 8"),
        (replace(_new(), unallocated=tuple(range(7))), "disagree"),
        (replace(_new(), unallocated=(0, 0, 1, 2, 3, 4, 5, 6)), "disagree"),
        (replace(_take(_new()), attributes=()), "no attribute"),
        (replace(_take(_new()), allocations=(-1, *(None,) * 7)), "no attribute"),
    ],
)
def test_a_contradictory_block_is_refused_by_name(broken: Block, words: str) -> None:
    with pytest.raises(DatastoreUnusable, match=rf"block 192\.168\.39\.192/29 .*{words}"):
        verify(broken)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 3), st.sampled_from("abc")),
        st.tuples(st.just("free"), st.integers(0, 7), st.sampled_from("abc")),
        st.tuples(st.just("drop"), st.just(0), st.sampled_from("abc")),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(steps=STEPS)
def test_any_history_agrees_with_a_queue_and_a_dictionary(
    steps: list[tuple[str, int, str]],
) -> None:
    block = _new()
    queue = list(range(8))
    holders: dict[int, str] = {}

    for verb, number, handle in steps:
        before = block
        if verb == "take":
            block = _take(block, number, handle, pod=handle * 2)
            holders |= dict.fromkeys(queue[:number], handle)
            queue = queue[number:]
        elif verb == "free":
            block = arithmetic.release(block, {_ip(number): None}, handle_id=handle).block
            if holders.get(number) == handle:
                del holders[number]
                queue.append(number)
        else:
            block = arithmetic.release_by_handle(block, handle).block
            gone = sorted(ordinal for ordinal, one in holders.items() if one == handle)
            queue += gone
            holders = {ordinal: one for ordinal, one in holders.items() if one != handle}

        verify(block)
        assert block.sequence_number == before.sequence_number + (block is not before)
        assert list(block.unallocated) == queue
        assert {
            int(one.address) - int(BLOCK[0]): one.attribute.handle_id
            for one in arithmetic.given(block)
        } == holders
        assert {one.handle_id for one in block.attributes} == set(holders.values())
