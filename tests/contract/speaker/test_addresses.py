"""Our own addresses of sessions, which may come later than ExaBGP does."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni.bgp import sockets
from pycni.bgp.child import ChildSettings
from pycni.bgp.speaker import ExaBgpSpeaker
from pycni.model.bgp import (
    AdjRibsOut,
    Advertisement,
    BgpEvent,
    Family,
    Neighbour,
    PathsChanged,
    PeerUp,
    SpeakerLost,
    SpeakerUp,
)
from pycni.model.network import IPAddress
from tests import waiting
from tests.contract.kernel.conftest import fresh_namespace

until = partial(waiting.until, within_s=40)
ONE = (ip_address("10.9.0.1"), ip_address("fd09::1"))
TWO = (ip_address("10.9.0.2"), ip_address("fd09::2"))
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a network namespace"),
]


@dataclass
class Side:
    """One ExaBGP with an address of each IP version, and what it has said."""

    speaker: ExaBgpSpeaker
    heard: list[BgpEvent] = field(default_factory=list)

    def configure_six(self, own: IPAddress, peer: IPAddress, *, router_id: IPAddress) -> None:
        """State one session over IPv6 that carries both (RFC 8950)."""
        neighbour = Neighbour(peer, own, 64512, 64512, router_id, families=frozenset(Family))
        blocks = (ip_network("192.168.1.0/26"), ip_network("fd00:1::/122"))
        adverts = AdjRibsOut(frozenset(Advertisement(block, own) for block in blocks))
        self.speaker.configure(neighbours=[neighbour], advertisements=adverts)

    def configure(
        self, own: tuple[IPAddress, ...], peers: tuple[IPAddress, ...], *, port: int = 179
    ) -> None:
        """State a session for each IP version, as a node does towards another."""
        common = Neighbour(peers[0], own[0], 64512, 64512, router_id=own[0], port=port)
        neighbours = [
            replace(common, peer=peer, local=local, families=frozenset({family}))
            for local, peer, family in zip(own, peers, Family, strict=False)
        ]
        blocks = ("192.168.1.0/26", "fd00:1::/122")
        adverts = {Advertisement(ip_network(b), o) for b, o in zip(blocks, own, strict=False)}
        self.speaker.configure(neighbours=neighbours, advertisements=AdjRibsOut(frozenset(adverts)))

    async def listen(self) -> None:
        async for event in self.speaker.events():
            self.heard.append(event)

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.heard)

    def learned(self) -> set[tuple[str, str, str]]:
        """Return the prefixes heard, each with its next hop and the peer that told it."""
        told = [p for e in self.heard if isinstance(e, PathsChanged) for p in e.announced]
        return {(str(p.nlri), str(p.next_hop), str(p.peer)) for p in told}


@asynccontextmanager
async def side(directory: Path, own: tuple[IPAddress, ...]) -> AsyncIterator[Side]:
    directory.mkdir()  # noqa: ASYNC240 - the test's own
    made = Side(ExaBgpSpeaker(ChildSettings(run_dir=directory, listen=own)))
    tasks = [asyncio.create_task(made.speaker.run()), asyncio.create_task(made.listen())]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def router(called: list[int]) -> AsyncIterator[None]:
    """Note on which ports the other address is called."""

    def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.append(writer.get_extra_info("sockname")[1])
        writer.close()

    async with AsyncExitStack() as servers:
        for port in (179, 1179):
            server = await asyncio.start_server(note, str(TWO[0]), port)
            servers.callback(server.close)
        yield


def play(story: Callable[[], Awaitable[None]], *addresses: IPAddress) -> None:
    """Play a story in a namespace that has these addresses."""

    async def main() -> None:
        await story()

    with fresh_namespace():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for address in addresses:
            add(address)
        asyncio.run(main())


def add(address: IPAddress) -> None:
    subprocess.run(["ip", "addr", "add", str(address), "dev", "lo"], check=True)


def test_each_ip_version_has_a_session_that_carries_its_prefixes(tmp_path: Path) -> None:
    async def story() -> None:
        async with side(tmp_path / "one", ONE) as one, side(tmp_path / "two", TWO) as two:
            one.configure(ONE, TWO)
            two.configure(TWO, ONE)
            await until(lambda: len(two.learned()) == 2 and len(one.learned()) == 2)

            assert two.learned() == {
                ("192.168.1.0/26", "10.9.0.1", "10.9.0.1"),
                ("fd00:1::/122", "fd09::1", "fd09::1"),
            }
            assert one.speaker.counters.commands_refused == 0
            assert two.speaker.counters.lines_not_understood == 0

    play(story, *ONE, *TWO)


def test_ipv4_prefixes_go_by_ipv6_with_ipv6_next_hops(tmp_path: Path) -> None:
    async def story() -> None:
        async with side(tmp_path / "one", ONE) as one, side(tmp_path / "two", TWO) as two:
            one.configure_six(ONE[1], TWO[1], router_id=ONE[0])
            two.configure_six(TWO[1], ONE[1], router_id=TWO[0])
            await until(lambda: len(two.learned()) == 2 and len(one.learned()) == 2)

            assert two.learned() == {
                ("192.168.1.0/26", "fd09::1", "fd09::1"),
                ("fd00:1::/122", "fd09::1", "fd09::1"),
            }
            assert one.speaker.counters.commands_refused == 0
            assert two.speaker.counters.lines_not_understood == 0

    play(story, *ONE, *TWO)


def test_an_address_that_is_not_there_costs_the_other_version_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "ADDRESS_WAIT_S", 0.0)

    async def story() -> None:
        async with side(tmp_path / "one", ONE) as one, side(tmp_path / "two", TWO) as two:
            one.configure(ONE, TWO)
            two.configure(TWO, ONE)
            await until(lambda: two.count(PeerUp) == 1)
            assert one.count(SpeakerLost) == 0

            add(ONE[1])  # nobody could call it before, and two calls nobody from where it isn't
            await until(lambda: one.count(SpeakerUp) == 2)
            add(TWO[1])
            await until(lambda: PeerUp(ONE[1]) in two.heard and PeerUp(TWO[1]) in one.heard)

    play(story, *ONE[:1], *TWO[:1])


def test_a_readdressed_side_accepts_sessions_where_it_is_now(tmp_path: Path) -> None:
    moved = (ip_address("10.9.0.3"), ip_address("fd09::3"))

    async def story() -> None:
        async with side(tmp_path / "one", ()) as one, side(tmp_path / "two", TWO) as two:
            one.configure(ONE, TWO)
            two.configure(TWO, ONE)
            assert one.speaker.pid is None  # nowhere to listen

            one.speaker.listen_on(ONE)
            await until(lambda: len(two.learned()) == 2)
            one.speaker.listen_on(ONE[::-1])
            one.speaker.listen_on(())
            assert one.count(SpeakerLost) == 0

            one.speaker.listen_on(moved)
            one.configure(moved, TWO)
            two.configure(TWO, moved)
            await until(lambda: {PeerUp(peer) for peer in moved} <= set(two.heard))
            assert one.count(SpeakerLost) == 1

    play(story, *ONE, *TWO, *moved)


def test_sessions_are_accepted_on_the_port_that_is_stated(tmp_path: Path) -> None:
    async def story() -> None:
        async with side(tmp_path / "one", ONE) as one, side(tmp_path / "two", TWO) as two:
            one.speaker.listen_on(ONE, port=1179)
            one.configure(ONE, TWO, port=1180)  # nobody listens there, so that two has to call
            two.configure(TWO, ONE, port=1179)

            await until(lambda: len(two.learned()) == 2)

    play(story, *ONE, *TWO)


def test_a_peer_is_called_on_its_own_port_whatever_ours_is(tmp_path: Path) -> None:
    async def story() -> None:
        called: list[int] = []
        async with side(tmp_path / "one", ()) as one, router(called):
            one.speaker.listen_on(ONE[:1], port=1179)
            one.configure(ONE[:1], TWO[:1])
            await until(lambda: called != [])

        assert called[0] == 179

    play(story, *ONE, *TWO)
