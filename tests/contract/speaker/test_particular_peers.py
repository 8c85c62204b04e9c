"""One suite for both speakers: peers that hear something else than the others."""

import asyncio

import pytest

from pycni.bgp.speaker import ExaBgpSpeaker
from pycni.model.bgp import EndOfRib, PathsChanged, PeerDown, SpeakerLost
from tests.contract.speaker.sides import BLOCKS, ONE, THREE, TWO, Play, Side, establish, play

pytestmark = pytest.mark.timeout(120)

__all__ = ["play"]  # the fixture, for pytest to find

FIRST, SECOND = BLOCKS


def announced(side: Side, since: int = 0) -> set[str]:
    """Everything that a side was ever told, though it may have been withdrawn since."""
    told = (e for e in side.heard[since:] if isinstance(e, PathsChanged))
    return {str(path.nlri) for event in told for path in event.announced}


def withdrawn(side: Side, since: int = 0) -> set[str]:
    told = (e for e in side.heard[since:] if isinstance(e, PathsChanged))
    return {str(nlri) for event in told for nlri in event.withdrawn}


def communities(side: Side) -> dict[str, frozenset[str]]:
    """The communities of each prefix, as they were announced last."""
    told = (e for e in side.heard if isinstance(e, PathsChanged))
    return {str(path.nlri): path.communities for event in told for path in event.announced}


def test_each_peer_hears_what_is_meant_for_it(play: Play) -> None:
    async def story(one: Side, two: Side, three: Side) -> None:
        two.configure(ONE)
        three.configure(ONE)
        one.configure(TWO, THREE, announce=BLOCKS, particular={TWO: (FIRST,)})
        for side in (two, three):
            await side.until_told(EndOfRib, times=2)

        assert (two.paths(), three.paths()) == ({FIRST}, set(BLOCKS))
        assert announced(two) == {FIRST}

    play(story)


def test_a_change_for_one_peer_is_none_for_the_others(play: Play) -> None:
    async def story(one: Side, two: Side, three: Side) -> None:
        two.configure(ONE)
        three.configure(ONE)
        one.configure(TWO, THREE, announce=BLOCKS)
        for side in (two, three):
            await side.until_told(EndOfRib, times=2)
        mark = len(three.heard)

        one.configure(TWO, THREE, announce=BLOCKS, particular={TWO: ()})
        await two.until(lambda: two.paths() == set())
        await one.until(lambda: one.speaker.has_told(TWO))
        one.configure(TWO, THREE, announce=BLOCKS, particular={TWO: (SECOND,)})
        await two.until(lambda: two.paths() == {SECOND})
        one.configure(TWO, THREE, announce=BLOCKS)
        await two.until(lambda: two.paths() == set(BLOCKS))

        assert three.heard[mark:] == []

    play(story)


def test_other_attributes_of_a_prefix_come_without_a_withdrawal(play: Play) -> None:
    async def story(one: Side, two: Side) -> None:
        await establish(one, two)
        mark = len(two.heard)

        one.configure(TWO, announce=BLOCKS, via=THREE)
        await two.until(lambda: announced(two, mark) == set(BLOCKS))
        paths = [p for e in two.heard[mark:] if isinstance(e, PathsChanged) for p in e.announced]

        assert {path.next_hop for path in paths} == {THREE}
        assert withdrawn(two, mark) == set()
        await one.until(lambda: one.speaker.has_told(TWO))

    play(story)


def test_communities_are_heard_and_change_without_a_withdrawal(play: Play) -> None:
    async def story(one: Side, two: Side) -> None:
        await establish(one, two)
        mark = len(two.heard)
        tags = frozenset({"100:6532", "65535:65281", "100:555:107", "4294967295:0:1"})

        for wanted in (tags, frozenset({"100:1"}), frozenset[str]()):
            one.configure(TWO, announce=BLOCKS, communities=wanted)
            await two.until(lambda w=wanted: communities(two) == dict.fromkeys(BLOCKS, w))  # type: ignore[misc]  # bound early

        assert withdrawn(two, mark) == set()
        if isinstance(one.speaker, ExaBgpSpeaker):
            assert one.speaker.counters.commands_refused == 0

    play(story)


def test_a_peer_that_comes_back_hears_no_more_than_it_may(play: Play) -> None:
    """What was announced in its last life must not come again, not even for a moment."""

    async def story(one: Side, two: Side) -> None:
        await establish(one, two)
        ends = two.names().count("PeerDown")
        one.configure()
        await two.until(lambda: two.names().count("PeerDown") > ends)
        mark = len(two.heard)

        one.configure(TWO, announce=BLOCKS, particular={TWO: (FIRST,)})
        await two.until(lambda: two.names()[mark:].count("EndOfRib") == 2)

        assert announced(two, mark) == {FIRST}

    play(story)


def test_a_particular_peer_that_is_wanted_no_more_hears_no_last_words(play: Play) -> None:
    """Who must not hear of a prefix doesn't because what says so is gone first."""

    async def story(one: Side, two: Side) -> None:
        two.configure(ONE)
        one.configure(TWO, announce=BLOCKS, particular={TWO: (FIRST,)})
        await two.until_told(EndOfRib, times=2)

        one.configure(announce=(*BLOCKS, "192.168.1.128/26"))
        await one.until(lambda: any(isinstance(e, PeerDown) for e in one.heard))
        await asyncio.sleep(0.3)

        assert announced(two) == {FIRST}

    play(story)


def test_a_speaker_that_died_tells_each_peer_what_is_meant_for_it(play: Play) -> None:
    async def story(one: Side, two: Side, three: Side) -> None:
        two.configure(ONE)
        three.configure(ONE)
        one.configure(TWO, THREE, announce=BLOCKS, particular={TWO: (FIRST,)})
        for side in (two, three):
            await side.until_told(EndOfRib, times=2)
        marks = len(two.heard), len(three.heard)

        one.kill()
        await one.until_told(SpeakerLost)
        for side, mark in zip((two, three), marks, strict=True):
            await side.until(lambda s=side, m=mark: s.names()[m:].count("EndOfRib") == 2)  # type: ignore[misc]  # bound early

        assert announced(two, marks[0]) == {FIRST}
        assert announced(three, marks[1]) == set(BLOCKS)

    play(story)
