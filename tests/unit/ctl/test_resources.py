"""get, apply, delete and ipam on a real file, through the command line's parser."""

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import yaml

from pycni.ctl import ipam, resources
from pycni.ctl.output import is_colourful, print_table

Run = Callable[..., int]

POOL = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default}
spec: {cidr: 192.168.0.0/16, ipipMode: Always, natOutgoing: true}
"""
PEER = """
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: rack}
spec: {peerIP: 10.0.0.1, asNumber: 65001, password: hunter2}
"""
NODE = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-0}
spec: {bgp: {ipv4Address: 10.10.7.20/20}}
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "pycni.db"


@pytest.fixture
def run(database: Path) -> Run:
    """Return a function that runs a command line and returns its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--datastore")
    subparsers = parser.add_subparsers(required=True)
    resources.register(subparsers)
    ipam.register(subparsers)

    def main(*words: str) -> int:
        args = parser.parse_args(["--datastore", str(database), *words])
        code: int = args.func(args)
        return code

    return main


@pytest.fixture
def apply(run: Run, tmp_path: Path) -> Callable[[str], int]:
    def main(text: str) -> int:
        path = tmp_path / "file.yaml"
        path.write_text(text)
        return run("apply", "-f", str(path))

    return main


def test_apply_says_what_it_did(
    apply: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply(f"{POOL}---{PEER}") == 0
    assert apply(f"{POOL.replace('true', 'false')}---{PEER}") == 0

    assert capsys.readouterr().out.splitlines() == [
        "IPPool default created",
        "BGPPeer rack created",
        "IPPool default configured",
        "BGPPeer rack unchanged",
    ]


def test_apply_writes_nothing_of_a_file_with_a_mistake(
    run: Run, apply: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    clash = POOL.replace("name: default", "name: other")

    assert apply(f"{PEER}---{POOL}---{clash}") == 1
    assert "overlaps pool" in capsys.readouterr().err
    assert run("get", "peers") == 0
    assert capsys.readouterr().out == "NAME  PEER  PORT  AS  NODE  PASSWORD  FILTERS\n"


@pytest.mark.parametrize(
    "text",
    [
        """
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 10.0.0.1, asNumber: 1, password: {secretKeyRef: {name: a, key: b}}}
""",
        """
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeMeshPassword: {secretKeyRef: {name: a, key: b}}}
""",
    ],
)
def test_apply_refuses_a_clusters_secret_where_there_is_none(
    apply: Callable[[str], int], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply(text) == 1
    assert "secretKeyRef names a Secret of a cluster" in capsys.readouterr().err


def test_apply_says_what_is_without_effect_as_yet(
    apply: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {node: node-9, peerIP: 10.0.0.1, asNumber: 1, filters: [nope]}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: node.node-9}
spec: {listenPort: 1790}
"""
    assert apply(text) == 0
    assert [line for line in capsys.readouterr().err.splitlines() if "datastore" not in line] == [
        "note: BGPPeer tor: no Node is called node-9 (yet)",
        "note: BGPPeer tor: BGPFilter nope is not there: nothing is exchanged with the peer",
        "note: BGPConfiguration node.node-9: no Node is called node-9 (yet)",
    ]

    assert apply(f"{text}---{NODE.replace('node-0', 'node-9')}") == 0
    assert capsys.readouterr().err.count("note: ") == 1


def test_apply_reads_stdin(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(NODE))

    assert run("apply", "-f", "-") == 0
    assert capsys.readouterr().out == "Node node-0 created\n"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("apply", "-f", "/nonexistent"), 1, "cannot read /nonexistent: No such file"),
        (("apply", "-f", "/"), 1, "cannot read /: Is a directory"),
        (("--datastore", "", "get", "pools"), 2, "--datastore is empty"),
        (("--datastore", "/", "get", "pools"), 1, "/ is a directory: name the datastore's file"),
        (
            ("--datastore", "/dev/null/x/y", "delete", "pool", "x"),
            1,
            "Not a directory; name another",
        ),
        (("get", "pods"), 2, "there is no kind 'pods': use one of pools"),
        (("delete", "nonsense", "x"), 2, "there is no kind 'nonsense': use one of pools"),
        (("get", "pools"), 1, "there is no datastore at"),
        (("delete", "pool", "x"), 1, "there is no IPPool x: see  pycnictl get pools"),
        (("ipam", "candidates", "n", "--pool", "10.0.0.1/8"), 2, "are set; write 10.0.0.0/8"),
        (("ipam", "candidates", "", "--pool", "10.0.0.0/8"), 2, "name is empty"),
        (("ipam", "candidates", "n", "--pool", "10.0.0.0/8", "-n", "0"), 2, "must be 1 or more"),
        (
            ("ipam", "candidates", "n", "--pool", "10.0.0.0/8", "--block-size", "8"),
            2,
            "20 to 32 for IPv4",
        ),
    ],
)
def test_mistakes_end_with_a_sentence(
    run: Run,
    words: tuple[str, ...],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*words) == status
    said = capsys.readouterr().err
    assert message in said
    assert "Errno" not in said


def test_closed_standard_input_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)

    assert run("apply", "-f", "-") == 1
    assert "cannot read standard input: it is closed; name a file" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [("get", "pools"), ("delete", "pool", "x"), ("ipam", "show")])
def test_datastore_that_only_root_may_use_asks_for_sudo(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: tuple[str, ...],
) -> None:
    def refuse(path: Path, **_: bool) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    # Tests run as root too, whom no file's mode keeps out.
    monkeypatch.setattr(Path, "stat", refuse)

    assert run(*verb) == 1
    assert "use sudo" in capsys.readouterr().err


def test_an_empty_file_is_a_mistake(
    apply: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply("---\n---\n") == 1
    assert "holds no object" in capsys.readouterr().err


def test_get_prints_tables_yaml_and_json(
    run: Run, apply: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    apply(f"{POOL}---{PEER}---{NODE}")
    capsys.readouterr()

    run("get", "pools")
    run("get", "peer", "rack", "-o", "json")
    peer = capsys.readouterr().out

    assert peer.startswith(
        "NAME     CIDR            BLOCK  IPIP    VXLAN  NAT  MODE       DISABLED\n"
        "default  192.168.0.0/16  /26    Always  Never  yes  Automatic  no\n"
    )
    assert json.loads(peer.split("\n", 2)[2])["spec"]["password"] == "********"  # noqa: S105
    for kind in ("pools", "nodes", "bgpconfiguration", "ipamconfiguration", "blocks"):
        assert run("get", kind) == 0
    capsys.readouterr()
    run("get", "nodes", "-o", "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(NODE)
    assert run("get", "node", "nobody") == 1


def test_settings_of_bgp_show_what_holds_for_all_nodes_and_what_is_one_nodes_own(
    run: Run, apply: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    common = {"apiVersion": "projectcalico.org/v3", "kind": "BGPConfiguration"}
    of_all = {
        "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
        "serviceExternalIPs": [{"cidr": "192.0.2.0/24"}],
        "prefixAdvertisements": [{"cidr": "192.168.0.0/16", "communities": ["64512:1"]}],
    }
    for name, spec in (("default", of_all), ("node.one", {"listenPort": 1790}), ("node.two", {})):
        assert apply(yaml.safe_dump({**common, "metadata": {"name": name}, "spec": spec})) == 0
    capsys.readouterr()

    run("get", "bgpconfiguration")

    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["NAME", "AS", "MESH", "PORT", "SERVICES", "TAGGED"],
        ["default", "64512", "yes", "179", "10.96.0.0/12,", "192.0.2.0/24", "192.168.0.0/16"],
        ["node.one", "-", "-", "1790", "-", "-"],
        ["node.two", "-", "-", "-", "-", "-"],
    ]


def test_several_objects_are_a_list_or_a_stream(
    run: Run, apply: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    apply(f"{PEER}---{PEER.replace('name: rack', 'name: top')}")
    capsys.readouterr()

    run("get", "peers", "-o", "json")
    assert [one["kind"] for one in json.loads(capsys.readouterr().out)["items"]] == ["BGPPeer"] * 2
    run("get", "peers", "-o", "yaml")
    assert len(list(yaml.safe_load_all(capsys.readouterr().out))) == 2


def test_candidates_come_one_per_line_without_a_datastore(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ipam", "candidates", "node-2", "--pool", "192.168.0.0/16", "-n", "2") == 0
    assert capsys.readouterr().out == "192.168.247.0/26\n192.168.247.64/26\n"
    assert run("ipam", "candidates", "n", "--pool", "fd00::/121", "--block-size", "122") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_candidates_come_in_every_format(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("ipam", "candidates", "node-2", "--pool", "192.168.0.0/16", "-n", "1", "-o")

    assert run(*words, "json") == run(*words, "yaml") == run(*words, "table") == 0

    document = {"node": "node-2", "pool": "192.168.0.0/16", "blocks": ["192.168.247.0/26"]}
    printed = capsys.readouterr().out
    as_json, brace, rest = printed.partition("\n}\n")
    assert json.loads(as_json + brace) == document
    assert yaml.safe_load(rest.partition("ORDER")[0]) == document
    assert rest.endswith("ORDER  BLOCK\n1      192.168.247.0/26\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)

    print_table(["A"], [[True], [None]])

    assert terminal.getvalue() == "\x1b[1mA\x1b[0m\nyes\n-\n"
    assert not is_colourful(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not is_colourful(terminal)
