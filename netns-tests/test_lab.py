"""bin/lab as its user sees it: the exercise's tables, the verbs, a second terminal."""

from __future__ import annotations

import os
import re
import select
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest

from lab_driver import CLONE, CURL, Lab, environment, fresh, is_possible, wait_until
from pycni.lab import tables

pytestmark = [*is_possible, pytest.mark.long, pytest.mark.timeout(240)]

GOLDEN = {
    "node-0": """\
default via 10.10.0.1 dev eth0
10.10.0.0/20 dev eth0 proto kernel scope link src 10.10.7.20
blackhole 192.168.39.192/26 proto bird
192.168.39.193 dev cali12b0eb5c038 scope link
192.168.39.194 dev calibe752d56965 scope link
192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink
192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink
""",
    "node-1": """\
default via 10.10.16.1 dev eth0
10.10.16.0/20 dev eth0 proto kernel scope link src 10.10.24.89
192.168.39.192/26 via 10.10.7.20 dev tunl0 proto bird onlink
blackhole 192.168.84.128/26 proto bird
192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink
""",
    "node-2": """\
default via 10.10.32.1 dev eth0
10.10.32.0/20 dev eth0 proto kernel scope link src 10.10.43.25
192.168.39.192/26 via 10.10.7.20 dev tunl0 proto bird onlink
192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink
blackhole 192.168.247.0/26 proto bird
192.168.247.10 dev calia5daa4e7a1d scope link
192.168.247.11 dev cali9ff153fb143 scope link
""",
}
NGINX = "default/nginx-deployment-69df458bc5-bb87w"


def differences(actual: dict[str, str]) -> dict[str, str]:
    """Set tables against the exercise's; empty: they are equal to the letter, blanks collapsed."""
    compared = [
        tables.compare(node, output=actual[node], predicted=golden.splitlines())
        for node, golden in GOLDEN.items()
    ]
    return {c.node: "\n".join(tables.side_by_side(c, width=0)) for c in compared if not c.is_equal}


@pytest.fixture(scope="module", params=["bpf", "uml"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The exercise's lab, up, over both kinds of tunnel that any machine can have."""
    for made in fresh(request.param, "exercise"):
        ran = made.up()
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
        made.extra["said"] = ran.stdout
        yield made


# --- the exercise -------------------------------------------------------------------------------


def test_tables_are_the_exercises_to_the_letter(lab: Lab) -> None:
    actual = {node: lab.execute(node, "ip", "route") for node in GOLDEN}

    assert differences(actual) == {}


@pytest.mark.parametrize(
    ("node", "right", "wrong"),
    [
        ("node-0", "192.168.39.193 dev", "192.168.39.195 dev"),
        ("node-0", "cali12b0eb5c038", "cali12b0eb5c039"),
        ("node-0", "via 10.10.24.89", "via 10.10.24.88"),
        ("node-1", "dev tunl0", "dev eth0"),
        ("node-1", "src 10.10.24.89", "src 10.10.24.9"),
        ("node-1", "default via 10.10.16.1", "default via 10.10.16.2"),
        ("node-2", "proto bird onlink", "proto bird"),
        ("node-2", "proto bird onlink", "proto static onlink"),
        ("node-2", "blackhole 192.168.247.0/26", "unreachable 192.168.247.0/26"),
        ("node-2", "calia5daa4e7a1d scope link", "calia5daa4e7a1d"),
        ("node-2", "192.168.84.128/26", "192.168.84.128/27"),
    ],
)
def test_comparison_sees_every_field(node: str, right: str, wrong: str) -> None:
    broken = GOLDEN[node].replace(right, wrong, 1)
    assert broken != GOLDEN[node]

    assert set(differences({**GOLDEN, node: broken})) == {node}


def test_comparison_sees_the_order_and_a_line_too_many() -> None:
    lines = GOLDEN["node-1"].splitlines(keepends=True)

    assert differences({**GOLDEN, "node-1": "".join(reversed(lines))})
    assert differences({**GOLDEN, "node-1": "".join([*lines, lines[-1]])})


def test_up_shows_tables_pings_and_the_source_address(lab: Lab) -> None:
    said = lab.extra["said"]

    for node in GOLDEN:
        assert f"{node}: ip route equals the prediction" in said
    assert "12 of 12 pairs of pods answer" in said
    assert re.search(
        r"node-1 asks http://192\.168\.247\.10/ .* sees it come from 192\.168\.84\.128", said
    )


def test_test_verb_passes_and_names_what_this_kernel_lacks(lab: Lab) -> None:
    ran = lab.run("test", timeout=120)

    assert ran.returncode == 0, ran.stdout
    assert "FAIL" not in ran.stdout.replace("0 FAIL", "")
    assert re.search(r"PASS +protocol 4 on the underlay", ran.stdout)
    assert re.search(rf"PASS +node-1 asks {NGINX} .*192\.168\.84\.128", ran.stdout)
    assert re.search(r"PASS +1452 bytes with DF pass", ran.stdout)
    assert re.search(r"PASS +1453 bytes with DF do not pass", ran.stdout)
    assert re.search(r"PASS +node-1: ExaBGP has no root|SKIP .*only root can reach", ran.stdout)
    nat = re.findall(r"(PASS|SKIP) .*\(NAT\) +(.*)", ran.stdout)
    assert nat
    if lab.tunnel == "uml":
        assert all(verdict == "SKIP" for verdict, _ in nat)
        assert all("degraded: no NAT out, no anti-spoofing" in seen for _, seen in nat)
    else:
        assert all(verdict == "PASS" for verdict, _ in nat)


# --- verbs from a second terminal ---------------------------------------------------------------


def test_show_draws_everything(lab: Lab) -> None:
    def paths() -> int:
        told = lab.run("show").stdout
        return len(re.findall(r"BGP 10\.10\.\S+ +node-\d +up +1 path\b", told))

    # Another test may have begun sessions anew, and what they tell is still to come.
    wait_until(lambda: paths() == 6, what=lambda: lab.run("show").stdout)
    ran = lab.run("show")

    assert ran.returncode == 0, ran.stdout
    assert "router" in ran.stdout
    assert "calia5daa4e7a1d ----- eth0 192.168.247.10" in ran.stdout
    assert ran.stdout.count("equals the prediction") == 3


def test_reader_that_has_seen_enough_hears_no_complaint(lab: Lab) -> None:
    command = f"{' '.join(lab.command('show'))} | head -n 1"

    ran = subprocess.run(
        ["sh", "-c", command],
        capture_output=True, text=True, check=False, timeout=60, env=environment(),
    )  # fmt: skip

    assert (ran.stdout, ran.stderr) == ("router\n", "")


def test_second_up_says_that_it_is_up_and_how_to_look_at_it(lab: Lab) -> None:
    ran = lab.up()

    assert ran.returncode == 4
    assert "is up already" in ran.stderr
    assert f"bin/lab show --name {lab.name}," in ran.stderr
    assert f"bin/lab down --name {lab.name}," in ran.stderr


def test_shell_runs_a_command_in_a_pod(lab: Lab) -> None:
    ran = lab.run("shell", NGINX, "--", "ip", "-4", "addr")

    assert ran.returncode == 0
    assert "inet 192.168.247.10/32" in ran.stdout


def test_exec_passes_streams_and_status_unaltered(lab: Lab) -> None:
    every_byte = bytes(range(256)) * 4096
    command = lab.command("exec", "node-1", "--", "sh", "-c", "cat; echo aside >&2; exit 7")

    ran = subprocess.run(
        command, input=every_byte, capture_output=True, check=False, timeout=60, env=environment()
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (7, every_byte, b"aside\n")


def test_shell_has_a_terminal_with_size_and_job_control(lab: Lab) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (33, 111))
    process = subprocess.Popen(
        lab.command("shell", "node-2"),
        stdin=theirs, stdout=theirs, stderr=theirs,
        env={**environment(), "TERM": "vt100"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        read_until(ours, "node-2# ")
        os.write(ours, b"stty size; echo $TERM; tty\n")
        told = read_until(ours, "/dev/pts/")
        # The quotes: what is typed is echoed, too, and must not be taken for its output.
        os.write(ours, b"sh -c 'echo st\"\"arted; exec sleep 100'\n")
        read_until(ours, "started")
        os.write(ours, b"\x03")
        read_until(ours, "node-2# ")
        os.write(ours, b"exit 5\n")
        status = process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
        os.close(ours)

    assert "33 111" in told
    assert "vt100" in told
    assert status == 5


def read_until(descriptor: int, text: str, *, seconds: float = 60) -> str:
    seen = ""
    deadline = time.monotonic() + seconds
    while text not in seen:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            pytest.fail(f"{text!r} did not come; this did: {seen!r}")
        seen += os.read(descriptor, 4096).decode(errors="replace")
    return seen


def test_node_has_its_tools_at_hand(lab: Lab) -> None:
    status = lab.execute("node-1", "pycnictl", "status")
    pools = lab.execute("node-1", "pycnictl", "get", "pools")

    assert "node-1" in status
    assert "192.168.0.0/16" in pools


def test_a_nodes_pycnictl_holds_the_books_against_its_own_agent(lab: Lab) -> None:
    checked = lab.execute("node-0", "pycnictl", "ipam", "check")
    explained = lab.execute("node-0", "pycnictl", "ipam", "explain", "192.168.247.10")

    assert "findings: 0" in checked
    assert "records 2" in checked
    assert "via 10.10.43.25 dev tunl0" in explained


def test_unknown_place_is_told_with_those_that_exist(lab: Lab) -> None:
    ran = lab.run("shell", "node-9", "--", "true")

    assert ran.returncode == 2
    assert "there is no 'node-9'" in ran.stderr
    assert "node-1" in ran.stderr


def test_client_that_leaves_takes_its_command_with_it(lab: Lab) -> None:
    with subprocess.Popen(
        lab.command("exec", "node-0", "--", "sleep", "4321"),
        env=environment(), stdin=subprocess.PIPE,
    ) as process:  # fmt: skip
        wait_until(lambda: "sleep 4321" in lab.execute("node-0", "ps", "-eo", "args"))
        process.kill()

    wait_until(lambda: "sleep 4321" not in lab.execute("node-0", "ps", "-eo", "args"))


def test_pod_comes_and_goes(lab: Lab) -> None:
    added = lab.run("pod", "add", "default/extra", "--node", "node-1")
    assert added.returncode == 0, added.stderr
    address = added.stdout.strip()

    reached = lab.run("exec", "default/web", "--", *CURL, f"http://{address}/")
    shown = lab.run("show")
    deleted = lab.run("pod", "del", "default/extra")

    assert "default/extra was asked by 192.168.247.11" in reached.stdout
    assert shown.returncode == 0, shown.stdout
    assert deleted.returncode == 0, deleted.stderr
    assert differences({node: lab.execute(node, "ip", "route") for node in GOLDEN}) == {}


def test_agent_is_killed_and_returns(lab: Lab) -> None:
    killed = lab.run("agent", "kill", "node-1")
    shown = lab.run("show")
    reached = lab.run("exec", "node-1", "--", "curl", "-s", "-m5", "http://192.168.247.10/")
    started = lab.run("agent", "start", "node-1")

    assert (killed.returncode, started.returncode) == (0, 0)
    assert shown.returncode == 1
    assert "node-1: no agent answers: start it with  bin/lab agent start node-1" in shown.stdout
    assert "192.168.84.128" in reached.stdout, "forwarding goes on without the agent"
    wait_until(lambda: lab.run("show").returncode == 0, seconds=60)
    assert differences({node: lab.execute(node, "ip", "route") for node in GOLDEN}) == {}


def test_cable_is_pulled_and_plugged_in(lab: Lab) -> None:
    assert lab.run("node", "down", "node-1").returncode == 0
    silent = lab.run("exec", "node-0", "--", "ping", "-c1", "-W1", "10.10.24.89")
    assert lab.run("node", "up", "node-1").returncode == 0

    assert silent.returncode != 0
    lab.wait_for_answer("node-0", "10.10.24.89")
    wait_until(lambda: lab.run("show").returncode == 0, seconds=60)


# --- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["", "up", "show", "test", "down", "shell", "exec", "pod"])
def test_help_has_an_example(verb: str) -> None:
    ran = subprocess.run(
        [str(CLONE / "bin" / "lab"), *verb.split(), "--help"],
        capture_output=True, text=True, check=False, timeout=60, env=environment(),
    )  # fmt: skip

    assert ran.returncode == 0
    assert "example: sudo bin/lab" in ran.stdout


@pytest.mark.parametrize("verb", ["show", "test", "down"])
def test_verbs_of_no_lab_say_how_to_start_one(verb: str) -> None:
    ran = Lab("test-nobody", "bpf").run(verb)

    assert ran.returncode == 3
    assert "bin/lab up" in ran.stderr
