"""What every implementation of the `Kernel` door does with a route in another's place."""

import errno
from dataclasses import replace

import pytest

from pycni.model.network import AddRoute, ReplaceRoute, Route
from tests.contract.kernel.worlds import (
    BLACKHOLE,
    BLACKHOLE6,
    BLOCK,
    LEARNED,
    LEARNED6,
    MOVED,
    MOVED6,
    STRANGERS,
    World,
    apply,
    codes,
    lines,
    route,
    table,
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (LEARNED, MOVED),
        (LEARNED, replace(LEARNED, mtu=1400)),
        (replace(LEARNED, mtu=1400), LEARNED),
        (LEARNED, replace(LEARNED, protocol=80)),
        (LEARNED, BLACKHOLE),
        (BLACKHOLE, LEARNED),
        (LEARNED, LEARNED),
        (LEARNED6, MOVED6),
        (LEARNED6, replace(LEARNED6, mtu=1400)),
        (LEARNED6, BLACKHOLE6),
        (BLACKHOLE6, LEARNED6),
    ],
)
def test_replacing_our_own_route(node: World, old: Route, new: Route) -> None:
    apply(node, AddRoute(old))

    assert apply(node, ReplaceRoute(old, new)) == []
    assert table(node, new.key) == lines(new)
    assert apply(node, ReplaceRoute(old, new)) == []
    assert table(node, new.key) == lines(new)


@pytest.mark.parametrize("is_first", [True, False])
def test_replacing_spares_a_strangers_ipv4_route(node: World, *, is_first: bool) -> None:
    for each in (STRANGERS, LEARNED) if is_first else (LEARNED, STRANGERS):
        node.append(each)

    assert apply(node, ReplaceRoute(LEARNED, MOVED)) == []
    assert table(node, LEARNED.key) == lines(STRANGERS, MOVED)


def test_replacing_refuses_where_a_stranger_has_an_ipv6_route(node: World) -> None:
    blackhole = replace(BLACKHOLE6, protocol=4)
    node.append(blackhole)
    node.append(LEARNED6)

    assert codes(apply(node, ReplaceRoute(LEARNED6, MOVED6))) == [errno.EEXIST]
    assert sorted(table(node, LEARNED6.key)) == sorted(lines(blackhole, LEARNED6))


def test_refused_replacement_leaves_the_old_route(node: World) -> None:
    apply(node, AddRoute(LEARNED))
    bad = route(BLOCK, via="172.16.0.1", dev="tunl0")

    assert codes(apply(node, ReplaceRoute(LEARNED, bad))) == [errno.ENETUNREACH]
    assert table(node, LEARNED.key) == lines(LEARNED)


@pytest.mark.parametrize(("old", "new"), [(LEARNED, MOVED), (LEARNED6, MOVED6),
                                          (LEARNED, replace(LEARNED, mtu=1400))])  # fmt: skip
def test_replacing_a_route_that_is_gone_adds_the_new_one(
    node: World, old: Route, new: Route
) -> None:
    assert apply(node, ReplaceRoute(old, new)) == []
    assert table(node, new.key) == lines(new)
