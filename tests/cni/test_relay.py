"""The relay, in both its forms: hand over, pass on, and become the engine when nobody answers."""

import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.cni.conftest import ENGINE, Answer, Relay, ScriptedAgent


def asked(agent: ScriptedAgent, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON.
    return {"cniVersion": "1.1.0", "name": "net", "run_dir": str(agent.run_dir), **more}


# --- with an agent ------------------------------------------------------------------------------


def test_the_agents_answer_is_passed_on(relay: Relay, agent: ScriptedAgent) -> None:
    agent.answer = b'\x00{"cniVersion": "1.1.0"}'

    answer = relay.run(asked(agent))

    assert answer == Answer(0, b'{"cniVersion": "1.1.0"}')


@pytest.mark.parametrize("status", [1, 7, 255])
def test_the_agents_status_is_passed_on(relay: Relay, agent: ScriptedAgent, status: int) -> None:
    agent.answer = bytes([status]) + b"{}"

    assert relay.run(asked(agent)).status == status


def test_success_without_output_is_no_silence(relay: Relay, agent: ScriptedAgent) -> None:
    agent.answer = b"\x00"

    assert relay.run(asked(agent)) == Answer(0, b"")


def test_the_agent_hears_variables_and_input_unchanged(relay: Relay, agent: ScriptedAgent) -> None:
    text = json.dumps(asked(agent, mtu=1400))

    relay.run(text, CNI_CONTAINERID="c0ffee", CNI_ARGS="K=V;X=", SECRET="hidden")  # noqa: S106 - no password.

    (heard,) = agent.heard
    assert sorted(heard.environment) == [
        b"CNI_ARGS=K=V;X=",
        b"CNI_COMMAND=ADD",
        b"CNI_CONTAINERID=c0ffee",
    ]
    assert heard.stdin == text.encode()
    assert heard.descriptors == []


def test_the_namespace_travels_as_a_descriptor(relay: Relay, agent: ScriptedAgent) -> None:
    own = "/proc/self/ns/net"

    relay.run(asked(agent), CNI_NETNS=own)

    (heard,) = agent.heard
    assert len(heard.descriptors) == 1
    assert heard.netns_inode == Path(own).stat().st_ino


@pytest.mark.parametrize("path", ["", "/nowhere/netns"])
def test_a_namespace_that_can_not_be_opened_is_left_to_the_agent(
    relay: Relay, agent: ScriptedAgent, path: str
) -> None:
    relay.run(asked(agent), CNI_NETNS=path)

    (heard,) = agent.heard
    assert heard.descriptors == []
    assert f"CNI_NETNS={path}".encode() in heard.environment


def test_a_fifo_in_the_namespaces_place_blocks_nobody(
    relay: Relay, agent: ScriptedAgent, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")

    assert relay.run(asked(agent), CNI_NETNS=str(tmp_path / "fifo"), timeout=30).status == 0


def test_a_large_request_and_a_large_answer_pass(relay: Relay, agent: ScriptedAgent) -> None:
    agent.answer = b"\x00" + b"y" * 3_000_000
    text = json.dumps(asked(agent, padding="x" * 900_000))

    answer = relay.run(text)

    assert agent.heard[0].stdin == text.encode()
    assert answer == Answer(0, b"y" * 3_000_000)


def test_bytes_that_are_no_text_pass_unchanged(relay: Relay, agent: ScriptedAgent) -> None:
    text = json.dumps(asked(agent)).encode()

    relay.run(text, CNI_ARGS="\udcff\udc80=x")

    assert b"CNI_ARGS=\xff\x80=x" in agent.heard[0].environment


# --- an agent in trouble ------------------------------------------------------------------------


def is_engine_with(answer: Answer, text: str) -> bool:
    return answer.status == 3 and answer.output.endswith(text.encode())


def test_an_agent_that_dies_before_its_answer_leaves_the_work_to_the_engine(
    relay: Relay, agent: ScriptedAgent
) -> None:
    agent.answer = b""
    text = json.dumps(asked(agent))

    assert is_engine_with(relay.run(text), text)


def test_an_agent_that_dies_in_the_middle_of_the_request_leaves_it_to_the_engine(
    relay: Relay, agent: ScriptedAgent
) -> None:
    def die(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    agent.before_reading = die
    text = json.dumps(asked(agent, padding="x" * 900_000))

    assert is_engine_with(relay.run(text), text)


def test_an_agent_that_does_not_answer_in_time_is_as_good_as_away(
    relay: Relay, agent: ScriptedAgent
) -> None:
    agent.answer = None
    text = json.dumps(asked(agent, agent_timeout=1))

    assert is_engine_with(relay.run(text, timeout=20), text)


def test_a_socket_that_nobody_serves_is_as_good_as_none(relay: Relay, tmp_path: Path) -> None:
    abandoned = socket.socket(socket.AF_UNIX)
    abandoned.bind(str(tmp_path / "cni.sock"))
    abandoned.close()
    text = json.dumps({"run_dir": str(tmp_path)})

    assert is_engine_with(relay.run(text), text)


# --- no agent -----------------------------------------------------------------------------------


def test_without_agent_the_engine_gets_environment_arguments_and_input(
    relay: Relay, tmp_path: Path
) -> None:
    text = json.dumps({"run_dir": str(tmp_path / "nothing")})

    answer = relay.run(text, "--flag", LEAKED="everything")

    assert answer.output == f"engine --flag CNI_COMMAND=ADD LEAKED=everything {text}".encode()
    assert answer.status == 3


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\x00\xfe", b"x" * 200_000])
def test_input_that_nobody_can_read_is_the_engines_to_refuse(
    relay: Relay, text: bytes, tmp_path: Path
) -> None:
    del tmp_path

    answer = relay.run(text)

    assert answer.is_engines
    assert answer.output.endswith(text)


def test_a_person_who_asks_for_help_reaches_the_engine(relay: Relay) -> None:
    answer = relay.run(b"ignored", "--help", CNI_COMMAND="(unset)")

    assert answer.output == b"engine --help CNI_COMMAND= LEAKED= "


def test_the_engine_of_these_tests_is_a_program() -> None:
    assert ENGINE.startswith("#!")
