"""When somebody keeps undoing our work."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

from pycni.agent.repairs import (
    FIRST_PAUSE_S,
    LAST_PAUSE_S,
    TOLERATED_REPAIRS,
    WINDOW_S,
    Repairs,
    goal,
    subject,
)
from pycni.model.linklayer import FdbEntry
from pycni.model.network import (
    DeleteRoute,
    NextHop,
    ReplaceRoute,
    Route,
    RouteKey,
    RouteType,
    SetNeighbour,
)


def repair_until_pause(repairs: Repairs, *, now: float) -> int:
    count = 0
    while repairs.may_repair("route", now=now):
        count += 1
    return count


def test_bad_luck_is_repaired_at_once() -> None:
    repairs = Repairs()

    assert all(repairs.may_repair("route", now=1.0) for _ in range(TOLERATED_REPAIRS))
    assert repairs.fights(now=1.0) == []
    assert repairs.next_end(now=1.0) is None


def test_a_fight_makes_a_pause() -> None:
    repairs = Repairs()

    assert repair_until_pause(repairs, now=1.0) == TOLERATED_REPAIRS + 1
    assert repairs.fights(now=1.0) == ["route"]
    assert repairs.next_end(now=1.0) == 1.0 + FIRST_PAUSE_S


def test_who_changes_his_mind_repairs_nothing() -> None:
    repairs = Repairs()

    assert all(repairs.may_repair("route", number % 2, now=1.0) for number in range(1000))
    assert repairs.fights(now=1.0) == []


def test_a_new_mind_needs_no_pause() -> None:
    repairs = Repairs()
    repair_until_pause(repairs, now=1.0)

    assert repairs.may_repair("route", "another way", now=1.0)
    assert repairs.fights(now=1.0) == []


def test_other_things_are_repaired_meanwhile() -> None:
    repairs = Repairs()
    repair_until_pause(repairs, now=1.0)

    assert repairs.may_repair("link", now=1.0)


def test_after_the_pause_one_repair_is_tried_and_the_next_pause_is_longer() -> None:
    repairs = Repairs()
    now, pauses = 1.0, []
    repair_until_pause(repairs, now=now)
    for _ in range(8):
        end = repairs.next_end(now=now)
        assert end is not None
        pauses.append(end - now)
        now = end
        # Whoever fights against us undoes the repair as often as it is made.
        repair_until_pause(repairs, now=now)

    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert max(pauses) == LAST_PAUSE_S


def test_after_quiet_times_a_fight_begins_anew() -> None:
    repairs = Repairs()
    repair_until_pause(repairs, now=1.0)

    late = 1.0 + FIRST_PAUSE_S + WINDOW_S + 1

    assert repair_until_pause(repairs, now=late) == TOLERATED_REPAIRS + 1
    assert repairs.next_end(now=late) == late + FIRST_PAUSE_S


def test_slow_repairs_never_make_a_fight() -> None:
    repairs = Repairs()

    assert all(repairs.may_repair("route", now=float(t)) for t in range(1000))


def test_what_is_over_is_forgotten() -> None:
    repairs = Repairs()
    repair_until_pause(repairs, now=1.0)
    repairs.may_repair("link", now=5.0)

    repairs.forget_old(now=12.5)

    assert repairs.fights(now=1.5) == []
    assert repairs.next_end(now=1.5) is None


def test_a_fight_is_not_forgotten_while_it_may_go_on() -> None:
    repairs = Repairs()
    repair_until_pause(repairs, now=1.0)

    repairs.forget_old(now=11.5)

    assert repairs.fights(now=1.5) == ["route"]


def test_a_repair_that_was_put_off_does_not_count() -> None:
    repairs = Repairs()
    repairs.take_back("never tried")
    for number in range(1000):
        assert repairs.may_repair("link", now=number / 10)
        repairs.take_back("link")

    assert repairs.fights(now=100.0) == []
    repairs.forget_old(now=100.0)
    assert repairs.next_end(now=100.0) is None


def test_an_entry_that_is_to_lead_elsewhere_is_no_repair() -> None:
    there = FdbEntry("vxlan.calico", "66:00:00:00:00:02", ip_address("10.0.0.2"))
    moved = FdbEntry("vxlan.calico", "66:00:00:00:00:02", ip_address("10.0.0.3"))

    first, second = SetNeighbour(there), SetNeighbour(moved)

    assert subject(first) == subject(second) == ("fdb", "vxlan.calico", "66:00:00:00:00:02")
    assert goal(first, {}) != goal(second, {})


def test_what_goes_for_the_sake_of_a_wanted_route_is_of_one_fight_with_it() -> None:
    wanted = Route(RouteKey(ip_network("192.168.0.0/26")), RouteType.BLACKHOLE, protocol=12)
    old, more = (
        replace(wanted, type=RouteType.UNICAST, next_hops=frozenset({NextHop(name)}))
        for name in ("eth0", "eth1")
    )
    repairs = Repairs()

    for number in range(TOLERATED_REPAIRS):
        for op in (ReplaceRoute(old, wanted), DeleteRoute(more)):
            repairs.may_repair(subject(op), goal(op, {wanted.key: wanted}), now=number / 100)

    assert repairs.fights(now=TOLERATED_REPAIRS / 100) == [("route", wanted.key)]
