"""Which pools may serve: selectors, modes, uses, families and names, each with the other."""

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest

from pycni.errors import InvalidInput
from pycni.ipam.pools import eligible, overlapping
from pycni.model.resources import AssignmentMode, IPPool, PoolUse

FOUR = (
    IPPool("a4", IPv4Network("10.1.0.0/24")),
    IPPool("b4", IPv4Network("10.2.0.0/24")),
)
SIX = (
    IPPool("a6", IPv6Network("fd00:1::/64"), block_size=122),
    IPPool("b6", IPv6Network("fd00:2::/64"), block_size=122),
)
HERE, ELSEWHERE = "rack == 'a'", "rack == 'b'"


def serving(
    *pools: IPPool, version: int, named: tuple[str, ...] = (), use: PoolUse = PoolUse.WORKLOAD
) -> list[str]:
    labels = {"rack": "a"}
    return [
        pool.name
        for pool in eligible(pools, labels=labels, use=use, version=version, requested=named)
    ]


both_families = pytest.mark.parametrize(("pair", "version"), [(FOUR, 4), (SIX, 6)], ids=["4", "6"])
Pair = tuple[IPPool, IPPool]


@both_families
def test_without_names_whatever_serves_the_node(pair: Pair, version: int) -> None:
    a, b = pair

    assert serving(b, a, version=version) == [a.name, b.name]
    assert serving(replace(a, is_disabled=True), b, version=version) == [b.name]
    assert serving(replace(a, node_selector=ELSEWHERE), b, version=version) == [b.name]
    assert serving(a, replace(b, node_selector=ELSEWHERE), version=version) == [a.name]
    assert serving(replace(a, node_selector=HERE), b, version=version) == [a.name, b.name]
    off, elsewhere = replace(a, is_disabled=True), replace(b, node_selector=ELSEWHERE)
    assert serving(off, elsewhere, version=version) == []


@both_families
def test_a_named_pool_serves_alone_whatever_selectors_say(pair: Pair, version: int) -> None:
    a, b = pair

    for named in (b, replace(b, node_selector=ELSEWHERE), replace(b, node_selector=HERE)):
        for other in (a, replace(a, node_selector=HERE), replace(a, is_disabled=True)):
            assert serving(other, named, version=version, named=(b.name,)) == [b.name]
            assert serving(other, named, version=version, named=(str(b.cidr),)) == [b.name]


@both_families
def test_named_pools_serve_in_the_order_of_their_names_in_the_request(
    pair: Pair, version: int
) -> None:
    a, b = pair

    assert serving(a, b, version=version, named=(b.name, a.name)) == [b.name, a.name]
    assert serving(a, b, version=version, named=(a.name, str(a.cidr))) == [a.name]


@both_families
@pytest.mark.parametrize("order", [1, -1])
def test_one_bad_name_among_good_ones_is_refused(pair: Pair, version: int, order: int) -> None:
    a, b = pair
    disabled = replace(b, is_disabled=True)

    for pools, bad in (((a, disabled), b.name), ((a, b), "nobody")):
        with pytest.raises(InvalidInput, match=f"pool {bad}: it does not exist or is disabled"):
            serving(*pools, version=version, named=(a.name, bad)[::order])


@pytest.mark.parametrize("version", [4, 6])
def test_a_named_pool_of_the_other_family_is_refused_with_its_place(version: int) -> None:
    right, wrong = (FOUR[0], SIX[0]) if version == 4 else (SIX[0], FOUR[0])

    for text in (wrong.name, str(wrong.cidr)):
        with pytest.raises(InvalidInput, match=rf"pool {wrong.name} \(.*: name it in ipv"):
            serving(right, wrong, version=version, named=(right.name, text))


def test_a_pool_serves_its_family_only() -> None:
    assert serving(*FOUR, *SIX, version=4) == ["a4", "b4"]
    assert serving(*FOUR, *SIX, version=6) == ["a6", "b6"]


def test_a_pool_serves_its_uses_only_though_it_is_named() -> None:
    workloads = replace(FOUR[0], allowed_uses=frozenset({PoolUse.WORKLOAD}))
    tunnels = replace(FOUR[1], allowed_uses=frozenset({PoolUse.TUNNEL}))

    assert serving(workloads, tunnels, version=4) == ["a4"]
    assert serving(workloads, tunnels, version=4, use=PoolUse.TUNNEL) == ["b4"]
    assert serving(workloads, tunnels, version=4, named=("a4",)) == ["a4"]
    assert serving(workloads, tunnels, version=4, named=("b4",)) == []


def test_a_manual_pool_serves_those_only_who_name_it() -> None:
    manual = replace(FOUR[0], assignment_mode=AssignmentMode.MANUAL)

    assert serving(manual, FOUR[1], version=4) == ["b4"]
    assert serving(manual, FOUR[1], version=4, named=("a4",)) == ["a4"]


def test_blocks_that_share_addresses_overlap_but_not_a_block_itself() -> None:
    block, part, whole, other, six = map(
        ip_network, ("10.0.0.0/28", "10.0.0.4/30", "10.0.0.0/26", "10.0.0.16/28", "fd00::/28")
    )

    assert overlapping(block, [block, other, six]) is None
    assert overlapping(block, [other, part]) == part
    assert overlapping(block, [other, whole]) == whole
