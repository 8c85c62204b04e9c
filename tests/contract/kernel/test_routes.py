"""What every implementation of the `Kernel` door does with routes that come and go."""

import errno
from ipaddress import ip_address

import pytest

from pycni.model.network import AddRoute, DeleteRoute, NextHop, ReplaceRoute, Route, SetLink
from pycni.plan.iproute import route_text
from tests.contract.kernel.worlds import (
    BLACKHOLE,
    BLACKHOLE6,
    BLOCK,
    LEARNED,
    LEARNED6,
    MOVED,
    STRANGERS,
    STRANGERS6,
    World,
    apply,
    codes,
    lines,
    route,
    table,
)


@pytest.mark.parametrize("ours", [LEARNED, BLACKHOLE, LEARNED6, BLACKHOLE6], ids=route_text)
def test_route_comes_and_goes(node: World, ours: Route) -> None:
    assert apply(node, AddRoute(ours)) == []
    assert table(node, ours.key) == lines(ours)

    assert apply(node, DeleteRoute(ours)) == []
    assert table(node, ours.key) == []
    assert apply(node, DeleteRoute(ours)) == []


@pytest.mark.parametrize(
    ("strangers", "ours"),
    [(STRANGERS, LEARNED), (STRANGERS, BLACKHOLE), (STRANGERS6, LEARNED6)],
)
def test_adding_never_touches_a_strangers_route(node: World, strangers: Route, ours: Route) -> None:
    node.append(strangers)

    failures = apply(node, AddRoute(ours))

    assert codes(failures) == [errno.EEXIST]
    assert failures[0].message.startswith("cannot ")
    assert table(node, ours.key) == lines(strangers)


def test_a_failing_operation_does_not_stop_the_others(node: World) -> None:
    other = route("192.168.1.0/26", via="10.0.0.9", dev="tunl0", onlink=True)
    unreachable = route("192.168.2.0/26", via="172.16.0.1", dev="tunl0")

    failures = apply(node, AddRoute(LEARNED), AddRoute(LEARNED), AddRoute(unreachable),
                     SetLink("absent", 1400), AddRoute(other))  # fmt: skip

    assert len(failures) == 3
    assert table(node, LEARNED.key) == lines(LEARNED)
    assert table(node, other.key) == lines(other)


def test_onlink_is_needed_for_a_gateway_that_is_not_on_the_link(node: World) -> None:
    without = route(BLOCK, via="10.0.0.9", dev="tunl0")

    assert codes(apply(node, AddRoute(without))) == [errno.ENETUNREACH]
    assert apply(node, AddRoute(LEARNED)) == []


def test_unknown_interface_fails_to_add_and_succeeds_to_delete(node: World) -> None:
    lost = route(BLOCK, dev="absent")

    assert codes(apply(node, AddRoute(lost))) == [errno.ENODEV]
    assert apply(node, DeleteRoute(lost)) == []


@pytest.mark.parametrize("other", [MOVED, STRANGERS, BLACKHOLE], ids=route_text)
def test_deletion_spares_another_route_of_the_same_key(node: World, other: Route) -> None:
    node.append(other)
    node.append(LEARNED)

    assert apply(node, DeleteRoute(LEARNED)) == []
    assert table(node, LEARNED.key) == lines(other)


def test_deletion_of_an_ipv6_blackhole_spares_a_unicast_route(node: World) -> None:
    node.append(LEARNED6)

    assert apply(node, DeleteRoute(BLACKHOLE6)) == []
    assert table(node, LEARNED6.key) == lines(LEARNED6)


def test_multipath_routes_come_change_and_go(node: World) -> None:
    one, two = (
        NextHop("tunl0", ip_address("10.0.0.9"), is_onlink=True),
        NextHop("eth0", ip_address("10.0.0.8"), weight=3),
    )
    three = NextHop("eth0", ip_address("10.0.0.5"))
    both, others = route(BLOCK, one, two), route(BLOCK, two, three)

    assert apply(node, AddRoute(both), ReplaceRoute(both, others)) == []
    assert table(node, both.key) == lines(others)
    assert apply(node, DeleteRoute(others)) == []
    assert table(node, both.key) == []
