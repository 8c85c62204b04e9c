"""install.sh: what it refuses before it does anything, and what a dry run says."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.installing import AGENT, CLONE, INSTALL, NETWORK, installed, run

ENSURE = CLONE / "bin" / "ensure"


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
        ("--node-address6", "10.10.7.20/20", "not an IPv6 address: say it as in fd00:10::20/64"),
        ("--node-address6", "fd00:10::20", "the prefix length is missing"),
        ("--node-address6", "fd00:10::20/129", "must be 1 to 128"),
        ("--node-address6", "fd00:10::20/", "must be 1 to 128"),
        ("--node-address6", "fd00::10::20/64", "not an IPv6 address"),
        ("--node-address6", "fd00:12345::20/64", "not an IPv6 address"),
        ("--node-address6", "fd00:1:2:3:4:5:6/64", "not an IPv6 address"),
        ("--node-address6", "1:2:3:4::5:6:7:8/64", "not an IPv6 address"),
        ("--node-address6", "fe80::20/64", "link-local addresses serve neither nodes nor pods"),
        ("--pool6", "192.168.0.0/16", "not an IPv6 address: say it as in fd00:192:168::/112"),
        ("--pool6", "fd00:192:168::/123", "must be 1 to 122"),
        ("--pool6", "fd00:192:168::1/112", "bits beyond the prefix length are set"),
        ("--pool6", "fd00:192:168:8000::/48", "bits beyond the prefix length are set"),
        ("--network", 'pods"', "--network pods\": letters, digits, '_', '.' and '-' only"),
        ("--network", "-pods", "first a letter or digit"),
        ("--network", "", "--network needs a value"),
        ("--node-name", "Node_1", "--node-name Node_1: small letters, digits, '-' and '.' only"),
        ("--node-name", "node-", "first and last a letter or digit"),
        ("--node-name", "n" * 254, "first and last a letter or digit"),
        ("--root", "/nowhere/at/all", "--root /nowhere/at/all: make the directory above it first"),
    ],
)
def test_wrong_values_are_named_before_anything_is_done(
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


@pytest.mark.parametrize(
    ("pool6", "address6"),
    [
        ("fd00:192:168::/112", "fd00:10::20/64"),
        ("2001:db8::/32", "2001:DB8::1/128"),
        ("2001:db8:0:0:0:0:0:40/122", "1:2:3:4:5:6:7:8/64"),
        ("fd00::/8", "fd00::/64"),
    ],
)
def test_ipv6_is_taken_in_all_its_spellings(tmp_path: Path, pool6: str, address6: str) -> None:
    ran = run(
        tmp_path, "--node-address", "10.0.0.1/24", "--node-address6", address6,
        "--pool", "192.168.0.0/16", "--pool6", pool6, "--dry-run",
    )  # fmt: skip

    assert ran.returncode == 0, ran.stderr
    assert f"would make the pool {pool6}\n" in ran.stderr


FULL, SUBNET = (f"2: eth0 inet6 fd00:10::{rest} scope global" for rest in ("ffff/128", "20/64"))


@pytest.mark.parametrize(
    ("addresses", "status", "said"),
    [
        (f"{FULL}\n{SUBNET}", 0, "this node's IPv6 address is fd00:10::20/64"),
        (FULL, 1, "say --node-address6, such as fd00:10::20/64"),
        ("", 1, "say --node-address6, such as fd00:10::20/64"),
    ],
)
def test_ipv6_address_is_that_of_the_interface_with_the_default_route(
    tmp_path: Path, addresses: str, status: int, said: str
) -> None:
    (tmp_path / "ip").write_text(
        '#!/bin/sh\ncase "$*" in\n'
        "'-6 route show default') echo 'default via fe80::1 dev eth0 proto ra metric 1024' ;;\n"
        f"'-6 -o addr show dev eth0 '*-temporary*) echo '{addresses}' ;;\n"
        "esac\n"
    )
    (tmp_path / "ip").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ["--node-address", "10.0.0.1/24", "--node-address6", "auto", "--dry-run"]

    ran = subprocess.run(
        [str(INSTALL), *words], capture_output=True, text=True, env=environment, check=False
    )

    assert (ran.returncode, said in ran.stderr) == (status, True), ran.stderr


def test_an_address_that_a_method_finds_is_neither_guessed_nor_stated(tmp_path: Path) -> None:
    method = "ip_autodetection_method: interface=eth1\n"
    config, _ = installed(tmp_path, agent=f"node: build\n{method}", network=NETWORK)

    ran = run(tmp_path, "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert f"{config} stays as it is" in ran.stderr

    stated = run(tmp_path, "--dry-run", "--node-address", "10.0.0.1/24")
    assert stated.returncode == 1
    assert "says ip_autodetection_method: remove that to state an address" in stated.stderr


def test_calicos_network_may_stay_first_where_nothing_is_started(tmp_path: Path) -> None:
    directory = tmp_path / "etc/cni/net.d"
    directory.mkdir(parents=True)
    (directory / "10-calico.conflist").write_text("{}")
    words = ["--node-address", "10.0.0.1/24", "--dry-run"]

    ran = run(tmp_path, *words)
    assert ran.returncode == 0, ran.stderr
    assert "10-calico.conflist goes on, until  pycnictl migrate --from calico --yes" in ran.stderr

    (directory / "05-other.conf").write_text("{}")
    ran = run(tmp_path, *words)
    assert ran.returncode == 1
    assert "05-other.conf sorts before ours" in ran.stderr


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


def test_a_host_whose_name_is_no_nodes_is_asked_for_one(tmp_path: Path) -> None:
    (tmp_path / "hostname").write_text("#!/bin/sh\necho My_Host\n")
    (tmp_path / "hostname").chmod(0o755)
    line = [str(INSTALL), "--dry-run", "--node-address", "10.0.0.1/24"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    ran = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    named = subprocess.run(
        [*line, "--node-name", "my-host.example"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip

    assert ran.returncode == 1
    assert "this host's name, my_host, can't be a node's: say --node-name" in ran.stderr
    assert named.returncode == 0


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

    usage = "usage: bin/ensure THING [PROGRAM…]"
    assert (asked.returncode, asked.stdout.splitlines()[0], asked.stderr) == (0, usage, "")
    assert (mistaken.returncode, mistaken.stdout) == (2, "")
    assert mistaken.stderr == "ensure: error: there is no nonsense: see bin/ensure --help\n"
    assert (empty.returncode, empty.stderr) == (2, asked.stdout)


@pytest.mark.parametrize(
    "words", [(), ("--node-name", "build", "--node-address", "10.0.0.1/24", "--network", "pods")]
)
def test_what_was_configured_stays_when_it_is_installed_again(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    config, conflist = installed(tmp_path, agent=AGENT, network=NETWORK)

    ran = run(tmp_path, "--dry-run", *words)

    assert ran.returncode == 0, ran.stderr
    assert f"install.sh: {config} stays as it is\n" in ran.stderr
    assert f"install.sh: {conflist} stays as it is\n" in ran.stderr


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (("--node-name", "other"), "both"),
        (("--node-address", "10.0.0.2/24"), "agent"),
        (("--node-address6", "fd00::1/64"), "agent"),
        (("--network", "other"), "network"),
        (("--pool6", "fd00:192:168::/112"), "network"),
    ],
)
def test_an_option_changes_what_it_states(
    tmp_path: Path, words: tuple[str, ...], files: str
) -> None:
    config, conflist = installed(tmp_path, agent=AGENT, network=NETWORK)

    ran = run(tmp_path, "--dry-run", *words)

    assert (f"would write {config}\n" in ran.stderr) == (files in ("agent", "both"))
    assert (f"would write {conflist}\n" in ran.stderr) == (files in ("network", "both"))
    assert (f"would keep what was there as {conflist}.old" in ran.stderr) == (files != "agent")
    assert (config.read_text(), conflist.read_text()) == (AGENT, NETWORK)


def test_dry_run_does_not_promise_a_pool_where_there_may_be_one(tmp_path: Path) -> None:
    (tmp_path / "var/lib/pycni").mkdir(parents=True)
    (tmp_path / "var/lib/pycni/pycni.db").touch()

    ran = run(tmp_path, "--node-address", "10.0.0.1/24", "--pool", "10.0.0.0/16", "--dry-run")

    assert "would make the pool 10.0.0.0/16, unless there is one of its kind\n" in ran.stderr


def test_who_is_not_root_gets_the_whole_command_back(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    ran = subprocess.run(
        [str(INSTALL), "--pool", "10.0.0.0/16"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip

    assert ran.stderr.endswith("install.sh --pool 10.0.0.0/16\n")
