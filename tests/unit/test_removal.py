"""What `install.sh --uninstall` asks of an installed pycnictl, and what becomes of refusals."""

import subprocess
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parents[2]
SCRIPT = """
set -eu
note() { echo "$*" >&2; }
prefix='' HOME_DIR=$2 CONFIG=$2/agent.yaml dry=$3
configured() { echo /run/there; }
act() { note "$1"; if $dry; then return 0; fi; shift; "$@"; }
. "$1/bin/removal.sh"
leave_network
clean_kernel
note end
"""


def uninstalled(tmp_path: Path, *, status: int | None, is_dry: bool = False) -> list[str]:
    """Return what is said where pycnictl ends with a status; None: it isn't installed."""
    if status is not None:
        program = tmp_path / "venv/bin/python"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\necho "$*"\nexit {status}\n')
        program.chmod(0o755)
    words = [str(CLONE), str(tmp_path), "true" if is_dry else "false"]
    ran = subprocess.run(
        ["sh", "-c", SCRIPT, "sh", *words], capture_output=True, text=True, check=True
    )
    assert ran.stdout == ""
    return ran.stderr.splitlines()


def test_a_node_leaves_and_is_cleaned(tmp_path: Path) -> None:
    assert uninstalled(tmp_path, status=0) == [
        "leave the network: withdraw this node's routes, give back its blocks",
        "-I -m pycni.ctl node leave --timeout 30 --run-dir /run/there",
        "remove our routes, tunnel and nftables table",
        f"-I -m pycni.ctl node clean --config {tmp_path}/agent.yaml",
        "end",
    ]


@pytest.mark.parametrize("status", [1, 2, 127])
def test_a_refusal_is_told_and_all_else_goes_on(tmp_path: Path, status: int) -> None:
    said = uninstalled(tmp_path, status=status)

    assert said[2].startswith("this node has not left, and is removed all the same: peers drop")
    assert said[5].startswith("some of that is left, until the next reboot or")
    assert said[6] == "end"


def test_a_dry_run_only_says_so(tmp_path: Path) -> None:
    assert len(uninstalled(tmp_path, status=1, is_dry=True)) == 3


def test_without_a_program_nothing_is_asked(tmp_path: Path) -> None:
    assert uninstalled(tmp_path, status=None) == ["end"]
