"""Speakers that face each other, and say what happens, for the contract's tests."""

import asyncio
import inspect
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni.bgp.child import ChildSettings
from pycni.bgp.fake import FakeNetwork, FakeSpeaker
from pycni.bgp.speaker import ExaBgpSpeaker
from pycni.model.bgp import (
    AdjRibsOut,
    Advertisement,
    BgpEvent,
    EndOfRib,
    Family,
    Neighbour,
    PathsChanged,
)
from pycni.model.network import IPAddress
from tests.contract.kernel.conftest import fresh_namespace
from tests.waiting import until

ONE, TWO, THREE = (ip_address(f"10.9.0.{number}") for number in (1, 2, 3))
ADDRESSES = (ONE, TWO, THREE)
SIX = ip_address("fd09::1")
BLOCKS = ("192.168.1.0/26", "192.168.1.64/26")


@dataclass
class Side:
    """One speaker, and all that it has said."""

    address: IPAddress
    speaker: FakeSpeaker | ExaBgpSpeaker
    kill: Callable[..., None]
    heard: list[BgpEvent] = field(default_factory=list)

    def configure(
        self,
        *peers: IPAddress,
        announce: tuple[str, ...] = (),
        families: frozenset[Family] = frozenset(Family),
        particular: Mapping[IPAddress, tuple[str, ...]] | None = None,
        via: IPAddress | None = None,
        communities: frozenset[str] = frozenset(),
        password: str | None = None,
    ) -> None:
        """Say what is wanted; `particular` peers hear something else, `via` is the next hop."""
        neighbours = [
            Neighbour(
                p,
                self.address,
                64512,
                64512,
                router_id=self.address,
                families=families,
                password=password,
            )
            for p in peers
        ]

        def adverts(blocks: tuple[str, ...]) -> frozenset[Advertisement]:
            hops = ((b, SIX if ":" in b else via or self.address) for b in blocks)
            return frozenset(Advertisement(ip_network(b), hop, communities) for b, hop in hops)

        others = {peer: adverts(blocks) for peer, blocks in (particular or {}).items()}
        wanted = AdjRibsOut(adverts(announce), others)
        self.speaker.configure(neighbours=neighbours, advertisements=wanted)

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

    async def until(self, condition: Callable[[], bool], *, within_s: float = 40) -> None:
        await until(condition, within_s=within_s)

    async def until_told(self, *kinds: type, times: int = 1) -> None:
        names = [kind.__name__ for kind in kinds]
        await self.until(lambda: all(self.names().count(n) >= times for n in names))


@asynccontextmanager
async def fakes(_directory: Path, addresses: Sequence[IPAddress]) -> AsyncIterator[list[Side]]:
    network = FakeNetwork()
    sides = []
    for address in addresses:
        speaker = FakeSpeaker(network, address)

        def kill(_number: int = signal.SIGKILL, speaker: FakeSpeaker = speaker) -> None:
            network.kill(speaker.addresses[0])
            network.revive(speaker)

        sides.append(Side(address, speaker, kill))
    async with listening(sides):
        yield sides


@asynccontextmanager
async def real_ones(directory: Path, addresses: Sequence[IPAddress]) -> AsyncIterator[list[Side]]:
    sides, lives = [], []
    for address in addresses:
        run_dir = directory / str(address)
        run_dir.mkdir()
        speaker = ExaBgpSpeaker(ChildSettings(run_dir=run_dir, listen=(address,)))

        def kill(number: int = signal.SIGKILL, speaker: ExaBgpSpeaker = speaker) -> None:
            assert speaker.pid is not None
            os.kill(speaker.pid, number)

        sides.append(Side(address, speaker, kill))
        lives.append(asyncio.create_task(speaker.run()))
    try:
        async with listening(sides):
            yield sides
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


Play = Callable[[Callable[..., Awaitable[None]]], None]


@pytest.fixture(params=["fake", "real"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    """Return a function that plays a story with as many speakers, up to three, as it takes."""
    make = fakes if request.param == "fake" else real_ones

    def player(story: Callable[..., Awaitable[None]]) -> None:
        count = len(inspect.signature(story).parameters)

        async def main() -> None:
            async with make(tmp_path, ADDRESSES[:count]) as sides:
                await story(*sides)

        if request.param == "fake":
            asyncio.run(main())
            return
        if os.geteuid() != 0:
            pytest.skip("needs root: makes a network namespace")
        with fresh_namespace():
            commands = ["link set lo up", *(f"addr add {a} dev lo" for a in ADDRESSES)]
            for command in commands:
                subprocess.run(["ip", *command.split()], check=True)
            asyncio.run(main())

    return player


async def establish(one: Side, two: Side, *, announce: tuple[str, ...] = BLOCKS) -> None:
    one.configure(TWO, announce=announce)
    two.configure(ONE)
    for side in (one, two):
        await side.until_told(EndOfRib, times=2)
