"""pycnictl's front: usage, predict, and what it says without an agent."""

import io
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from pycni.ctl.main import main

CLONE = Path(__file__).resolve().parents[3]
EXERCISE = str(CLONE / "examples" / "exercise.yaml")
DUAL_STACK = str(CLONE / "examples" / "dual-stack.yaml")
IPAM_VERBS = ("show", "explain", "check", "release", "configure", "split", "candidates")
NODE_2 = """\
default via 10.10.32.1 dev eth0
10.10.32.0/20 dev eth0 proto kernel scope link src 10.10.43.25
192.168.39.192/26 via 10.10.7.20 dev tunl0 proto bird onlink
192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink
blackhole 192.168.247.0/26 proto bird
192.168.247.10 dev calia5daa4e7a1d scope link
192.168.247.11 dev cali9ff153fb143 scope link
"""
NODE_2_SIX = """\
fd00:10:10::/64 dev eth0 proto kernel metric 256 pref medium
fd00:192:168::27c0/122 via fd00:10:10::720 dev eth0 proto bird metric 1024 pref medium
fd00:192:168::f70a dev calia5daa4e7a1d metric 1024 pref medium
fd00:192:168::f70b dev cali9ff153fb143 metric 1024 pref medium
blackhole fd00:192:168::f700/122 dev lo proto bird metric 1024 pref medium
default via fd00:10:10::1 dev eth0 metric 1024 pref medium
"""


def test_predict_prints_one_nodes_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "-f", EXERCISE, "--node", "node-2"]) == 0

    assert capsys.readouterr().out == NODE_2


def test_predict_reads_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(EXERCISE).read_text()
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert main(["predict", "-f", "-", "--node", "node-2"]) == 0
    assert capsys.readouterr().out == NODE_2

    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert main(["predict", "-f", "-", "--node", "node-9"]) == 2
    assert "there is no node 'node-9' in standard input" in capsys.readouterr().err


def test_predict_prints_all_nodes_with_headings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "-f", EXERCISE]) == 0

    out = capsys.readouterr().out
    assert out.startswith("node-0$ ip route\ndefault via 10.10.0.1 dev eth0\n")
    assert "\n\nnode-2$ ip route\n" + NODE_2 in out


def test_predict_gives_programs_the_fields_of_each_route(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["predict", "-f", EXERCISE, "--node", "node-2", "-o", "json"]) == 0

    routes = json.loads(capsys.readouterr().out)["routes"]
    assert [route["text"] for route in routes] == NODE_2.splitlines()
    assert {route["node"] for route in routes} == {"node-2"}
    assert routes[2] == {
        "node": "node-2",
        "dst": "192.168.39.192/26",
        "type": "unicast",
        "table": 254,
        "tos": 0,
        "priority": 0,
        "scope": "universe",
        "protocol": "bird",
        "src": None,
        "mtu": None,
        "next_hops": [{"gateway": "10.10.7.20", "dev": "tunl0", "onlink": True, "weight": 1}],
        "text": NODE_2.splitlines()[2],
    }


def test_predict_gives_all_nodes_in_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "-f", EXERCISE, "-o", "yaml"]) == 0

    routes = yaml.safe_load(capsys.readouterr().out)["routes"]
    assert [route["node"] for route in routes] == ["node-0"] * 7 + ["node-1"] * 5 + ["node-2"] * 7


def test_predict_prints_a_table_with_headings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "-f", EXERCISE, "--node", "node-1", "-o", "table"]) == 0

    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[:4]] == [
        "NODE DESTINATION TYPE VIA DEV PROTOCOL SCOPE SRC",
        "node-1 0.0.0.0/0 unicast 10.10.16.1 eth0 boot universe -",
        "node-1 10.10.16.0/20 unicast - eth0 kernel link 10.10.24.89",
        "node-1 192.168.39.192/26 unicast 10.10.7.20 tunl0 bird universe -",
    ]


def test_predict_prints_both_ip_versions_of_a_dual_stack_cluster(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["predict", "-f", DUAL_STACK]) == 0
    both = capsys.readouterr().out
    assert main(["predict", "-f", DUAL_STACK, "-4"]) == 0
    four = capsys.readouterr().out
    assert main(["predict", "-f", EXERCISE]) == 0

    assert f"\n\nnode-2$ ip route\n{NODE_2}\nnode-2$ ip -6 route\n{NODE_2_SIX}" in both
    assert four == capsys.readouterr().out


def test_predict_prints_one_nodes_ipv6_table(capsys: pytest.CaptureFixture[str]) -> None:
    for words, table in (((), NODE_2), (("-4",), NODE_2), (("-6",), NODE_2_SIX)):
        assert main(["predict", "-f", DUAL_STACK, "--node", "node-2", *words]) == 0
        assert capsys.readouterr().out == table


def test_predict_gives_programs_the_routes_of_both_ip_versions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["predict", "-f", DUAL_STACK, "--node", "node-2", "-o", "json"]
    assert main(words) == 0

    routes = json.loads(capsys.readouterr().out)["routes"]
    assert [r["text"] for r in routes] == [*NODE_2.splitlines(), *NODE_2_SIX.splitlines()]


def test_predict_names_the_nodes_where_one_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "-f", EXERCISE, "--node", "node-7"]) == 2

    assert "node-0, node-1, node-2" in capsys.readouterr().err


def test_predict_names_the_file_that_it_can_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "-f", "/nonexistent/topology.yaml"]) == 1

    assert "/nonexistent/topology.yaml" in capsys.readouterr().err


def test_predict_complains_of_broken_yaml_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.yaml").write_text("a: [b\n")

    assert main(["predict", "-f", str(tmp_path / "broken.yaml")]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert "broken.yaml: line 2, column 1: expected" in line


def test_output_that_can_not_be_written_is_said_in_words() -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "pycni.ctl", "predict", "-f", EXERCISE],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=CLONE,
        )  # fmt: skip

    assert (ran.returncode, ran.stderr) == (
        1,
        "error: cannot write the output: No space left on device; mend that and try again\n",
    )


def test_closed_output_is_no_defect() -> None:
    command = f"'{sys.executable}' -m pycni.ctl predict -f '{EXERCISE}' >&-"

    ran = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False, cwd=CLONE
    )

    assert (ran.returncode, ran.stderr) == (0, "")


def test_socket_of_something_else_is_told_from_an_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 hello\n")

        other = threading.Thread(target=answer)
        other.start()
        assert main(["status", "--run-dir", str(tmp_path)]) == 1
        other.join()

    assert "is no agent of this version" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["status", "routes"])
def test_without_an_agent_it_says_what_to_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert main([verb, "--run-dir", str(tmp_path)]) == 1

    said = capsys.readouterr().err
    assert "start pycni-agent" in said
    assert "Errno" not in said


def test_pool_without_a_prefix_length_is_told_what_to_add(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["ipam", "candidates", "node-0", "--pool", "192.168.0.0"]) == 2

    assert "add a prefix length" in capsys.readouterr().err


def test_help_names_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])

    assert "2 a mistake in the command line" in " ".join(capsys.readouterr().out.split())


def test_delete_says_what_becomes_of_a_node_with_a_running_agent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["delete", "--help"])

    assert "anew: stop it first" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["status", "--help"],
        ["predict", "--help"],
        *(["ipam", verb, "--help"] for verb in IPAM_VERBS),
    ],
)
def test_help_shows_an_example(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)

    assert end.value.code == 0
    assert "example: pycnictl" in capsys.readouterr().out


def test_datastore_is_taken_behind_the_verb_and_a_new_one_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (["--datastore", str(tmp_path / name)] for name in ("first.db", "second.db"))
    apply = ["apply", "-f", str(CLONE / "examples" / "pool.yaml")]

    assert main([*apply, *first]) == 0
    made = capsys.readouterr()
    assert main([*second, *apply, *first]) == 0
    again = capsys.readouterr()
    statuses = [
        main([*where, *words, *first])
        for words in (["get", "pools"], ["ipam", "show"], ["ipam", "explain", "172.16.0.1"])
        for where in ([], second)
    ]

    assert made.err == f"note: there was no datastore at {first[1]}; a new one was made\n"
    assert (again.out, again.err) == ("IPPool second-pool unchanged\n", "")
    assert statuses == [0] * 6
    assert not Path(second[1]).exists()


def test_predict_prints_nothing_of_a_table_that_is_empty(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["predict", "-f", EXERCISE, "--node", "node-1", "-6"]) == 0
    assert capsys.readouterr().out == ""
