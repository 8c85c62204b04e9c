"""ExaBGP, as we run and feed it, against BIRD 2 in another namespace."""

import asyncio
import os
import signal
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from bgp_wire import (
    ANNOUNCED,
    BIRD,
    BLOCKS,
    CONFIGURATION,
    SECOND,
    Peer,
    Play,
    Us,
    bird,
    establish,
    play,
    second,
    until,
    wire,
)
from conftest import Namespace
from pycni.model.bgp import PeerDown, PeerUp, SpeakerLost, SpeakerUp

__all__ = ["bird", "play", "second", "wire"]  # the fixtures, for pytest to find

pytestmark = [pytest.mark.netns, pytest.mark.peers, pytest.mark.timeout(240)]


def test_both_learn_what_the_other_announces(play: Play, bird: Peer) -> None:
    async def story(us: Us) -> None:
        await establish(us, bird)

        assert bird.learned() == {"192.168.1.0/26", "192.168.1.64/26"}
        hops = {str(p.next_hop) for n in us.rib.prefixes() for p in us.rib.paths(n)}
        assert hops == {"10.8.0.2", "fd08::2"}
        assert us.speaker.counters.lines_not_understood == 0
        assert us.speaker.counters.commands_refused == 0

    play(story)


def test_withdrawals_reach_both_sides(play: Play, bird: Peer) -> None:
    async def story(us: Us) -> None:
        await establish(us, bird)

        us.configure(BIRD, announce=frozenset(list(BLOCKS)[:1]))
        await until(lambda: len(bird.learned()) == 1)
        bird.birdc("disable own4")
        await until(lambda: us.table() == {"fd00:1::/122"})

        up = next(n for n, event in enumerate(us.heard) if isinstance(event, PeerUp))
        assert not [event for event in us.heard[up:] if isinstance(event, PeerDown)]

    play(story)


def test_killing_exabgp_costs_the_peer_no_route(play: Play, bird: Peer) -> None:
    async def story(us: Us) -> None:
        await establish(us, bird)
        assert us.speaker.pid is not None
        os.kill(us.speaker.pid, signal.SIGKILL)
        lowest = len(BLOCKS)

        async def watch() -> None:
            nonlocal lowest
            while True:
                lowest = min(lowest, len(bird.learned()))
                await asyncio.sleep(0.02)

        watching = asyncio.create_task(watch())
        await until(lambda: us.count(PeerUp) == 2 and us.table() == ANNOUNCED)
        await asyncio.sleep(2)
        watching.cancel()

        assert lowest == len(BLOCKS), "BIRD dropped routes in between"
        assert us.count(SpeakerLost) == 1
        assert us.count(SpeakerUp) == 2

    play(story)


def test_killing_the_helper_is_survived_without_a_lost_route(play: Play, bird: Peer) -> None:
    async def story(us: Us) -> None:
        await establish(us, bird)
        assert us.speaker.pid is not None
        (helper,) = children(us.speaker.pid)

        os.kill(helper, signal.SIGKILL)
        await asyncio.sleep(3)
        us.configure(BIRD, announce=frozenset(list(BLOCKS)[:1]))
        await until(lambda: len(bird.learned()) == 1)

        await until(lambda: us.table() == ANNOUNCED)

    play(story)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def test_a_new_neighbour_leaves_the_others_sessions_alone(
    play: Play, bird: Peer, second: Peer
) -> None:
    async def story(us: Us) -> None:
        await establish(us, bird)
        before = sum(isinstance(e, PeerUp) and e.peer == BIRD for e in us.heard)

        us.configure(BIRD, SECOND)
        await until(lambda: any(isinstance(e, PeerUp) and e.peer == SECOND for e in us.heard))
        await until(lambda: len(second.learned()) == len(BLOCKS))
        us.configure(BIRD)
        await until(lambda: any(isinstance(e, PeerDown) and e.peer == SECOND for e in us.heard))

        ups = sum(isinstance(e, PeerUp) and e.peer == BIRD for e in us.heard)
        assert (before, ups) == (1, 1)
        assert us.speaker.counters.starts == 1
        assert bird.learned() == {"192.168.1.0/26", "192.168.1.64/26"}

    play(story)


@pytest.mark.usefixtures("bird")
def test_removing_a_neighbour_that_is_away_restarts_nothing(play: Play) -> None:
    async def story(us: Us) -> None:
        us.configure(BIRD, ip_address("10.8.0.77"))
        await until(lambda: us.table() == ANNOUNCED)
        await asyncio.sleep(1)

        us.configure(BIRD)
        await asyncio.sleep(5)

        assert us.speaker.counters.starts == 1
        assert us.count(SpeakerLost) == 0

    play(story)


def test_a_peers_restart_keeps_its_routes_as_stale(play: Play, bird: Peer) -> None:
    async def story(us: Us) -> None:
        await establish(us, bird)

        bird.kill()
        await until(lambda: us.table(stale=True) == ANNOUNCED)
        bird.start()
        await until(lambda: us.table() == ANNOUNCED, within_s=60)

        ends = [e for e in us.heard if isinstance(e, PeerDown)]
        assert [e for e in ends if not e.is_graceful] == []

    play(story)


def test_a_peer_that_says_goodbye_is_gone_at_once(play: Play, bird: Peer) -> None:
    async def story(us: Us) -> None:
        await establish(us, bird)

        bird.birdc("disable agent")
        await until(lambda: us.table() == us.table(stale=True) == set(), within_s=30)

    play(story)


def test_a_dead_link_is_noticed_by_the_hold_timer(
    play: Play, bird: Peer, wire: tuple[Namespace, ...]
) -> None:
    async def story(us: Us) -> None:
        await establish(us, bird)

        wire[0].sh("ip link set port2 down")
        # The hold time is 9 s; TCP alone would wait for minutes.
        await until(lambda: us.table() == us.table(stale=True) == set(), within_s=30)

    play(story)


def test_a_nudge_resets_the_back_off(play: Play, bird: Peer) -> None:
    async def story(us: Us) -> None:
        await establish(us, bird)
        bird.kill()
        await until(lambda: bool(us.table(stale=True)))
        await asyncio.sleep(14)  # ExaBGP waits longer and longer between its attempts.
        bird_listens_only(bird)
        await until(lambda: listens(bird))

        us.speaker.nudge(BIRD)
        took = await until(lambda: us.table() == ANNOUNCED)

        assert took < 8, "by then it would have tried by itself"

    play(story)


def listens(bird: Peer) -> bool:
    """Tell whether anything accepts sessions where BIRD is to be; this process stays in place."""
    words = ["nsenter", f"--net={bird.namespace.path}", "ss", "-Hltn", "sport = :179"]
    return bool(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def bird_listens_only(bird: Peer) -> None:
    """Start BIRD anew so that it does not call us."""
    bird.start(CONFIGURATION.replace("hold time 9;", "hold time 9; passive;"))
