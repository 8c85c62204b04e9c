"""Others are told of an end of a tunnel while its device serves, and not each time it blinks."""

import pytest

from pycni.agent.tunnel_ends import GRACE_S, TunnelEnds
from pycni.model.tunnels import TunnelKind

FOUR, SIX = TunnelKind.VXLAN, TunnelKind.VXLAN_V6


def ends(*looks: tuple[float, dict[TunnelKind, bool]]) -> TunnelEnds:
    made = TunnelEnds()
    for now, devices in looks:
        made.look_at(devices, now=now)
    return made


@pytest.mark.parametrize("is_told", [True, False])
def test_what_nobody_has_looked_at_stays_as_it_is(is_told: bool) -> None:
    made = ends((0.0, {SIX: False}))

    assert made.may_tell(FOUR, is_told=is_told, now=99.0) is is_told


@pytest.mark.parametrize("is_told", [True, False])
def test_a_device_that_serves_is_told(is_told: bool) -> None:
    assert ends((0.0, {FOUR: True})).may_tell(FOUR, is_told=is_told, now=0.0)


def test_a_device_that_is_away_is_told_no_more_after_a_while() -> None:
    made = ends((0.0, {FOUR: True}), (5.0, {FOUR: False}), (9.0, {FOUR: False}))

    assert made.deadline(now=9.0) == 5.0 + GRACE_S
    assert made.may_tell(FOUR, is_told=True, now=4.9 + GRACE_S)
    assert not made.may_tell(FOUR, is_told=False, now=5.0)
    assert made.complaint(now=4.9 + GRACE_S) == ""
    assert not made.may_tell(FOUR, is_told=True, now=5.0 + GRACE_S)
    assert made.complaint(now=5.0 + GRACE_S).startswith("vxlan.calico can't be used")
    assert made.deadline(now=5.0 + GRACE_S) is None


def test_a_device_that_comes_back_is_forgiven() -> None:
    made = ends((0.0, {FOUR: False}), (5.0, {FOUR: True}), (6.0, {FOUR: False}))

    assert made.deadline(now=6.0) == 6.0 + GRACE_S
    assert ends((0.0, {FOUR: False}), (5.0, {FOUR: True})).deadline(now=5.0) is None


def test_only_what_changes_is_news() -> None:
    made = TunnelEnds()

    assert made.look_at({FOUR: False}, now=0.0)
    assert not made.look_at({FOUR: False}, now=1.0)
    assert made.look_at({FOUR: True}, now=2.0)
    assert not made.look_at({FOUR: True}, now=3.0)
    assert made.look_at({}, now=4.0)
    assert not made.look_at({}, now=5.0)
