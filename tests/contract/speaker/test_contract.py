"""One suite for both speakers: two of a kind face each other, and say what happens."""

import asyncio
import signal
from pathlib import Path

import pytest

from pycni.bgp.child import MAX_LOG
from pycni.bgp.speaker import ExaBgpSpeaker
from pycni.model.bgp import (
    BgpEvent,
    EndOfRib,
    Family,
    PathsChanged,
    PeerDown,
    PeerOpened,
    PeerUp,
    SpeakerLost,
    SpeakerUp,
)
from tests.contract.speaker.sides import BLOCKS, ONE, TWO, Play, Side, establish, play

pytestmark = pytest.mark.timeout(120)

__all__ = ["play"]  # the fixture, for pytest to find


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


def test_who_withdraws_knows_when_its_peers_were_told(play: Play) -> None:
    """A peer that hasn't been told could still send what it is to send elsewhere."""

    async def story(one: Side, two: Side) -> None:
        await establish(one, two)
        await one.until(lambda: one.speaker.has_told(TWO))

        one.configure(TWO, announce=BLOCKS[:1])
        await one.until(lambda: one.speaker.has_told(TWO))
        async with asyncio.timeout(5):
            await two.until(lambda: two.paths() == set(BLOCKS[:1]))

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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_speaker_that_dies_is_missed_gracefully_and_comes_back(play: Play, number: int) -> None:
    async def story(one: Side, two: Side) -> None:
        await establish(one, two)
        mark, own = len(two.heard), len(one.heard)

        one.kill(number)
        await one.until_told(SpeakerLost)
        await one.until_told(SpeakerUp, times=2)
        # What the other had told it stays in use meanwhile.
        assert one.names()[own] == "SpeakerLost"
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
def test_another_password_is_taken_without_giving_up_what_was_learned(play: Play) -> None:
    """The two ends hear of it one after the other, as nodes of a mesh do."""

    async def story(one: Side, two: Side) -> None:
        one.configure(TWO, announce=BLOCKS, password="first")  # noqa: S106 - an example
        two.configure(ONE, password="first")  # noqa: S106 - an example
        for side in (one, two):
            await side.until_told(EndOfRib, times=2)
        marks = len(one.heard), len(two.heard)

        one.configure(TWO, announce=BLOCKS, password="second")  # noqa: S106 - an example
        await two.until(lambda: "PeerDown" in two.names()[marks[1] :])
        two.configure(ONE, password="second")  # noqa: S106 - an example
        for side, mark in zip((one, two), marks, strict=True):
            await side.until(
                lambda s=side, m=mark: s.names()[m:].count("EndOfRib") == 2,  # type: ignore[misc]  # bound early
                within_s=60,
            )

        for side, mark in zip((one, two), marks, strict=True):
            ends = [e for e in side.heard[mark:] if isinstance(e, PeerDown)]
            assert [e.reason for e in ends if not e.is_graceful] == []
        assert two.paths() == set(BLOCKS)

    play(story)


@pytest.mark.parametrize("play", ["real"], indirect=True)
def test_the_log_of_a_running_child_is_kept_short(play: Play, tmp_path: Path) -> None:
    async def story(one: Side, two: Side) -> None:
        await establish(one, two)
        log = tmp_path / str(ONE) / "exabgp.log"
        with log.open("ab") as writer:
            writer.write(b"a" * (MAX_LOG + 1))

        one.configure(TWO, announce=())

        async with asyncio.timeout(20):
            while log.stat().st_size > MAX_LOG:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.05)
        assert log.with_name("exabgp.log.1").stat().st_size == MAX_LOG

    play(story)
