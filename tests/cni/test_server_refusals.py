"""The CNI socket: who may not speak, and what is no request."""

import asyncio
import contextlib
import json
import os
import socket
import time
from pathlib import Path

import pytest

from pycni.cni.server import MAX_REQUEST
from tests.cni.noting_agent import DOCUMENT, NETNS, Agent, ask, message, opened, play, until


def refusal(answer: bytes) -> str:
    document = json.loads(answer[1:])
    assert answer[0] == 1
    assert document["code"] == 4
    text: str = document["msg"]
    return text


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
        with opened(NETNS, NETNS) as fds:
            text = refusal(await agent.ask(message(), fds=fds))

        assert "came with 2 descriptors" in text
        assert (agent.requests, agent.server.refused) == ([], 1)

    play(tmp_path, story)


@pytest.mark.parametrize("path", ["/dev/null", "/proc/self/ns/mnt", "/proc", "/etc/passwd"])
def test_a_descriptor_of_something_else_is_refused(tmp_path: Path, path: str) -> None:
    async def story(agent: Agent) -> None:
        with opened(path) as fds:
            text = refusal(await agent.ask(message(), fds=fds))

        assert text == "CNI_NETNS='/proc/self/ns/net' is no network namespace"
        assert (agent.requests, agent.server.refused) == ([], 1)

    play(tmp_path, story)


def test_descriptors_that_come_one_by_one_are_counted_together(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        await asyncio.to_thread(send_one_by_one, agent.path, 40)
        await until(lambda: agent.server.refused == 1)
        assert agent.requests == []

    play(tmp_path, story)


def send_one_by_one(path: Path, count: int) -> None:
    """Send a descriptor with each byte, until nobody listens any more."""
    with (
        opened(NETNS) as fds,
        socket.socket(socket.AF_UNIX) as client,
        contextlib.suppress(OSError),
    ):
        client.connect(str(path))
        for _ in range(count):
            socket.send_fds(client, [b"x"], fds)
            time.sleep(0.001)


def test_a_heap_of_descriptors_is_refused_without_an_answer(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        with opened(*[NETNS] * 20) as fds:
            answer = await agent.ask(message(), fds=fds)

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
