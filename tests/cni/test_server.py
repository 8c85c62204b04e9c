"""The CNI socket: who may speak, what may be said, and what comes with it."""

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pycni.cni.main import Reply
from pycni.cni.protocol import Request
from pycni.cni.server import MAX_REQUEST, CniServer
from pycni.kernel.netns import is_netns
from pycni.unix import listen_private
from tests.cni.conftest import Relay

Story = Callable[["Agent"], Awaitable[None]]
VARIABLES = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c0ffee",
    "CNI_NETNS": "/proc/self/ns/net",
    "CNI_IFNAME": "eth0",
}
DOCUMENT = b'{"cniVersion": "1.1.0", "name": "net"}'


def message(stdin: bytes = DOCUMENT, **variables: str) -> bytes:
    merged = VARIABLES | variables
    environment = "".join(f"{k}={v}\0" for k, v in merged.items()).encode()
    return len(environment).to_bytes(4, "big") + environment + stdin


class Agent:
    """The real server around a handler that notes what it gets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.server = CniServer(self.handle)
        self.requests: list[tuple[Request, int | None]] = []
        self.is_netns: list[bool] = []
        self.gone: list[bool] = []
        self.hold: asyncio.Event | None = None

    async def handle(
        self, request: Request, netns_fd: int | None, is_gone: Callable[[], bool]
    ) -> Reply:
        self.requests.append((request, netns_fd))
        if netns_fd is not None:
            self.is_netns.append(is_netns(netns_fd))
        if self.hold is not None:
            await self.hold.wait()
        self.gone.append(is_gone())
        return Reply(0, b'{"done": true}')

    async def ask(self, data: bytes, *, fds: tuple[int, ...] = ()) -> bytes:
        return await asyncio.to_thread(ask, self.path, data, fds)


def ask(path: Path, data: bytes, fds: tuple[int, ...] = ()) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        try:
            if fds:
                sent = socket.send_fds(client, [data], fds)
                data = data[sent:]
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            parts = []
            while part := client.recv(65536):
                parts.append(part)
        except ConnectionError:
            return b""
        return b"".join(parts)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other threads and processes bring about."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it comes from outside of this loop.
            await asyncio.sleep(0.001)


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def play(tmp_path: Path, story: Story) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: the socket serves nobody else")

    async def main() -> None:
        agent = Agent(tmp_path / "run" / "cni.sock")
        before = descriptors()
        task = asyncio.create_task(agent.server.run(listen_private(agent.path)))
        try:
            await story(agent)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert descriptors() <= before, "a descriptor is left"

    asyncio.run(main())


def netns() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def refusal(answer: bytes) -> str:
    document = json.loads(answer[1:])
    assert answer[0] == 1
    assert document["code"] == 4
    text: str = document["msg"]
    return text


# --- what is served -----------------------------------------------------------------------------


def test_a_request_with_its_namespace_is_served(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        fd = netns()
        answer = await agent.ask(message(), fds=(fd,))
        os.close(fd)

        assert answer == b'\x00{"done": true}'
        assert agent.requests[0][0].container_id == "c0ffee"
        assert agent.is_netns == [True]
        assert agent.server.refused == 0

    play(tmp_path, story)


def test_a_del_needs_no_namespace(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        answer = await agent.ask(message(CNI_COMMAND="DEL"))

        assert answer[0] == 0
        assert agent.requests[0][1] is None

    play(tmp_path, story)


def test_a_bad_request_is_answered_without_the_handler(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        bad = json.loads((await agent.ask(message(b"{")))[1:])
        version = await agent.ask(message(CNI_COMMAND="VERSION"))

        assert bad["code"] == 6
        assert version[0] == 0
        assert agent.requests == []

    play(tmp_path, story)


def test_a_request_in_many_pieces_is_one_request(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        reader, writer = await asyncio.open_unix_connection(str(agent.path))
        for byte in message(CNI_COMMAND="DEL"):
            writer.write(bytes([byte]))
            await writer.drain()
        writer.write_eof()

        assert await reader.read() == b'\x00{"done": true}'
        writer.close()
        await writer.wait_closed()

    play(tmp_path, story)


def test_requests_are_served_side_by_side(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        agent.hold = asyncio.Event()
        tasks = [
            asyncio.create_task(agent.ask(message(CNI_COMMAND="DEL", CNI_CONTAINERID=f"c{n}")))
            for n in range(4)
        ]
        await until(lambda: len(agent.requests) == 4)
        agent.hold.set()

        assert await asyncio.gather(*tasks) == [b'\x00{"done": true}'] * 4

    play(tmp_path, story)


def test_a_caller_that_went_away_is_noticed(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        agent.hold = asyncio.Event()
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(agent.path))
        client.sendall(message(CNI_COMMAND="DEL"))
        client.shutdown(socket.SHUT_WR)
        await until(lambda: bool(agent.requests))

        client.close()
        agent.hold.set()
        await until(lambda: bool(agent.gone))

        assert agent.gone == [True]

    play(tmp_path, story)


@pytest.mark.parametrize("verb", ["DEL", "ADD"])
def test_both_relays_speak_its_language(tmp_path: Path, relay: Relay, verb: str) -> None:
    async def story(agent: Agent) -> None:
        document = {"cniVersion": "1.1.0", "name": "net", "run_dir": str(agent.path.parent)}

        variables = VARIABLES | {"CNI_COMMAND": verb}
        answer = await asyncio.to_thread(lambda: relay.run(document, timeout=20, **variables))

        assert (answer.status, answer.output) == (0, b'{"done": true}')
        assert agent.is_netns == [True]

    play(tmp_path, story)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_a_request_without_its_namespace_is_refused(tmp_path: Path, verb: str) -> None:
    async def story(agent: Agent) -> None:
        stdin = DOCUMENT[:-1] + b', "prevResult": {}}'

        text = refusal(await agent.ask(message(stdin, CNI_COMMAND=verb)))

        assert "can't be opened as a network namespace" in text
        assert (agent.requests, agent.server.refused) == ([], 1)

    play(tmp_path, story)


def test_two_descriptors_are_refused(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        fds = (netns(), netns())
        text = refusal(await agent.ask(message(), fds=fds))
        for fd in fds:
            os.close(fd)

        assert "came with 2 descriptors" in text
        assert (agent.requests, agent.server.refused) == ([], 1)

    play(tmp_path, story)


@pytest.mark.parametrize("path", ["/dev/null", "/proc/self/ns/mnt", "/proc", "/etc/passwd"])
def test_a_descriptor_of_something_else_is_refused(tmp_path: Path, path: str) -> None:
    async def story(agent: Agent) -> None:
        fd = os.open(path, os.O_RDONLY)
        text = refusal(await agent.ask(message(), fds=(fd,)))
        os.close(fd)

        assert text == "CNI_NETNS='/proc/self/ns/net' is no network namespace"
        assert (agent.requests, agent.server.refused) == ([], 1)

    play(tmp_path, story)


def test_a_del_is_served_though_its_namespace_is_only_a_file_by_now(tmp_path: Path) -> None:
    """What is left of a namespace that was unmounted is no reason to keep a pod terminating."""

    async def story(agent: Agent) -> None:
        fd = os.open("/etc/passwd", os.O_RDONLY)
        await agent.ask(message(CNI_COMMAND="DEL"), fds=(fd,))
        os.close(fd)

        assert [request.command.value for request, _ in agent.requests] == ["DEL"]
        assert agent.server.refused == 0

    play(tmp_path, story)


def test_descriptors_that_come_one_by_one_are_counted_together(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        await asyncio.to_thread(send_one_by_one, agent.path, 40)
        await until(lambda: agent.server.refused == 1)
        assert agent.requests == []

    play(tmp_path, story)


def send_one_by_one(path: Path, count: int) -> None:
    """Send a descriptor with each byte, until nobody listens any more."""
    fd = netns()
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.connect(str(path))
        for _ in range(count):
            socket.send_fds(client, [b"x"], [fd])
            time.sleep(0.001)
    os.close(fd)


def test_a_heap_of_descriptors_is_refused_without_an_answer(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        fds = tuple(netns() for _ in range(20))
        answer = await agent.ask(message(), fds=fds)
        for fd in fds:
            os.close(fd)

        assert answer == b""
        assert (agent.requests, agent.server.refused) == ([], 1)

    play(tmp_path, story)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\x00", b"\x00\x00\x00\x05abc", b"\xff\xff\xff\xff" + b"x" * 100],
    ids=["nothing", "half-a-header", "short", "lying"],
)
def test_what_is_no_request_is_refused_without_an_answer(tmp_path: Path, data: bytes) -> None:
    async def story(agent: Agent) -> None:
        assert await agent.ask(data) == b""
        assert (agent.requests, agent.server.refused) == ([], 1)

    play(tmp_path, story)


def test_an_oversized_request_is_refused(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        assert await agent.ask(b"\x00\x00\x00\x00" + b"x" * (MAX_REQUEST + 1)) == b""
        assert (agent.requests, agent.server.refused) == ([], 1)

    play(tmp_path, story)


def as_nobody(path: Path) -> int:
    """Ask as another user; return the exit status: 0 answered, 1 not answered, 2 not let in."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            status = 0 if ask(path, message(CNI_COMMAND="DEL")) else 1
        except OSError:
            status = 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_another_user_does_not_get_to_the_socket(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        open_up(agent.path.parent.parent)

        assert await asyncio.to_thread(as_nobody, agent.path) == 2
        assert oct(agent.path.stat().st_mode & 0o777) == "0o600"

    play(tmp_path, story)


def test_another_user_who_got_there_is_refused(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        open_up(agent.path.parent)
        agent.path.chmod(0o666)

        assert await asyncio.to_thread(as_nobody, agent.path) == 1
        assert (agent.requests, agent.server.refused) == ([], 1)

    play(tmp_path, story)


def open_up(directory: Path) -> None:
    """Let everybody pass through a directory and those above it, as far as they are the test's."""
    while directory != Path("/tmp"):
        directory.chmod(0o755)
        directory = directory.parent


# --- its place ----------------------------------------------------------------------------------


def test_the_place_of_a_dead_agent_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run" / "cni.sock"
    listen_private(path).close()

    async def story(agent: Agent) -> None:
        assert (await agent.ask(message(CNI_COMMAND="DEL")))[0] == 0

    play(tmp_path, story)


def test_requests_that_run_at_the_end_are_finished(tmp_path: Path) -> None:
    async def main() -> None:
        agent = Agent(tmp_path / "run" / "cni.sock")
        agent.hold = asyncio.Event()
        server = asyncio.create_task(agent.server.run(listen_private(agent.path)))
        asking = asyncio.create_task(agent.ask(message(CNI_COMMAND="DEL")))
        await until(lambda: bool(agent.requests))

        server.cancel()
        agent.hold.set()
        await asyncio.gather(server, return_exceptions=True)

        assert await asking == b'\x00{"done": true}'

    if os.geteuid() != 0:
        pytest.skip("needs root: the socket serves nobody else")
    asyncio.run(main())
