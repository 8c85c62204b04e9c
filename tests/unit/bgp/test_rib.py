"""The Adj-RIB-In through graceful restarts (RFC 4724): a peer's, ours, and those that fail."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from math import inf

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pycni.bgp.rib import MAX_RESTART_TIME_S, Rib
from pycni.model.bgp import (
    BgpEvent,
    EndOfRib,
    Family,
    Path,
    PathsChanged,
    PeerDown,
    PeerOpened,
    PeerUp,
    SpeakerLost,
    SpeakerUp,
)
from pycni.model.network import IPAddress, IPNetwork

A, B = ip_address("10.0.0.1"), ip_address("10.0.0.2")
BLOCK, OTHER = ip_network("192.168.1.0/26"), ip_network("192.168.2.0/26")
SIX = ip_network("fd00:1::/122")
BOTH = frozenset({Family.IPV4, Family.IPV6})


def path(nlri: str = "192.168.1.0/26", peer: str = "10.0.0.1", *, med: int = 0) -> Path:
    return Path(ip_network(nlri), ip_address(peer), peer=ip_address(peer), med=med)


def opened(
    *, restart: int | None = 90, preserved: frozenset[Family] = BOTH, families: str = "46"
) -> PeerOpened:
    named = {f for f, digit in ((Family.IPV4, "4"), (Family.IPV6, "6")) if digit in families}
    return PeerOpened(A, restart_time_s=restart, preserved=preserved, families=frozenset(named))


def announce(*paths: Path) -> PathsChanged:
    return PathsChanged(A, announced=paths)


def down(*, graceful: bool = True) -> PeerDown:
    return PeerDown(A, reason="closing connection", is_graceful=graceful)


EOR_4, EOR_6 = EndOfRib(A, Family.IPV4), EndOfRib(A, Family.IPV6)
LOST = SpeakerLost("killed")


def told(*events: BgpEvent, now: float = 0.0) -> Rib:
    rib = Rib()
    for event in events:
        rib.feed(event, now=now)
    return rib


def established(*paths: Path, restart: int | None = 90) -> Rib:
    return told(opened(restart=restart), PeerUp(A), announce(*paths), EOR_4, EOR_6)


def shown(rib: Rib) -> list[str]:
    """Show the table as one would on a router's console."""
    return [
        f"{p.nlri} from {p.peer}{' stale' if p.is_stale else ''}"
        for nlri in sorted(rib.prefixes(), key=str)
        for p in rib.paths(nlri)
    ]


# --- updates ------------------------------------------------------------------------------------


def test_an_announced_prefix_is_in_the_table() -> None:
    rib = told(opened(), PeerUp(A))

    touched = rib.feed(announce(path()), now=0.0)

    assert touched == {BLOCK}
    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1"]


def test_the_same_announcement_again_changes_nothing() -> None:
    rib = established(path())

    assert rib.feed(announce(path()), now=0.0) == set()


def test_a_changed_announcement_replaces_the_former() -> None:
    rib = established(path())

    touched = rib.feed(announce(path(med=7)), now=0.0)

    assert touched == {BLOCK}
    assert [p.med for p in rib.paths(BLOCK)] == [7]


def test_a_withdrawn_prefix_is_gone() -> None:
    rib = established(path())

    touched = rib.feed(PathsChanged(A, withdrawn=(BLOCK, OTHER)), now=0.0)

    assert touched == {BLOCK}
    assert shown(rib) == []


def test_paths_of_several_peers_stand_in_the_order_of_their_addresses() -> None:
    rib = told(PathsChanged(B, announced=(path(peer="10.0.0.2"),)), announce(path()))

    assert shown(rib) == [
        "192.168.1.0/26 from 10.0.0.1",
        "192.168.1.0/26 from 10.0.0.2",
    ]


def test_a_withdrawal_leaves_the_other_peers_path() -> None:
    rib = told(PathsChanged(B, announced=(path(peer="10.0.0.2"),)), announce(path()))

    rib.feed(PathsChanged(A, withdrawn=(BLOCK,)), now=0.0)

    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.2"]


# --- the peer restarts --------------------------------------------------------------------------


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


# --- our own speaker restarts -------------------------------------------------------------------


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


# --- gates --------------------------------------------------------------------------------------


def test_a_peer_is_heard_once_each_family_of_its_session_ended() -> None:
    rib = told(opened(), PeerUp(A), EOR_4)
    assert not rib.has_heard_all([A])

    rib.feed(EOR_6, now=0.0)

    assert rib.has_heard_all([A])


def test_a_session_of_one_family_needs_one_end_of_rib() -> None:
    assert told(opened(families="4"), PeerUp(A), EOR_4).has_heard_all([A])


def test_an_unknown_peer_has_not_been_heard() -> None:
    assert not established().has_heard_all([A, B])


def test_nobody_to_hear_has_been_heard() -> None:
    assert Rib().has_heard_all([])


@pytest.mark.parametrize("end", [down(), LOST])
def test_a_lost_session_has_to_be_heard_again(end: BgpEvent) -> None:
    rib = established()

    rib.feed(end, now=1.0)
    rib.feed(opened(), now=2.0)
    rib.feed(PeerUp(A), now=2.0)

    assert not rib.has_heard_all([A])


# --- peers that are no longer wanted ------------------------------------------------------------


def test_a_forgotten_peer_takes_its_paths_along() -> None:
    rib = told(PathsChanged(B, announced=(path(peer="10.0.0.2"),)), announce(path()))

    touched = rib.forget(A)

    assert touched == {BLOCK}
    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.2"]
    assert A not in rib.peers


def test_forgetting_a_stranger_changes_nothing() -> None:
    assert Rib().forget(A) == set()


# --- any history --------------------------------------------------------------------------------

PEERS = st.sampled_from([A, B])
PREFIXES = st.sampled_from([BLOCK, OTHER, SIX])


class AnyHistory(RuleBasedStateMachine):
    """Feed events in any order; a plain model says which paths must and which may be there."""

    def __init__(self) -> None:
        super().__init__()
        self.rib = Rib()
        self.now = 0.0
        self.before: dict[IPNetwork, tuple[Path, ...]] = {}

    def feed(self, event: BgpEvent) -> None:
        self.check(self.rib.feed(event, now=self.now))

    def check(self, touched: set[IPNetwork]) -> None:
        after = {n: self.rib.paths(n) for n in self.rib.prefixes()}
        changed = {
            n for n in after.keys() | self.before.keys() if after.get(n) != self.before.get(n)
        }
        assert changed <= touched, "a change was not told"
        self.before = dict(after)

    @rule(peer=PEERS, nlri=PREFIXES, med=st.integers(0, 1))
    def announces(self, peer: IPAddress, nlri: IPNetwork, med: int) -> None:
        one = Path(nlri, peer, peer=peer, med=med)
        self.feed(PathsChanged(peer, announced=(one,)))
        assert replace(one, is_stale=False) in self.rib.paths(one.nlri)

    @rule(peer=PEERS, nlri=PREFIXES)
    def withdraws(self, peer: IPAddress, nlri: IPNetwork) -> None:
        self.feed(PathsChanged(peer, withdrawn=(nlri,)))
        assert all(p.peer != peer for p in self.rib.paths(nlri))

    @rule(
        peer=PEERS,
        restart=st.none() | st.integers(0, 4095),
        preserved=st.frozensets(st.sampled_from(Family)),
        families=st.frozensets(st.sampled_from(Family), min_size=1),
    )
    def opens(
        self,
        peer: IPAddress,
        restart: int | None,
        preserved: frozenset[Family],
        families: frozenset[Family],
    ) -> None:
        self.feed(PeerOpened(peer, restart, preserved, families))

    @rule(peer=PEERS)
    def comes_up(self, peer: IPAddress) -> None:
        self.feed(PeerUp(peer))

    @rule(peer=PEERS, graceful=st.booleans())
    def goes_down(self, peer: IPAddress, *, graceful: bool) -> None:
        self.feed(PeerDown(peer, reason="x", is_graceful=graceful))

    @rule(peer=PEERS, family=st.sampled_from(Family))
    def ends(self, peer: IPAddress, family: Family) -> None:
        self.feed(EndOfRib(peer, family))
        ours = [p for n in self.rib.prefixes() for p in self.rib.paths(n) if p.peer == peer]
        assert not [p for p in ours if p.is_stale and Family.of(p.nlri) is family]

    @rule()
    def speaker_dies(self) -> None:
        self.feed(LOST)
        assert not any(p.is_up for p in self.rib.peers.values())

    @rule(seconds=st.floats(0, 200))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.check(self.rib.expire(now=self.now))
        assert self.rib.next_deadline() > self.now

    @rule(peer=PEERS)
    def forgets(self, peer: IPAddress) -> None:
        self.check(self.rib.forget(peer))

    @invariant()
    def both_tables_agree(self) -> None:
        by_peer = {(a, p.nlri): p for a, s in self.rib.peers.items() for p in s.paths.values()}
        by_prefix = {(p.peer, n): p for n in self.rib.prefixes() for p in self.rib.paths(n)}
        assert by_peer == by_prefix

    @invariant()
    def what_is_stale_has_an_end(self) -> None:
        for state in self.rib.peers.values():
            if any(p.is_stale for p in state.paths.values()):
                assert state.stale_until <= self.now + MAX_RESTART_TIME_S


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=100, stateful_step_count=30)
