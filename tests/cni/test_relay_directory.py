"""Where the relay looks for an agent: both forms read the same out of any configuration."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.cni.conftest import Answer, Relay, ScriptedAgent


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
