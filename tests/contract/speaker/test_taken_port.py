"""Another program has the port that sessions are to be accepted on."""

import os
import signal
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from pycni.model.bgp import PeerUp, SpeakerLost, SpeakerUp
from pycni.model.network import IPAddress
from tests.contract.speaker.test_addresses import ONE, TWO, play, side, until

OTHERS = "cannot accept BGP sessions on 10.9.0.1, port 1179: another program has that port: "
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a network namespace"),
]


def occupy(address: IPAddress = ONE[0], port: int = 1179) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return socket.create_server((str(address), port), family=family)


def test_the_exabgp_that_works_stays_until_the_new_port_is_free(tmp_path: Path) -> None:
    async def story() -> None:
        async with side(tmp_path / "one", ONE) as one, side(tmp_path / "two", TWO) as two:
            one.configure(ONE, TWO)
            two.configure(TWO, ONE)
            await until(lambda: one.count(PeerUp) == 2)

            with occupy():
                one.speaker.listen_on(ONE, port=1179)
                await until(lambda: one.speaker.trouble != "")
                assert one.speaker.trouble.startswith(OTHERS)
                assert "sport = :1179" in one.speaker.trouble
                assert one.count(SpeakerLost) == 0
            two.configure(TWO, ONE, port=1179)
            await until(lambda: one.count(SpeakerUp) == 2)

            await until(lambda: one.speaker.trouble == "")
            assert one.count(SpeakerLost) == 1

    play(story, *ONE, *TWO)


def test_an_exabgp_that_ends_meanwhile_comes_back_where_it_was(tmp_path: Path) -> None:
    async def story() -> None:
        async with side(tmp_path / "one", ONE) as one, side(tmp_path / "two", TWO) as two:
            one.configure(ONE, TWO, port=1180)  # nobody listens there, so that two has to call
            two.configure(TWO, ONE)
            await until(lambda: one.count(PeerUp) == 2)

            with occupy():
                one.speaker.listen_on(ONE, port=1179)
                await until(lambda: one.speaker.trouble != "")
                assert one.speaker.pid is not None
                os.kill(one.speaker.pid, signal.SIGKILL)
                await until(lambda: one.count(PeerUp) == 4)

                assert one.speaker.counters.starts == 2
                assert one.speaker.trouble.startswith(OTHERS)

    play(story, *ONE, *TWO)


def test_one_that_cannot_listen_yet_is_not_started(tmp_path: Path) -> None:
    async def story() -> None:
        async with side(tmp_path / "one", ()) as one:
            with occupy():
                one.speaker.listen_on(ONE, port=1179)
                one.configure(ONE, TWO)
                await until(lambda: one.speaker.trouble != "")
            await until(lambda: one.count(SpeakerUp) == 1)

            assert (one.speaker.counters.starts, one.speaker.trouble) == (1, "")

    play(story, *ONE, *TWO)


def test_a_change_of_mind_ends_the_trouble(tmp_path: Path) -> None:
    async def story() -> None:
        async with side(tmp_path / "one", ONE) as one:
            await until(lambda: one.count(SpeakerUp) == 1)
            with occupy():
                one.speaker.listen_on(ONE, port=1179)
                await until(lambda: one.speaker.trouble != "")
                one.speaker.listen_on(ONE)
                await until(lambda: one.speaker.trouble == "")

            assert one.count(SpeakerLost) == 0

    play(story, *ONE, *TWO)


def test_our_own_exabgp_is_not_in_the_way(tmp_path: Path) -> None:
    anywhere = (ip_address("0.0.0.0"), ip_address("::"))

    async def story() -> None:
        async with side(tmp_path / "one", ONE) as one:
            await until(lambda: one.count(SpeakerUp) == 1)
            for number, addresses in enumerate((anywhere, ONE), start=2):
                one.speaker.listen_on(addresses)
                await until(lambda number=number: one.count(SpeakerUp) == number)  # type: ignore[misc]

                assert (one.speaker.counters.starts, one.speaker.trouble) == (number, "")

    play(story, *ONE, *TWO)
