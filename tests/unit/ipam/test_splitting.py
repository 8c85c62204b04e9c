"""Cutting a pool: which parts there are, and what stands in the way."""

from dataclasses import replace
from ipaddress import IPv4Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.errors import InvalidInput, NotFound
from pycni.ipam.splitting import MOST_PARTS, is_count, parts_of, plan_split
from pycni.model.resources import AssignmentMode, IPPool, PoolUse, TunnelMode

POOL = IPPool("pool", IPv4Network("10.0.0.0/24"), ipip_mode=TunnelMode.ALWAYS, nat_outgoing=True)
RICH = replace(
    POOL,
    is_disabled=True,
    disable_bgp_export=True,
    node_selector="rack == 'b'",
    allowed_uses=frozenset({PoolUse.WORKLOAD}),
    assignment_mode=AssignmentMode.MANUAL,
)
OTHER = IPPool("other", IPv4Network("172.16.0.0/16"))
SIX = IPPool("six", ip_network("fd00::/112"), block_size=122)


def names_and_ranges(parts: tuple[IPPool, ...]) -> list[str]:
    return [f"{part.name} {part.cidr}" for part in parts]


def test_parts_have_everything_but_name_and_range() -> None:
    parts = parts_of(RICH, 2)

    assert names_and_ranges(parts) == ["pool-0 10.0.0.0/25", "pool-1 10.0.0.128/25"]
    assert {replace(part, name=RICH.name, cidr=RICH.cidr) for part in parts} == {RICH}


def test_numbers_have_one_width_so_that_pools_serve_in_the_order_of_addresses() -> None:
    names = [part.name for part in parts_of(replace(POOL, block_size=30), 16)]

    assert names[:2] == ["pool-00", "pool-01"]
    assert names[-1] == "pool-15"
    assert names == sorted(names)


def test_ipv6_pool_is_cut_as_well() -> None:
    parts = ["six-0 fd00::/113", "six-1 fd00::8000/113"]
    assert names_and_ranges(parts_of(SIX, 2)) == parts


@given(st.integers(16, 26), st.integers(1, 10))
def test_parts_are_the_pool_and_hold_every_block_whole(prefix: int, doublings: int) -> None:
    pool = IPPool("pool", IPv4Network((0x0A000000, prefix)))
    count = 2**doublings
    if prefix + doublings > pool.block_size:
        with pytest.raises(InvalidInput, match="smaller than one of its blocks"):
            parts_of(pool, count)
        return

    parts = parts_of(pool, count)

    assert len(parts) == count
    assert [part.cidr for part in parts] == list(pool.cidr.subnets(prefixlen_diff=doublings))


@pytest.mark.parametrize("count", [-2, 0, 1, 3, 6, MOST_PARTS * 2])
def test_count_is_a_power_of_two(count: int) -> None:
    assert not is_count(count)


@pytest.mark.parametrize("count", [2, 4, MOST_PARTS])
def test_powers_of_two_are_counts(count: int) -> None:
    assert is_count(count)


def test_too_many_parts_are_refused_with_the_most_that_there_can_be() -> None:
    with pytest.raises(InvalidInput, match=r"\(/26\); cut it into 4 at most$"):
        parts_of(POOL, 8)


def test_pool_of_one_block_cant_be_cut() -> None:
    with pytest.raises(InvalidInput, match=r"it can't be cut$"):
        parts_of(replace(POOL, cidr=IPv4Network("10.0.0.0/26")), 2)


def test_parts_names_are_held_to_the_rules_of_names() -> None:
    with pytest.raises(InvalidInput, match="the name of a part of pool"):
        parts_of(replace(POOL, name="p" * 252), 2)


@pytest.mark.parametrize("text", ["pool", "10.0.0.0/24"])
def test_pool_is_named_by_name_or_range(text: str) -> None:
    split = plan_split(text, 2, pools=[OTHER, POOL, SIX], blocks=[])

    assert split.pool == POOL
    assert split.missing == split.parts == parts_of(POOL, 2)


def test_what_an_interrupted_split_has_made_is_not_made_again() -> None:
    first, second = parts_of(POOL, 2)

    split = plan_split("pool", 2, pools=[POOL, first], blocks=[])

    assert split.parts == (first, second)
    assert split.missing == (second,)


@pytest.mark.parametrize("text", ["pool", "10.0.0.0/24"])
def test_what_is_split_needs_nothing_more_whatever_became_of_the_parts(text: str) -> None:
    first, second = parts_of(POOL, 2)
    changed = replace(first, is_disabled=True)

    split = plan_split(text, 2, pools=[OTHER, changed, second], blocks=[])

    assert (split.pool, split.parts, split.missing) == (None, (changed, second), ())


def test_neighbouring_pools_of_other_names_are_no_split_of_a_name() -> None:
    first, second = parts_of(POOL, 2)

    with pytest.raises(NotFound, match="there is no pool pool: see"):
        plan_split("pool", 2, pools=[first, replace(second, name="mine")], blocks=[])


def test_pool_that_holds_all_addresses_is_no_part() -> None:
    with pytest.raises(NotFound):
        plan_split("pool", 2, pools=[IPPool("all", IPv4Network("0.0.0.0/0"))], blocks=[])


def test_another_pool_of_a_parts_name_is_in_the_way() -> None:
    stranger = replace(OTHER, name="pool-1")

    with pytest.raises(InvalidInput, match=r"pool pool-1 \(172.16.0.0/16\) has the name of a part"):
        plan_split("pool", 2, pools=[POOL, stranger], blocks=[])


def test_parts_of_a_split_into_another_number_are_in_the_way() -> None:
    with pytest.raises(InvalidInput) as refused:
        plan_split("pool", 4, pools=[POOL, *parts_of(POOL, 2)], blocks=[])

    assert str(refused.value).count("finish the split that made it by its own number") == 2


def test_pool_in_the_same_addresses_is_in_the_way() -> None:
    inner = IPPool("inner", IPv4Network("10.0.0.64/26"))

    with pytest.raises(InvalidInput, match=r"pool inner \(10.0.0.64/26\) lies in the same addr"):
        plan_split("pool", 2, pools=[POOL, inner], blocks=[])


def test_block_that_lies_in_several_parts_is_in_the_way() -> None:
    blocks = [ip_network("10.0.0.64/26"), ip_network("10.0.0.0/24"), ip_network("172.16.0.0/12")]

    with pytest.raises(InvalidInput) as refused:
        plan_split("pool", 2, pools=[POOL], blocks=blocks)

    assert str(refused.value) == (
        "cannot split pool pool (10.0.0.0/24) into 2: block 10.0.0.0/24 would lie in several"
        " parts; see  pycnictl ipam check"
    )
