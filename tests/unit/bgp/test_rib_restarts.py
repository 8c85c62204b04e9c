"""The Adj-RIB-In through graceful restarts (RFC 4724): a peer's, ours, and those that fail."""

from math import inf

import pytest

from pycni.bgp.rib import MAX_RESTART_TIME_S, Rib
from pycni.model.bgp import Family, PeerDown, PeerUp, SpeakerUp
from tests.unit.bgp.ribs import (
    BLOCK,
    EOR_4,
    EOR_6,
    LOST,
    OTHER,
    A,
    announce,
    down,
    established,
    opened,
    path,
    shown,
    told,
)


def test_paths_of_a_peer_that_vanished_stay_as_stale() -> None:
    rib = established(path())

    touched = rib.feed(down(), now=10.0)

    assert touched == {BLOCK}
    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1 stale"]
    assert rib.next_deadline() == 100.0


def test_stale_paths_go_when_the_restart_time_is_over() -> None:
    rib = established(path())
    rib.feed(down(), now=10.0)

    early, late = rib.expire(now=99.9), rib.expire(now=100.0)

    assert (early, late) == (set(), {BLOCK})
    assert shown(rib) == []
    assert rib.next_deadline() == inf


def test_no_peer_is_waited_for_longer_than_our_limit() -> None:
    rib = established(path(), restart=4095)

    rib.feed(down(), now=0.0)

    assert rib.next_deadline() == MAX_RESTART_TIME_S


@pytest.mark.parametrize("restart", [90, None])
def test_a_notification_ends_everything_at_once(restart: int | None) -> None:
    rib = established(path(), restart=restart)

    touched = rib.feed(down(graceful=False), now=10.0)

    assert touched == {BLOCK}
    assert shown(rib) == []


def test_a_peer_without_graceful_restart_loses_its_paths_at_once() -> None:
    rib = established(path(), restart=None)

    rib.feed(down(), now=10.0)

    assert shown(rib) == []
    assert rib.next_deadline() == inf


def test_a_peer_without_paths_sets_no_timer() -> None:
    rib = established()

    rib.feed(down(), now=10.0)

    assert rib.next_deadline() == inf


def test_a_peer_that_kept_forwarding_keeps_its_stale_paths_until_end_of_rib() -> None:
    rib = established(path(), path("192.168.2.0/26"))
    rib.feed(down(), now=10.0)

    rib.feed(opened(), now=20.0)
    rib.feed(PeerUp(A), now=20.0)
    rib.feed(announce(path()), now=21.0)
    touched = rib.feed(EOR_4, now=22.0)

    assert touched == {OTHER}
    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1"]
    assert rib.next_deadline() == inf


def test_a_family_whose_forwarding_was_lost_goes_with_the_open() -> None:
    rib = established(path(), path("fd00:1::/122"))
    rib.feed(down(), now=10.0)

    touched = rib.feed(opened(preserved=frozenset({Family.IPV6})), now=20.0)

    assert touched == {BLOCK}
    assert shown(rib) == ["fd00:1::/122 from 10.0.0.1 stale"]


def test_a_peer_that_returns_without_graceful_restart_loses_its_stale_paths() -> None:
    rib = established(path())
    rib.feed(down(), now=10.0)

    touched = rib.feed(opened(restart=None), now=20.0)

    assert touched == {BLOCK}


def test_a_returned_peer_that_never_sends_end_of_rib_is_given_up() -> None:
    rib = established(path())
    rib.feed(down(), now=10.0)
    rib.feed(opened(), now=20.0)
    rib.feed(PeerUp(A), now=20.0)

    assert rib.next_deadline() == 20.0 + MAX_RESTART_TIME_S
    assert rib.expire(now=20.0 + MAX_RESTART_TIME_S) == {BLOCK}


def test_end_of_rib_of_one_family_leaves_the_stale_paths_of_the_other() -> None:
    rib = established(path(), path("fd00:1::/122"))
    rib.feed(down(), now=10.0)
    rib.feed(opened(), now=20.0)
    rib.feed(PeerUp(A), now=20.0)

    rib.feed(EOR_4, now=21.0)

    assert shown(rib) == ["fd00:1::/122 from 10.0.0.1 stale"]
    assert rib.next_deadline() == 20.0 + MAX_RESTART_TIME_S


def test_a_second_restart_ends_what_was_stale_since_the_first() -> None:
    rib = established(path(), path("192.168.2.0/26"))
    rib.feed(down(), now=10.0)
    rib.feed(opened(), now=20.0)
    rib.feed(PeerUp(A), now=20.0)
    rib.feed(announce(path()), now=21.0)

    touched = rib.feed(down(), now=22.0)

    assert touched == {BLOCK, OTHER}
    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1 stale"]


def test_a_session_that_ended_without_a_word_is_no_restart() -> None:
    # Of two connections that both ends make at once, each may tell of one that the other gives up.
    rib = established(path())
    rib.feed(down(), now=10.0)
    for now in (11.0, 12.0):
        for event in (opened(), PeerUp(A)):
            rib.feed(event, now=now)

        touched = rib.feed(down(), now=now)

        assert touched == {BLOCK}
        assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1 stale"]
        assert rib.next_deadline() == 100.0


def test_sessions_without_a_word_prolong_nothing() -> None:
    rib = established(path())
    rib.feed(down(), now=10.0)
    for event in (opened(), PeerUp(A)):
        rib.feed(event, now=90.0)

    touched = rib.feed(down(), now=100.0)

    assert touched == {BLOCK}
    assert shown(rib) == []


def test_failed_attempts_to_connect_do_not_prolong_the_wait() -> None:
    rib = established(path())
    rib.feed(down(), now=10.0)

    touched = rib.feed(down(graceful=False), now=50.0)

    assert touched == set()
    assert rib.next_deadline() == 100.0


def test_the_reason_of_the_last_end_is_remembered() -> None:
    rib = established()

    rib.feed(PeerDown(A, reason="notification received (6,2)", is_graceful=False), now=0.0)

    assert rib.peers[A].last_error == "notification received (6,2)"
    assert not rib.peers[A].is_up


def test_why_no_session_comes_up_is_remembered() -> None:
    rib = Rib()

    # A connection that only ends says nothing of a peer that was never there.
    rib.feed(PeerDown(A, reason="closing connection", is_graceful=True), now=0.0)
    assert A not in rib.peers

    for reason, kept in (
        ("notification sent (2,2)", "notification sent (2,2)"),
        ("closing connection", "notification sent (2,2)"),
        ("notification received (2,2)", "notification received (2,2)"),
    ):
        assert rib.feed(PeerDown(A, reason=reason, is_graceful=False), now=0.0) == set()
        assert rib.peers[A].last_error == kept


def test_an_end_without_a_word_is_remembered_until_there_is_more_to_say() -> None:
    rib = told(opened())

    rib.feed(PeerDown(A, reason="closing connection", is_graceful=True), now=0.0)

    assert rib.peers[A].last_error == "closing connection"


def test_our_own_restart_keeps_everything_as_stale() -> None:
    rib = established(path(), restart=None)

    touched = rib.feed(LOST, now=10.0)

    assert touched == {BLOCK}
    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1 stale"]
    assert rib.next_deadline() == 10.0 + MAX_RESTART_TIME_S


def test_after_our_own_restart_a_peer_need_not_have_preserved_anything() -> None:
    rib = established(path())
    rib.feed(LOST, now=10.0)
    rib.feed(SpeakerUp(), now=11.0)

    touched = rib.feed(opened(preserved=frozenset()), now=12.0)

    assert touched == set()
    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1 stale"]


def test_after_our_own_restart_end_of_rib_ends_the_wait() -> None:
    rib = established(path(), path("192.168.2.0/26"))
    rib.feed(LOST, now=10.0)
    for event in (opened(preserved=frozenset()), PeerUp(A), announce(path())):
        rib.feed(event, now=12.0)

    rib.feed(EOR_4, now=12.5)

    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1"]


def test_our_own_restart_leaves_a_peer_alone_that_was_down_already() -> None:
    rib = established(path())
    rib.feed(down(), now=10.0)

    touched = rib.feed(LOST, now=20.0)

    assert touched == set()
    assert rib.next_deadline() == 100.0


def test_a_peer_that_restarts_right_after_us_keeps_its_paths() -> None:
    rib = established(path())
    rib.feed(LOST, now=10.0)
    for event in (opened(), PeerUp(A)):
        rib.feed(event, now=11.0)

    touched = rib.feed(down(), now=12.0)

    assert touched == {BLOCK}
    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1 stale"]
    assert rib.next_deadline() == 12.0 + 90.0


def test_a_peer_that_restarts_twice_after_us_loses_what_it_did_not_repeat() -> None:
    rib = established(path())
    for event in (LOST, opened(), PeerUp(A), down(), opened(), PeerUp(A), EOR_6):
        rib.feed(event, now=10.0)

    touched = rib.feed(down(), now=12.0)

    assert touched == {BLOCK}
    assert shown(rib) == []


def test_a_peer_that_restarts_before_and_after_us_keeps_its_paths() -> None:
    rib = established(path())
    for event in (down(), LOST, opened(), PeerUp(A)):
        rib.feed(event, now=10.0)

    touched = rib.feed(down(), now=12.0)

    assert touched == {BLOCK}
    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1 stale"]
    assert rib.next_deadline() == 12.0 + 90.0


def test_a_peer_that_restarted_before_us_must_have_kept_forwarding() -> None:
    rib = established(path())
    for event in (down(), LOST):
        rib.feed(event, now=10.0)

    touched = rib.feed(opened(preserved=frozenset()), now=12.0)

    assert touched == {BLOCK}


def test_a_peer_whose_restart_has_ended_may_restart_again() -> None:
    rib = established(path())
    for event in (down(), opened(), PeerUp(A), announce(path()), EOR_4):
        rib.feed(event, now=10.0)

    rib.feed(down(), now=12.0)

    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1 stale"]


def test_a_peer_that_restarts_after_us_must_have_kept_forwarding() -> None:
    rib = established(path())
    for event in (LOST, opened(), PeerUp(A), down()):
        rib.feed(event, now=10.0)

    touched = rib.feed(opened(preserved=frozenset()), now=12.0)

    assert touched == {BLOCK}


def test_end_of_rib_of_one_family_leaves_our_own_restart_to_the_other() -> None:
    rib = established(path(), path("fd00:1::/122"))
    for event in (LOST, opened(), PeerUp(A), announce(path()), EOR_4):
        rib.feed(event, now=11.0)

    rib.feed(down(), now=12.0)

    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1 stale", "fd00:1::/122 from 10.0.0.1 stale"]
