"""The relay as it lies on a disk: its other half, what is kept compiled, links, the engine."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cni.conftest import Relay, install


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
