"""What ExaBGP may do on a node, and what neither strangers nor a hostile password can."""

import asyncio
import contextlib
import os
import socket
import subprocess
from pathlib import Path

import pytest

from bgp_wire import (
    ANNOUNCED,
    BIRD,
    BLOCKS,
    OWN,
    SECOND,
    Peer,
    Play,
    Us,
    bird,
    establish,
    make_run_dir,
    play,
    until,
    wire,
)
from conftest import Namespace
from pycni.model.bgp import AdjRibsOut, EndOfRib, Neighbour, PathsChanged

__all__ = ["bird", "play", "wire"]  # the fixtures, for pytest to find

pytestmark = [pytest.mark.netns, pytest.mark.peers, pytest.mark.timeout(240)]

UNPRIVILEGED = 64512
CAP_NET_BIND_SERVICE = 1 << 10


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
from ipaddress import ip_address
from pathlib import Path
from pycni.bgp.child import ChildSettings
from pycni.bgp.speaker import ExaBgpSpeaker

async def main():
    directory, user, own = sys.argv[1:]
    settings = ChildSettings(run_dir=Path(directory), user=user, listen=(ip_address(own),))
    speaker = ExaBgpSpeaker(settings)
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
    run_dir = make_run_dir(tmp_path)
    root = Path(__file__).parents[1]
    python = root / ".venv" / "bin" / "python"
    with wire[0].entered():
        parent = subprocess.Popen(
            [python, "-c", PARENT, run_dir, str(UNPRIVILEGED), str(OWN)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(root), "PATH": os.environ["PATH"]},
        )
    assert parent.stdout is not None
    exabgp = int(parent.stdout.readline())
    assert status_of(exabgp)["Uid"][0] == str(UNPRIVILEGED)

    parent.kill()
    parent.wait()

    async def main() -> None:
        await until(lambda: has_ended(exabgp), within_s=60)

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
        stranger.settimeout(30)
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

        us.speaker.configure(neighbours=[evil, good], advertisements=AdjRibsOut(BLOCKS))
        await until(lambda: us.table() == ANNOUNCED)

        assert list(us.speaker.refused) == [SECOND]
        assert us.count(EndOfRib) == 2
        assert us.count(PathsChanged) >= 1

    play(story)
