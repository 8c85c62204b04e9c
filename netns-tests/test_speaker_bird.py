"""ExaBGP, as we run and feed it, against BIRD 2 in another namespace."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
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
from pycni.model.bgp import (
    Advertisement,
    BgpEvent,
    EndOfRib,
    Neighbour,
    PathsChanged,
    PeerDown,
    PeerUp,
    SpeakerLost,
    SpeakerUp,
)
from pycni.model.network import IPAddress

pytestmark = [pytest.mark.netns, pytest.mark.peers, pytest.mark.timeout(90)]

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
UNPRIVILEGED = 64512
CAP_NET_BIND_SERVICE = 1 << 10


@dataclass
class Peer:
    """One BIRD in a namespace of its own."""

    namespace: Namespace
    address: IPAddress
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        configuration = self.directory / "bird.conf"
        configuration.write_text(CONFIGURATION.format(address=self.address))
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
        self.speaker.configure(neighbours=neighbours, advertisements=announce)

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


async def until(condition: Callable[[], bool], *, within_s: float = 20) -> float:
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
        run_dir = tmp_path / "run"
        run_dir.mkdir()
        let_through(run_dir)

        async def main() -> None:
            async with speaking(run_dir, user) as us:
                await story(us)

        with wire[0].entered():
            asyncio.run(main())

    return player


def let_through(directory: Path) -> None:
    """Let another user pass to a directory of the test's."""
    while directory != Path("/tmp"):
        directory.chmod(0o711)
        directory = directory.parent


async def establish(us: Us, *birds: Peer) -> None:
    us.configure(*(b.address for b in birds))
    await until(lambda: us.table() == ANNOUNCED)
    for one in birds:
        await until(lambda one=one: len(one.learned()) == len(BLOCKS))  # type: ignore[misc]  # bound now


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
        took = await until(lambda: us.count(PeerUp) == 2 and us.table() == ANNOUNCED)
        await asyncio.sleep(2)
        watching.cancel()

        assert lowest == len(BLOCKS), "BIRD dropped routes in between"
        assert took < 10
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
        await until(lambda: us.table() == ANNOUNCED, within_s=30)

        ends = [e for e in us.heard if isinstance(e, PeerDown)]
        assert [e for e in ends if not e.is_graceful] == []

    play(story)


def test_a_peer_that_says_goodbye_is_gone_at_once(play: Play, bird: Peer) -> None:
    async def story(us: Us) -> None:
        await establish(us, bird)

        bird.birdc("disable agent")
        await until(lambda: us.table() == us.table(stale=True) == set(), within_s=5)

    play(story)


def test_a_dead_link_is_noticed_by_the_hold_timer(
    play: Play, bird: Peer, wire: tuple[Namespace, ...]
) -> None:
    async def story(us: Us) -> None:
        await establish(us, bird)

        wire[0].sh("ip link set port2 down")
        took = await until(lambda: us.table() == us.table(stale=True) == set(), within_s=15)

        assert took < 11

    play(story)


def test_a_nudge_resets_the_back_off(play: Play, bird: Peer) -> None:
    async def story(us: Us) -> None:
        await establish(us, bird)
        bird.kill()
        await until(lambda: bool(us.table(stale=True)))
        await asyncio.sleep(14)  # ExaBGP waits longer and longer between its attempts.
        bird_listens_only(bird)

        us.speaker.nudge(BIRD)
        took = await until(lambda: us.table() == ANNOUNCED)

        assert took < 3

    play(story)


def bird_listens_only(bird: Peer) -> None:
    """Start BIRD anew so that it does not call us."""
    passive = CONFIGURATION.replace("hold time 9;", "hold time 9; passive;")
    (bird.directory / "bird.conf").write_text(passive.format(address=bird.address))
    with bird.namespace.entered():
        bird.process = subprocess.Popen(
            ["bird", "-f", "-c", "bird.conf", "-s", "bird.ctl", "-P", "bird.pid"],
            cwd=bird.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


# --- privileges ---------------------------------------------------------------------------------


def status_of(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def test_exabgp_runs_as_its_own_user_with_one_capability(play: Play, bird: Peer) -> None:
    async def story(us: Us) -> None:
        await establish(us, bird)
        assert us.speaker.pid is not None

        status = status_of(us.speaker.pid)

        assert status["Uid"] == status["Gid"] == [str(UNPRIVILEGED)] * 4
        assert status["Groups"] == []
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[name][0], 16) == CAP_NET_BIND_SERVICE, name
        assert status["NoNewPrivs"] == ["1"]
        configuration = us.run_dir / "exabgp" / "exabgp.conf"
        assert oct(configuration.stat().st_mode & 0o777) == "0o600"
        assert configuration.stat().st_uid == UNPRIVILEGED

    play(story, user=str(UNPRIVILEGED))


PARENT = """
import asyncio, sys
from pathlib import Path
from pycni.bgp.child import ChildSettings
from pycni.bgp.speaker import ExaBgpSpeaker

async def main():
    speaker = ExaBgpSpeaker(ChildSettings(run_dir=Path(sys.argv[1]), user=sys.argv[2]))
    asyncio.create_task(speaker.run())
    async for event in speaker.events():
        print(speaker.pid, flush=True)

asyncio.run(main())
"""


def has_ended(pid: int) -> bool:
    """Tell whether a process is over, even if nobody has asked for its end yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def test_exabgp_dies_with_its_parent(wire: tuple[Namespace, ...], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    let_through(run_dir)
    root = Path(__file__).parents[1]
    python = root / ".venv" / "bin" / "python"
    with wire[0].entered():
        parent = subprocess.Popen(
            [python, "-c", PARENT, run_dir, str(UNPRIVILEGED)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(root), "PATH": os.environ["PATH"]},
        )
    assert parent.stdout is not None
    exabgp = int(parent.stdout.readline())
    assert status_of(exabgp)["Uid"][0] == str(UNPRIVILEGED)

    parent.kill()
    parent.wait()

    async def main() -> None:
        await until(lambda: has_ended(exabgp), within_s=5)

    asyncio.run(main())
    parent.stdout.close()


def test_a_stranger_on_the_helpers_socket_is_refused(play: Play, bird: Peer) -> None:
    async def story(us: Us) -> None:
        path = us.run_dir / "exabgp" / "helper.sock"
        await until(path.exists)
        stranger = socket.socket(socket.AF_UNIX)
        stranger.connect(str(path))
        null = os.open("/dev/null", os.O_RDWR)
        socket.send_fds(stranger, [b"exabgp\n"], [null, null])
        os.close(null)

        await establish(us, bird)
        stranger.settimeout(5)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            answer = stranger.recv(1)

        assert answer == b""
        assert us.speaker.counters.connections_refused == 1
        assert us.speaker.counters.starts == 1
        assert not path.exists()
        stranger.close()

    play(story)


@pytest.mark.usefixtures("bird")
def test_one_bad_neighbour_does_not_cost_the_others_their_sessions(play: Play) -> None:
    async def story(us: Us) -> None:
        password = 'x"; } process evil { run /bin/sh'  # noqa: S105 - a hostile one.
        evil = Neighbour(SECOND, OWN, 64512, 64512, router_id=OWN, password=password)
        good = Neighbour(BIRD, OWN, 64512, 64512, router_id=OWN)

        us.speaker.configure(neighbours=[evil, good], advertisements=BLOCKS)
        await until(lambda: us.table() == ANNOUNCED)

        assert list(us.speaker.refused) == [SECOND]
        assert us.count(EndOfRib) == 2
        assert us.count(PathsChanged) >= 1

    play(story)
