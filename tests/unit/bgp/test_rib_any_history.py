"""The Adj-RIB-In through any history: it agrees with itself, and nothing is stale for ever."""

from dataclasses import replace

import hypothesis.strategies as st
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
)
from pycni.model.network import IPAddress, IPNetwork
from tests.unit.bgp.ribs import BLOCK, LOST, OTHER, SIX, A, B

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
