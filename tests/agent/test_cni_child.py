"""The CNI server's process under the agent: it serves, comes back, and ends with the agent."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pycni.agent.cni_child import CniChild
from pycni.cni import service
from pycni.config import AgentConfig
from pycni.datastore import sqlite_file
from pycni.endpoints import FileEndpoints
from pycni.model.endpoints import EndpointKey, PendingRelease
from pycni.unix import listen_private
from tests.agent.own_node import needs_root
from tests.waiting import until

pytestmark = [needs_root, pytest.mark.timeout(60)]
STATUS = json.dumps({"cniVersion": "1.1.0", "name": "net", "type": "pycni"}).encode()


class World:
    """A child and what it reported."""

    def __init__(self, directory: Path) -> None:
        for name in ("run", "state"):
            (directory / name).mkdir()
        self.config = AgentConfig(
            node="node-0", run_dir=str(directory / "run"), state_dir=str(directory / "state")
        )
        self.socket = directory / "run" / "cni.sock"
        self.served: list[tuple[str, int]] = []
        self.events: Counter[str] = Counter()
        self.reports: list[tuple[str, str]] = []
        self.datastore = Path(self.config.datastore_place)
        self.datastore.parent.mkdir(exist_ok=True)
        sqlite_file.create_file(self.datastore)
        self.child = CniChild(
            self.config,
            node="node-0",
            datastore_identity=sqlite_file.identity(self.config.datastore_place),
            count=self.count,
            count_ipam=self.count_ipam,
            report=self.report,
        )

    def count(self, verb: str, *, status: int, seconds: float) -> None:
        assert 0 < seconds < 60
        self.served.append((verb, status))

    def count_ipam(self, event: str, number: int) -> None:
        self.events[event] += number

    def report(self, what: str, why: str) -> None:
        self.reports.append((what, why))

    async def status(self) -> int:
        await until(self.socket.exists)
        return await asyncio.to_thread(ask_status, self.socket)


def ask_status(path: Path) -> int:
    """Return the exit status of a STATUS request."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(40)
        client.connect(str(path))
        environment = b"CNI_COMMAND=STATUS\0"
        client.sendall(len(environment).to_bytes(4, "big") + environment + STATUS)
        client.shutdown(socket.SHUT_WR)
        return client.recv(1 << 16)[0]


def exists(pid: int) -> bool:
    """Tell whether a process runs (a dead one that nobody waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def play(directory: Path, story: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World(directory)
        task = asyncio.create_task(world.child.run())
        try:
            await story(world)
        finally:
            pid = world.child.pid
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert pid is None or not exists(pid)

    asyncio.run(main())


def test_requests_are_served_and_counted(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        assert await world.status() == 0  # it waited for the start
        assert world.child.is_serving
        await until(lambda: world.served)
        assert world.served == [("STATUS", 0)]
        assert ("cni", "") in world.reports
        assert oct(world.socket.stat().st_mode & 0o777) == "0o600"

    play(tmp_path, story)

    assert not (tmp_path / "run" / "cni.sock").exists()


def test_the_server_goes_before_others_and_the_agent_does_not(tmp_path: Path) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)  # the tests themselves may run under nice

    async def story(world: World) -> None:
        await world.status()
        assert world.child.pid is not None
        assert os.getpriority(os.PRIO_PROCESS, world.child.pid) == service.NICE < 0
        assert os.getpriority(os.PRIO_PROCESS, 0) == ours

    play(tmp_path, story)


def test_a_server_that_may_not_go_first_waits_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)

    service.go_first()


def test_refusals_are_counted_across_servers(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.status()
        await asyncio.to_thread(ask_nothing, world.socket)
        await until(lambda: world.child.refused == 1)
        os.kill(world.child.pid or 0, signal.SIGKILL)
        await world.status()
        await asyncio.to_thread(ask_nothing, world.socket)
        await until(lambda: world.child.refused == 2)

    play(tmp_path, story)


def ask_nothing(path: Path) -> None:
    """Send what is no request."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(40)
        client.connect(str(path))
        client.sendall(b"x")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_a_killed_server_comes_back_and_nothing_waits_in_vain(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        assert await world.status() == 0
        first = world.child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)

        assert [await world.status() for _ in range(3)] == [0, 0, 0]

        assert world.child.starts == 2
        assert world.child.pid not in (None, first)
        problem = ("cni", "the CNI server ended with status -9, starting it again")
        assert problem in world.reports
        assert world.reports.index(problem) < len(world.reports) - 1
        assert next(why for what, why in reversed(world.reports) if what == "cni") == ""

    play(tmp_path, story)


@pytest.mark.parametrize("damage", ["deleted", "replaced", "overwritten"])
def test_another_datastore_than_the_agents_is_refused_by_a_new_server_too(
    tmp_path: Path, damage: str
) -> None:
    async def story(world: World) -> None:
        assert await world.status() == 0
        path = world.datastore
        if damage == "overwritten":
            path.write_bytes(b"this is no datastore" * 1000)
        else:
            path.unlink()
        if damage == "replaced":
            sqlite_file.create_file(path)
        os.kill(world.child.pid or 0, signal.SIGKILL)

        verdict = await asyncio.to_thread(ask_add, world.socket)

        assert verdict["code"] in (5, 11, 50, 102), verdict
        assert str(path) in verdict["msg"]
        assert world.child.starts == 2
        assert path.exists() == (damage != "deleted")

    play(tmp_path, story)


def ask_add(path: Path) -> dict[str, Any]:
    """Return the refusal of an ADD into a namespace of its own."""
    document = json.dumps({"cniVersion": "1.1.0", "name": "net", "type": "pycni"}).encode()
    variables = {"COMMAND": "ADD", "CONTAINERID": "c", "IFNAME": "eth0", "NETNS": "/x"}
    environment = b"".join(f"CNI_{k}={v}\0".encode() for k, v in variables.items())
    with (
        socket.socket(socket.AF_UNIX) as client,
        subprocess.Popen(["unshare", "-n", "sleep", "60"]) as sleeper,
    ):
        home, path_inside = Path("/proc/self/ns/net"), Path(f"/proc/{sleeper.pid}/ns/net")
        while path_inside.stat().st_ino == home.stat().st_ino:
            time.sleep(0.001)
        client.settimeout(40)
        client.connect(str(path))
        with path_inside.open("rb") as netns:
            message = len(environment).to_bytes(4, "big") + environment + document
            socket.send_fds(client, [message], [netns.fileno()])
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
        sleeper.kill()
    assert answer[0] == 1, answer
    refusal: dict[str, Any] = json.loads(answer[1:])
    return refusal


def test_a_hang_up_meant_for_the_agent_does_not_end_the_server(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        assert await world.status() == 0
        os.kill(world.child.pid or 0, signal.SIGHUP)
        assert await world.status() == 0
        assert world.child.starts == 1

    play(tmp_path, story)


def test_more_debts_than_a_packet_holds_are_summed_up(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        endpoints = FileEndpoints(
            run_dir=Path(world.config.run_dir), state_dir=Path(world.config.state_dir)
        )
        for number in range(400):
            key = EndpointKey("net", f"c{number}", "eth0")
            async with endpoints.lock(key, timeout_s=5):
                endpoints.journal(PendingRelease(key, handle_id="h" * 100))
        world.datastore.unlink()
        os.kill(world.child.pid or 0, signal.SIGKILL)

        await until(lambda: any("and 397 more" in why for _, why in world.reports))

    async def served_first(world: World) -> None:
        assert await world.status() == 0
        await story(world)

    play(tmp_path, served_first)


def test_a_start_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socketpair
    refusals = [OSError(24, "Too many open files"), OSError(24, "Too many open files")]

    def short_of_descriptors(*arguments: int) -> tuple[socket.socket, socket.socket]:
        if refusals:
            raise refusals.pop()
        return real(*arguments)

    async def story(world: World) -> None:
        monkeypatch.setattr("pycni.agent.cni_child.socket.socketpair", short_of_descriptors)
        os.kill(world.child.pid or 0, signal.SIGKILL)
        assert await world.status() == 0
        assert world.child.starts == 2
        assert refusals == []

    async def served_first(world: World) -> None:
        assert await world.status() == 0
        await story(world)

    play(tmp_path, served_first)


def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(tmp_path)
        first = asyncio.create_task(world.child.run())
        assert await world.status() == 0
        successor = listen_private(world.socket)

        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

        assert world.socket.exists()
        successor.close()

    asyncio.run(main())


def test_a_killed_agent_takes_its_server_with_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    code = (
        "import asyncio, sys\n"
        "from pycni.agent.cni_child import CniChild\n"
        "from pycni.config import AgentConfig\n"
        "config = AgentConfig(node='node-0', run_dir=sys.argv[1], state_dir=sys.argv[2])\n"
        "import os\n"
        "file = os.stat(config.datastore_place)\n"
        "child = CniChild(config, node='node-0', datastore_identity=(file.st_dev, file.st_ino),"
        " count=lambda *a, **k: None, count_ipam=lambda *a: None,"
        " report=lambda what, why: print(what, child.pid, flush=True))\n"
        "asyncio.run(child.run())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, world.config.run_dir, world.config.state_dir],
        stdout=subprocess.PIPE,
        text=True,
    ) as agent:
        assert agent.stdout is not None
        pid = next(int(line.split()[1]) for line in agent.stdout if line.startswith("cni "))
        assert ask_status(world.socket) == 0
        assert exists(pid)

        agent.kill()

        deadline = time.monotonic() + 40
        while exists(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not exists(pid)
