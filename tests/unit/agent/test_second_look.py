"""When others write the routes that we write."""

from math import inf

import pytest

from pycni.agent.second_look import KEPT_S, LOOK_S, SecondLook
from pycni.model.network import (
    AddRoute,
    DeleteRoute,
    Op,
    ReplaceRoute,
    RouteChanged,
    RulesetChanged,
    SetSysctl,
)
from tests.unit.plan.samples import by_tunnel

ROUTE = by_tunnel("192.168.0.0/26", "10.0.0.2")
MOVED = by_tunnel("192.168.0.0/26", "10.0.0.3")
STRANGERS = by_tunnel("192.168.0.0/26", "10.0.0.2", protocol=4)
ELSEWHERE = by_tunnel("192.168.1.0/26", "10.0.0.2")


@pytest.mark.parametrize("op", [AddRoute(ROUTE), DeleteRoute(ROUTE), ReplaceRoute(ROUTE, MOVED)])
@pytest.mark.parametrize("is_present", [True, False])
def test_what_another_does_to_a_route_that_we_wrote_is_looked_at(
    op: Op, *, is_present: bool
) -> None:
    look = SecondLook()

    look.note([SetSysctl("net.ipv4.ip_forward", "1"), op], now=100.0)
    look.heed(RouteChanged(STRANGERS, is_present), now=101.0)

    assert look.due_at == 101.0 + LOOK_S


def test_what_else_happens_asks_for_no_look() -> None:
    look = SecondLook()

    look.note([AddRoute(ROUTE)], now=100.0)
    look.heed(RouteChanged(ELSEWHERE, is_present=True), now=101.0)
    look.heed(RulesetChanged(None), now=101.0)

    assert look.due_at == inf


def test_one_look_is_for_all_that_happens_until_then() -> None:
    look = SecondLook()
    look.note([AddRoute(ROUTE)], now=100.0)

    look.heed(RouteChanged(ROUTE, is_present=False), now=101.0)
    look.heed(RouteChanged(ROUTE, is_present=True), now=101.5)

    assert look.due_at == 101.0 + LOOK_S


def test_what_is_heard_after_a_look_has_begun_asks_for_another() -> None:
    look = SecondLook()
    look.note([AddRoute(ROUTE)], now=100.0)
    look.heed(RouteChanged(ROUTE, is_present=False), now=100.0)

    look.begin()
    assert look.due_at == inf
    look.heed(RouteChanged(ROUTE, is_present=True), now=103.0)

    assert look.due_at == 103.0 + LOOK_S


@pytest.mark.parametrize("since_s", [0.0, 0.5 * KEPT_S, 0.9 * KEPT_S])
def test_what_we_wrote_is_forgotten_after_a_while_but_not_before(since_s: float) -> None:
    look = SecondLook()
    look.note([AddRoute(ELSEWHERE)], now=100.0)
    look.note([AddRoute(ROUTE)], now=100.0 + since_s)

    look.note([], now=100.0 + since_s + 0.99 * KEPT_S)
    look.heed(RouteChanged(ROUTE, is_present=False), now=100.0 + since_s + 0.99 * KEPT_S)
    assert look.due_at < inf

    look.begin()
    for later in (2, 3):
        look.note([], now=100.0 + since_s + later * KEPT_S)
    look.heed(RouteChanged(ROUTE, is_present=False), now=100.0 + since_s + 3 * KEPT_S)
    assert look.due_at == inf
