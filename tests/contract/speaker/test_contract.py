"""One suite for both speakers: two of a kind face each other, and say what happens."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni.bgp.child import MAX_LOG, ChildSettings
from pycni.bgp.fake import FakeNetwork, FakeSpeaker
from pycni.bgp.speaker import ExaBgpSpeaker
from pycni.model.bgp import (
    Advertisement,
    BgpEvent,
    EndOfRib,
    Family,
    Neighbour,
    PathsChanged,
    PeerDown,
    PeerOpened,
    PeerUp,
    SpeakerLost,
    SpeakerUp,
)
from pycni.model.network import IPAddress
from tests.contract.kernel.conftest import fresh_namespace

ONE, TWO = ip_address("10.9.0.1"), ip_address("10.9.0.2")
SIX = ip_address("fd09::1")
BLOCKS = ("192.168.1.0/26", "192.168.1.64/26")


@dataclass
class Side:
    """One speaker, and all that it has said."""

    address: IPAddress
    speaker: FakeSpeaker | ExaBgpSpeaker
    kill: Callable[[], None]
    heard: list[BgpEvent] = field(default_factory=list)

    def configure(
        self,
        *peers: IPAddress,
        announce: tuple[str, ...] = (),
        families: frozenset[Family] = frozenset(Family),
    ) -> None:
        neighbours = [
            Neighbour(p, self.address, 64512, 64512, router_id=self.address, families=families)
            for p in peers
        ]
        adverts = frozenset(
            Advertisement(ip_network(b), SIX if ":" in b else self.address) for b in announce
        )
        self.speaker.configure(neighbours=neighbours, advertisements=adverts)

    async def listen(self) -> None:
        async for event in self.speaker.events():
            self.heard.append(event)

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.heard]

    def paths(self) -> set[str]:
        """Return what the peer announces, as these events tell it."""
        table: set[str] = set()
        for event in self.heard:
            if isinstance(event, PathsChanged):
                table -= {str(n) for n in event.withdrawn}
                table |= {str(p.nlri) for p in event.announced}
        return table

    async def until(self, condition: Callable[[], bool], *, within_s: float = 15) -> None:
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 - it comes from another process.
                await asyncio.sleep(0.01)

    async def until_told(self, *kinds: type, times: int = 1) -> None:
        names = [kind.__name__ for kind in kinds]
        await self.until(lambda: all(self.names().count(n) >= times for n in names))


Pair = tuple[Side, Side]


@asynccontextmanager
async def fakes(_directory: Path) -> AsyncIterator[Pair]:
    network = FakeNetwork()
    sides = []
    for address in (ONE, TWO):
        speaker = FakeSpeaker(network, address)

        def kill(speaker: FakeSpeaker = speaker) -> None:
            network.kill(speaker.addresses[0])
            network.revive(speaker)

        sides.append(Side(address, speaker, kill))
    async with listening(sides):
        yield sides[0], sides[1]


@asynccontextmanager
async def real_ones(directory: Path) -> AsyncIterator[Pair]:
    sides, lives = [], []
    for address in (ONE, TWO):
        run_dir = directory / str(address)
        run_dir.mkdir()
        speaker = ExaBgpSpeaker(ChildSettings(run_dir=run_dir, listen=(address,)))

        def kill(speaker: ExaBgpSpeaker = speaker) -> None:
            assert speaker.pid is not None
            os.kill(speaker.pid, signal.SIGKILL)

        sides.append(Side(address, speaker, kill))
        lives.append(asyncio.create_task(speaker.run()))
    try:
        async with listening(sides):
            yield sides[0], sides[1]
    finally:
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)


@asynccontextmanager
async def listening(sides: list[Side]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(side.listen()) for side in sides]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


Play = Callable[[Callable[[Side, Side], Awaitable[None]]], None]


@pytest.fixture(params=["fake", "real"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    """Return a function that plays a story with two speakers."""
    make = fakes if request.param == "fake" else real_ones

    def player(story: Callable[[Side, Side], Awaitable[None]]) -> None:
        async def main() -> None:
            async with make(tmp_path) as (one, two):
                await story(one, two)

        if request.param == "fake":
            asyncio.run(main())
            return
        if os.geteuid() != 0:
            pytest.skip("needs root: makes a network namespace")
        with fresh_namespace():
            for command in ("link set lo up", f"addr add {ONE} dev lo", f"addr add {TWO} dev lo"):
                subprocess.run(["ip", *command.split()], check=True)
            asyncio.run(main())

    return player


async def establish(one: Side, two: Side, *, announce: tuple[str, ...] = BLOCKS) -> None:
    one.configure(TWO, announce=announce)
    two.configure(ONE)
    for side in (one, two):
        await side.until_told(EndOfRib, times=2)


def test_a_peer_hears_everything_and_then_its_end(play: Play) -> None:
    async def story(one: Side, two: Side) -> None:
        await establish(one, two)

        order = [n for n in two.names() if n != "PeerDown"]
        opened = next(e for e in two.heard if isinstance(e, PeerOpened))
        announced = [p for e in two.heard if isinstance(e, PathsChanged) for p in e.announced]
        assert order[0] == "SpeakerUp"
        assert order.index("PeerOpened") < order.index("PeerUp") < order.index("PathsChanged")
        assert max(i for i, n in enumerate(order) if n == "PathsChanged") < order.index("EndOfRib")
        assert (opened.peer, opened.restart_time_s, opened.families) == (
            ONE,
            120,
            frozenset(Family),
        )
        assert {(str(p.nlri), p.next_hop, p.peer, p.is_stale) for p in announced} == {
            (block, ONE, ONE, False) for block in BLOCKS
        }
        assert {e.family for e in two.heard if isinstance(e, EndOfRib)} == set(Family)

    play(story)


def test_changes_are_carried(play: Play) -> None:
    async def story(one: Side, two: Side) -> None:
        await establish(one, two, announce=BLOCKS[:1])

        one.configure(TWO, announce=BLOCKS)
        await two.until(lambda: two.paths() == set(BLOCKS))
        one.configure(TWO, announce=BLOCKS[1:])
        await two.until(lambda: two.paths() == {BLOCKS[1]})

    play(story)


def test_a_session_carries_the_families_that_both_ends_speak(play: Play) -> None:
    async def story(one: Side, two: Side) -> None:
        only_four = frozenset({Family.IPV4})
        one.configure(TWO, announce=(*BLOCKS, "fd00::/122"), families=only_four)
        two.configure(ONE)
        await two.until(lambda: two.paths() == set(BLOCKS))
        await two.until_told(EndOfRib)

        one.configure(TWO, announce=(BLOCKS[1], "fd00::40/122"), families=only_four)
        await two.until(lambda: two.paths() == {BLOCKS[1]})

        opened = next(e for e in two.heard if isinstance(e, PeerOpened))
        assert opened.families == only_four
        assert {e.family for e in two.heard if isinstance(e, EndOfRib)} == only_four
        if isinstance(one.speaker, ExaBgpSpeaker):
            assert one.speaker.counters.commands_refused == 0

    play(story)


def test_the_same_again_changes_nothing(play: Play) -> None:
    async def story(one: Side, two: Side) -> None:
        await establish(one, two)
        before = (list(one.heard), list(two.heard))

        one.configure(TWO, announce=BLOCKS)
        await asyncio.sleep(0.3)

        assert (one.heard, two.heard) == before

    play(story)


def test_a_peer_that_is_no_longer_wanted_ends_for_good(play: Play) -> None:
    async def story(one: Side, two: Side) -> None:
        await establish(one, two)
        count = two.names().count("PeerDown")

        one.configure()
        await one.until(lambda: any(_is_final_end(e) for e in one.heard))
        await two.until(lambda: two.names().count("PeerDown") > count)

    play(story)


def test_a_peer_that_is_wanted_again_at_once_begins_anew(play: Play) -> None:
    """Whoever did not want it for a moment has forgotten what it knew of the session."""

    async def story(one: Side, two: Side) -> None:
        await establish(one, two)
        mark = len(one.heard)

        one.configure()
        one.configure(TWO, announce=BLOCKS)

        await one.until(lambda: any(isinstance(e, PeerUp) for e in one.heard[mark:]))
        await one.until(lambda: any(isinstance(e, EndOfRib) for e in one.heard[mark:]))

    play(story)


def _is_final_end(event: BgpEvent) -> bool:
    return isinstance(event, PeerDown) and not event.is_graceful


def test_a_speaker_that_dies_is_missed_gracefully_and_comes_back(play: Play) -> None:
    async def story(one: Side, two: Side) -> None:
        await establish(one, two)
        mark = len(two.heard)

        one.kill()
        await one.until_told(SpeakerLost)
        await one.until_told(SpeakerUp, times=2)
        await two.until(lambda: two.names().count("PeerUp") >= 2)
        await two.until(lambda: two.names()[mark:].count("EndOfRib") == 2)

        after = two.heard[mark:]
        ends = [e for e in after if isinstance(e, PeerDown)]
        announced = {str(p.nlri) for e in after if isinstance(e, PathsChanged) for p in e.announced}
        names = [type(e).__name__ for e in after]
        assert ends[0].is_graceful
        assert announced == set(BLOCKS)
        assert names.index("PathsChanged") < names.index("EndOfRib")
        assert PeerUp(ONE) in after

    play(story)


@pytest.mark.parametrize("play", ["real"], indirect=True)
def test_the_log_of_a_running_child_is_kept_short(play: Play, tmp_path: Path) -> None:
    async def story(one: Side, two: Side) -> None:
        await establish(one, two)
        log = tmp_path / str(ONE) / "exabgp.log"
        with log.open("ab") as writer:
            writer.write(b"a" * (MAX_LOG + 1))

        one.configure(TWO, announce=())

        async with asyncio.timeout(10):
            while log.stat().st_size > MAX_LOG:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.05)
        assert log.with_name("exabgp.log.1").stat().st_size == MAX_LOG

    play(story)
