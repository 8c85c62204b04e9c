"""A wire with our ExaBGP at one end, and BIRD 2 in namespaces of its own at the others."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from conftest import Namespace, link
from pycni.bgp.child import ChildSettings
from pycni.bgp.rib import Rib
from pycni.bgp.speaker import ExaBgpSpeaker
from pycni.model.bgp import AdjRibsOut, Advertisement, BgpEvent, Neighbour
from pycni.model.network import IPAddress

OWN, BIRD, SECOND = (ip_address(f"10.8.0.{n}") for n in (1, 2, 3))
BLOCKS = frozenset(
    {
        Advertisement(ip_network("192.168.1.0/26"), OWN),
        Advertisement(ip_network("192.168.1.64/26"), OWN),
    }
)
CONFIGURATION = """
router id {address};
protocol device {{}}
protocol static own4 {{ ipv4; route 192.168.10.0/26 blackhole; route 192.168.10.64/26 blackhole; }}
protocol static own6 {{ ipv6; route fd00:1::/122 blackhole; }}
protocol bgp agent {{
  local {address} as 64512; neighbor 10.8.0.1 as 64512;
  hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2;
  graceful restart on; graceful restart time 60;
  ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
  ipv6 {{ import all; export where source = RTS_STATIC; next hop self; }};
}}
"""
ANNOUNCED = {"192.168.10.0/26", "192.168.10.64/26", "fd00:1::/122"}


@dataclass
class Peer:
    """One BIRD in a namespace of its own."""

    namespace: Namespace
    address: IPAddress
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self, configuration: str = CONFIGURATION) -> None:
        path = self.directory / "bird.conf"
        path.write_text(configuration.format(address=self.address))
        with self.namespace.entered():
            self.process = subprocess.Popen(
                ["bird", "-f", "-c", "bird.conf", "-s", "bird.ctl", "-P", "bird.pid"],
                cwd=self.directory,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def birdc(self, words: str) -> str:
        command = ["birdc", "-s", "bird.ctl", *words.split()]
        ran = subprocess.run(
            command, cwd=self.directory, capture_output=True, text=True, check=False
        )
        return ran.stdout

    def learned(self) -> set[str]:
        """Return the prefixes that BIRD has of us."""
        lines = self.birdc("show route protocol agent").splitlines()
        return {line.split()[0] for line in lines if "/" in line.partition(" ")[0]}


@pytest.fixture
def wire(netns: Callable[[], Namespace]) -> tuple[Namespace, Namespace, Namespace]:
    """Connect our namespace and two for peers by a bridge."""
    if shutil.which("bird") is None:
        pytest.fail("BIRD is missing: run  apt-get install bird2")
    ours, one, two = netns(), netns(), netns()
    ours.sh("ip link add br0 type bridge && ip link set br0 up")
    for number, other in ((2, one), (3, two)):
        link(ours, f"port{number}", other, "eth0")
        ours.sh(f"ip link set port{number} master br0")
        other.sh(
            f"ip addr add 10.8.0.{number}/24 dev eth0"
            f" && ip addr add fd08::{number}/64 dev eth0 nodad"
        )
    ours.sh("ip addr add 10.8.0.1/24 dev br0 && ip addr add fd08::1/64 dev br0 nodad")
    return ours, one, two


@pytest.fixture
def bird(wire: tuple[Namespace, ...], tmp_path: Path) -> Iterator[Peer]:
    yield from _peer(wire[1], BIRD, tmp_path / "bird")


@pytest.fixture
def second(wire: tuple[Namespace, ...], tmp_path: Path) -> Iterator[Peer]:
    yield from _peer(wire[2], SECOND, tmp_path / "second")


def _peer(namespace: Namespace, address: IPAddress, directory: Path) -> Iterator[Peer]:
    directory.mkdir()
    made = Peer(namespace, address, directory)
    made.start()
    yield made
    made.kill()


@dataclass
class Us:
    """Our speaker, what it said, and the table that follows from it."""

    speaker: ExaBgpSpeaker
    run_dir: Path
    heard: list[BgpEvent] = field(default_factory=list)
    rib: Rib = field(default_factory=Rib)

    def configure(self, *peers: IPAddress, announce: frozenset[Advertisement] = BLOCKS) -> None:
        neighbours = [Neighbour(p, OWN, 64512, 64512, router_id=OWN) for p in peers]
        self.speaker.configure(neighbours=neighbours, advertisements=AdjRibsOut(announce))

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        async for event in self.speaker.events():
            self.heard.append(event)
            self.rib.feed(event, now=loop.time())

    def table(self, *, stale: bool = False) -> set[str]:
        found = (p for n in self.rib.prefixes() for p in self.rib.paths(n))
        return {str(p.nlri) for p in found if p.is_stale == stale}

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.heard)


async def until(condition: Callable[[], bool], *, within_s: float = 60) -> float:
    """Wait for a condition; return how long it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - it comes from other processes.
            await asyncio.sleep(0.02)
    return loop.time() - began


Story = Callable[[Us], Awaitable[None]]


@asynccontextmanager
async def speaking(run_dir: Path, user: str | None) -> AsyncIterator[Us]:
    speaker = ExaBgpSpeaker(ChildSettings(run_dir=run_dir, listen=(OWN,), user=user))
    us = Us(speaker, run_dir)
    tasks = [asyncio.create_task(speaker.run()), asyncio.create_task(us.listen())]
    try:
        yield us
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


Play = Callable[..., None]


@pytest.fixture
def play(wire: tuple[Namespace, ...], tmp_path: Path) -> Play:
    """Return a function that plays a story in our namespace, ExaBGP included."""

    def player(story: Story, *, user: str | None = None) -> None:
        run_dir = make_run_dir(tmp_path)

        async def main() -> None:
            async with speaking(run_dir, user) as us:
                await story(us)

        with wire[0].entered():
            asyncio.run(main())

    return player


def make_run_dir(above: Path) -> Path:
    """Make a directory to which another user can pass."""
    made = directory = above / "run"
    made.mkdir()
    while directory != Path("/tmp"):
        directory.chmod(0o711)
        directory = directory.parent
    return made


async def establish(us: Us, *birds: Peer) -> None:
    us.configure(*(b.address for b in birds))
    await until(lambda: us.table() == ANNOUNCED)
    for one in birds:
        await until(lambda one=one: len(one.learned()) == len(BLOCKS))  # type: ignore[misc]  # bound now
