"""The CNI socket: what is served, and how it begins and ends."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from pycni.cni.main import Reply
from pycni.cni.server import CniServer
from pycni.unix import listen_private
from tests.cni.conftest import Relay
from tests.cni.noting_agent import NETNS, VARIABLES, Agent, message, need_root, opened, play, until


def test_a_request_with_its_namespace_is_served(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        with opened(NETNS) as fds:
            answer = await agent.ask(message(), fds=fds)

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


def test_a_del_is_served_though_its_namespace_is_only_a_file_by_now(tmp_path: Path) -> None:
    """What is left of a namespace that was unmounted is no reason to keep a pod terminating."""

    async def story(agent: Agent) -> None:
        with opened("/etc/passwd") as fds:
            await agent.ask(message(CNI_COMMAND="DEL"), fds=fds)

        assert [request.command.value for request, _ in agent.requests] == ["DEL"]
        assert agent.server.refused == 0

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

    need_root()
    asyncio.run(main())


def test_requests_that_run_on_too_long_at_the_end_are_cancelled_and_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pycni.cni.server.FINISH_TIMEOUT_S", 0.2)
    begun: list[bool] = []
    undone: list[bool] = []

    async def run_on(*_: object) -> Reply:
        begun.append(True)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            undone.append(True)
        raise AssertionError

    async def main() -> None:
        agent = Agent(tmp_path / "run" / "cni.sock")
        agent.server = CniServer(run_on)
        server = asyncio.create_task(agent.server.run(listen_private(agent.path)))
        asking = asyncio.create_task(agent.ask(message(CNI_COMMAND="DEL")))
        await until(lambda: bool(begun))
        assert agent.server.running == 1

        server.cancel()
        await asyncio.gather(server, return_exceptions=True)

        assert undone == [True]
        assert await asking == b""

    need_root()
    asyncio.run(main())
