"""The relay, in both its forms: hand over, pass on, and become the engine when nobody answers."""

import json
import os
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.cni.conftest import ENGINE, Answer, Relay, ScriptedAgent, install


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

    assert relay.run(asked(agent), CNI_NETNS=str(tmp_path / "fifo"), timeout=5).status == 0


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

    assert is_engine_with(relay.run(text, timeout=8), text)


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


@pytest.fixture
def python(request: pytest.FixtureRequest, tmp_path: Path) -> Relay:
    """Install the relay in Python alone."""
    return install(request, tmp_path, "python")


def test_the_relay_in_python_is_compiled_once(python: Relay) -> None:
    kept = python.engine.parent / "__pycache__"

    assert python.run().is_engines
    (compiled,) = kept.glob("pycni-relay.*.pyc")
    first = compiled.stat().st_ino
    assert python.run().is_engines

    assert compiled.stat().st_ino == first


@pytest.mark.parametrize("damage", ["cut", "older"])
def test_what_is_kept_of_another_source_is_made_anew(python: Relay, damage: str) -> None:
    assert python.run().is_engines
    (compiled,) = (python.engine.parent / "__pycache__").glob("pycni-relay.*.pyc")
    source = python.engine.with_name("pycni-relay.py")
    if damage == "cut":
        compiled.write_bytes(compiled.read_bytes()[:100])
    else:
        source.write_text(
            source.read_text().replace("def main():", "def main():\n    posix._exit(7)")
        )

    answer = python.run()

    assert answer.is_engines if damage == "cut" else answer.status == 7


def test_a_relay_without_its_other_half_says_so(python: Relay) -> None:
    python.engine.with_name("pycni-relay.py").unlink()

    answer = python.run()

    assert answer.status == 1
    assert json.loads(answer.output)["code"] == 5
    assert "run install.sh again" in json.loads(answer.output)["msg"]


def test_a_relay_may_be_called_by_a_symbolic_link(relay: Relay, tmp_path: Path) -> None:
    plugin = relay.engine.with_name("pycni")
    link = tmp_path / "elsewhere" / "pycni"
    link.parent.mkdir()
    link.symlink_to(plugin if plugin.is_absolute() else plugin.absolute())
    linked = Relay([*relay.command[:-1], str(link)], relay.engine)
    relative = tmp_path / "pycni-ipam"
    relative.symlink_to(f"{relay.engine.parent.name}/pycni")

    assert linked.run().is_engines
    assert Relay([*relay.command[:-1], str(relative)], relay.engine).run().is_engines


def test_nobody_else_may_write_what_is_kept_compiled(python: Relay) -> None:
    before = os.umask(0)
    try:
        assert python.run().is_engines
    finally:
        os.umask(before)

    kept = python.engine.parent / "__pycache__"
    assert kept.stat().st_mode & 0o022 == 0
    assert [file.stat().st_mode & 0o022 for file in kept.iterdir()] == [0]


@pytest.mark.parametrize("mode", [None, 0o644])
def test_a_missing_engine_is_an_error_that_names_the_next_step(
    relay: Relay, tmp_path: Path, mode: int | None
) -> None:
    relay.engine.unlink() if mode is None else relay.engine.chmod(mode)

    answer = relay.run({"run_dir": str(tmp_path)})

    assert answer.status == 1
    assert json.loads(answer.output) == {
        "cniVersion": "1.0.0",
        "code": 5,
        "msg": "no agent answers, and pycni-engine beside the plugin can't be started:"
        " run install.sh again",
    }


def test_a_relative_call_finds_the_engine_beside_it(relay: Relay) -> None:
    directory = relay.engine.parent
    command = [*relay.command[:-1], relay.command[-1].rpartition("/")[2]]
    if len(command) == 1:
        command = ["./pycni"]

    ran = subprocess.run(
        command,
        input=b"{}",
        capture_output=True,
        cwd=directory,
        env={"CNI_COMMAND": "ADD", "PATH": os.defpath},
        check=False,
    )

    assert ran.stdout.startswith(b"engine ")


# --- which agent --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        '{"run_dir": "PATH"}',
        ' \n\t{"run_dir":"PATH"}',
        '\ufeff{"run_dir": "PATH"}',
        '{"run_dir" \n:\t "PATH" }\n',
        '{"run_dir": "/elsewhere", "run_dir": "PATH"}',
        '{"run_dir": 7, "run_dir": "PATH"}',
        '{"a": {"run_dir": "/elsewhere"}, "run_dir": "PATH", "b": [{"run_dir": "/x"}]}',
        '{"a": "run_dir", "b": "\\"run_dir\\": \\"/x\\"", "run_dir": "PATH"}',
        '{"a\\\\": "}", "run_dir": "PATH"}',
        '{"run_\\u0064ir": "PATH"}',
        '{"run_dir": "ESCAPED"}',
        '{"a": DIGITS, "run_dir": "PATH"}',
    ],
)
def test_the_directory_is_found_however_it_is_written(
    relay: Relay, agent: ScriptedAgent, spelling: str
) -> None:
    path = str(agent.run_dir)
    escaped = "".join(f"\\u{ord(c):04X}" for c in path[:-1]) + path[-1].replace("/", "\\/")

    answer = relay.run(
        spelling.replace("PATH", path).replace("ESCAPED", escaped).replace("DIGITS", "9" * 5000)
    )

    assert answer == Answer(0, b"{}")


def test_a_directory_with_other_letters_is_found(relay: Relay, tmp_path: Path) -> None:
    other = ScriptedAgent(tmp_path / "Ünï-\U0001f600-'\"")
    other.start()
    try:
        answers = [
            relay.run(json.dumps({"run_dir": str(other.run_dir)}, ensure_ascii=ascii_only))
            for ascii_only in (True, False)
        ]
    finally:
        other.stop()

    assert answers == [Answer(0, b"{}")] * 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
keys = st.sampled_from(["run_dir", "run_dir ", "agent_timeout", "name", "", "\\", '"', "\u00fc"])
places = st.sampled_from(["A", "B", "C"])
members = st.lists(
    st.tuples(
        keys,
        places
        | json_values
        | st.sampled_from(["run", "", "/\0", "/\ud800", "/\ud83d\ude00", "/" * 5000, "//", 10**400])
        | st.dictionaries(keys, places),
    ),
    max_size=4,
)


def spell(pairs: list[tuple[str, Any]], *, ascii_only: bool, blanks: str) -> bytes:
    """Write an object whose keys may come twice, as json.dumps never would."""
    colon = f"{blanks}:{blanks}"
    body = ",".join(
        json.dumps(k, ensure_ascii=ascii_only) + colon + json.dumps(v, ensure_ascii=ascii_only)
        for k, v in pairs
    )
    try:
        return f"{blanks}{{{blanks}{body}{blanks}}}{blanks}".encode()
    except UnicodeEncodeError:  # half of a surrogate pair can only be written as an escape
        return spell(pairs, ascii_only=True, blanks=blanks)


@pytest.fixture
def places_of(tmp_path: Path) -> Any:  # noqa: ANN401 - a generator of paths.
    """Run agents A, B and C, each of which says who it is."""
    agents = {name: ScriptedAgent(tmp_path / name) for name in "ABC"}
    for name, one in agents.items():
        one.answer = b"\x00" + name.encode()
        one.start()
    yield {name: str(one.run_dir) for name, one in agents.items()}
    for one in agents.values():
        one.stop()


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(pairs=members, ascii_only=st.booleans(), blanks=st.sampled_from(["", " ", "\n\t\r "]))
@example(pairs=[("run_dir", "A"), ("run_dir", "B")], ascii_only=True, blanks="")
@example(pairs=[("run_dir", "A"), ("run_dir", None)], ascii_only=True, blanks=" ")
@example(pairs=[("run_dir", "A"), ("run_dir", "/\ud800")], ascii_only=True, blanks="")
def test_both_relays_ask_the_same_agent(
    relays: tuple[Relay, Relay],
    places_of: dict[str, str],
    pairs: list[tuple[str, Any]],
    ascii_only: bool,
    blanks: str,
) -> None:
    def placed(value: Any) -> Any:  # noqa: ANN401 - any JSON.
        if isinstance(value, dict):
            return {k: placed(v) for k, v in value.items()}
        return places_of.get(value, value) if isinstance(value, str) else value

    document = spell(
        [(key, placed(value)) for key, value in pairs], ascii_only=ascii_only, blanks=blanks
    )

    python, c = (relay.run(document) for relay in relays)

    assert (python.status, python.output) == (c.status, c.output)


@pytest.mark.parametrize(
    "value", ["0", "-1", "10000", '"1"', "1.0", "1e0", "null", "true", "[]", "99999999999999"]
)
def test_a_timeout_that_is_none_is_as_good_as_absent(
    relay: Relay, agent: ScriptedAgent, value: str
) -> None:
    answer = relay.run(f'{{"agent_timeout": {value}, "run_dir": "{agent.run_dir}"}}')

    assert answer == Answer(0, b"{}")


def test_the_engine_of_these_tests_is_a_program() -> None:
    assert ENGINE.startswith("#!")
