"""install.sh: what it refuses before it does anything, and what a dry run says."""

import os
import subprocess
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parents[2]
INSTALL = CLONE / "install.sh"
ENSURE = CLONE / "bin" / "ensure"


def run(root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(INSTALL), "--root", str(root), *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("mode", [("--dry-run",), ()])
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--pool", "nonsense", "--pool nonsense: not an IPv4 address"),
        ("--pool", "fd00::/48", "not an IPv4 address"),
        ("--pool", "192.168.0/16", "not an IPv4 address"),
        ("--pool", "192.168.256.0/16", "not an IPv4 address"),
        ("--pool", "192.168.0.0", "the prefix length is missing"),
        ("--pool", "192.168.0.0/27", "must be 1 to 26"),
        ("--pool", "192.168.0.0/16/1", "must be 1 to 26"),
        ("--pool", "192.168.1.0/16", "bits beyond the prefix length are set"),
        (
            "--node-address",
            "10.10.7.20",
            "the prefix length is missing: say it as in 10.10.7.20/20",
        ),
        ("--node-address", "10.10.7.20/33", "must be 1 to 32"),
        ("--node-address", "node-0/20", "not an IPv4 address"),
    ],
)
def test_wrong_addresses_are_named_before_anything_is_done(
    tmp_path: Path, option: str, value: str, said: str, mode: tuple[str, ...]
) -> None:
    ran = run(tmp_path, "--node-address", "10.0.0.1/24", option, value, *mode)

    assert ran.returncode == 2
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pool", ["192.168.0.0/16", "10.128.0.0/9", "172.16.5.64/26"])
def test_dry_run_ends_by_saying_that_nothing_was_changed(tmp_path: Path, pool: str) -> None:
    ran = run(tmp_path, "--node-address", "10.0.0.1/24", "--pool", pool, "--dry-run")

    assert ran.returncode == 0
    assert f"would make the pool {pool}\n" in ran.stderr
    assert ran.stderr.splitlines()[-1] == "install.sh: nothing was changed"
    assert "done" not in ran.stderr
    assert not list(tmp_path.iterdir())


def test_dry_uninstall_lists_what_it_would_remove_and_keeps_it(tmp_path: Path) -> None:
    plugin = tmp_path / "opt/cni/bin/pycni"
    plugin.parent.mkdir(parents=True)
    plugin.touch()
    (tmp_path / "opt/pycni").mkdir()

    ran = run(tmp_path, "--uninstall", "--dry-run")

    assert ran.returncode == 0
    assert ran.stderr.splitlines() == [
        f"install.sh: would remove {plugin}",
        f"install.sh: would remove {tmp_path}/opt/pycni",
        "install.sh: nothing was changed",
    ]
    assert plugin.exists()


@pytest.mark.parametrize("words", [("--node-address", "10.0.0.1/24"), ("--uninstall",)])
def test_only_a_dry_run_needs_no_root(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    line = [str(INSTALL), *words]

    ran = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    dry = subprocess.run(
        [*line, "--dry-run"], capture_output=True, text=True, env=environment, check=False
    )

    assert (ran.returncode, "needs root" in ran.stderr) == (1, True)
    assert (dry.returncode, "needs root" in dry.stderr) == (0, False)


@pytest.mark.parametrize("words", [("--pol",), ("--pool",)])
def test_wrong_option_gets_one_line_and_a_way_on(tmp_path: Path, words: tuple[str, ...]) -> None:
    ran = run(tmp_path, *words)

    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
    assert "see install.sh --help" in ran.stderr


def test_dry_run_says_that_either_relay_may_be_installed(tmp_path: Path) -> None:
    ran = run(tmp_path, "--node-address", "10.0.0.1/24", "--dry-run")

    (line,) = [one for one in ran.stderr.splitlines() if "relay" in one]
    assert line == (
        f"install.sh: would compile the plugin's relay and write {tmp_path}/opt/cni/bin/pycni, or"
        f" if that fails write the one in Python, with"
        f" {tmp_path}/opt/cni/bin/pycni-relay.py"
    )


def test_ensure_has_help_and_names_what_there_is_not() -> None:
    asked, mistaken, empty = (
        subprocess.run([str(ENSURE), *words], capture_output=True, text=True, check=False)
        for words in (["--help"], ["nonsense"], [])
    )

    usage = "usage: bin/ensure uml | bpf | relay | cni-tools | runtimes"
    assert (asked.returncode, asked.stdout.splitlines()[0], asked.stderr) == (0, usage, "")
    assert (mistaken.returncode, mistaken.stdout) == (2, "")
    assert mistaken.stderr == "ensure: error: there is no nonsense: see bin/ensure --help\n"
    assert (empty.returncode, empty.stderr) == (2, asked.stdout)
