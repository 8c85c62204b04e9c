"""Nothing is left of a lab, however it ends; and the lab with its own CNI runtime."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_driver import CLONE, Lab, Traces, alive, fresh, is_possible, wait_until
from pycni.lab import sockets

pytestmark = [*is_possible, pytest.mark.long, pytest.mark.timeout(240)]


@pytest.fixture(params=["bpf", "uml"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab that is not up yet."""
    yield from fresh(request.param, "end")


@pytest.fixture
def quick() -> Iterator[Lab]:
    """The quicker kind of lab, for what doesn't depend on the kind."""
    yield from fresh("bpf", "quick")


def ends(lab: Lab, processes: set[int], before: Traces) -> None:
    wait_until(lambda: not alive(processes))
    wait_until(lambda: not sockets.is_up(lab.name))
    assert Traces.now(lab) == before


def machines(processes: set[int]) -> set[Path]:
    """The directories of user-mode Linux that a lab's processes have; other tests have theirs."""
    found = set()
    for pid in processes:
        with contextlib.suppress(OSError):
            words = Path("/proc", str(pid), "cmdline").read_bytes()
            found |= set(re.findall(rb"/var/tmp/pycni-uml\.[^/\0]+", words))
    return {Path(os.fsdecode(path)) for path in found}


def test_nothing_is_left_after_down(lab: Lab) -> None:
    before = Traces.now(lab)
    assert lab.up().returncode == 0
    processes = lab.processes()
    assert len(processes) > 3

    ran = lab.run("down")

    assert ran.returncode == 0, ran.stderr
    assert not alive(processes), "down waits until all is gone"
    ends(lab, processes, before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_nothing_is_left_of_a_supervisor_that_dies(quick: Lab, number: signal.Signals) -> None:
    before = Traces.now(quick)
    assert quick.up().returncode == 0
    processes = quick.processes()

    os.kill(quick.server_pid(), number)

    ends(quick, processes, before)


@pytest.mark.parametrize("lab", ["bpf", "uml"], indirect=True)
def test_nothing_is_left_of_a_holder_that_is_killed(lab: Lab) -> None:
    before = Traces.now(lab)
    assert lab.up().returncode == 0
    processes = lab.processes()
    ours = machines(processes)
    assert bool(ours) is (lab.tunnel == "uml")

    os.kill(lab.holder_pid(), signal.SIGKILL)

    ends(lab, processes, before)
    wait_until(lambda: not any(path.exists() for path in ours))


@pytest.mark.parametrize("moment", ["underlay:", "pods:", "converge"])
def test_interrupt_takes_everything_down(lab: Lab, moment: str) -> None:
    before = Traces.now(lab)
    with lab.start_up() as process:
        assert process.stdout is not None
        for line in process.stdout:
            if moment in line:
                break
        processes = lab.processes()
        # As the terminal does it: to the whole foreground group, the shell that started us too.
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()

    assert process.returncode == 130, rest
    assert "everything was taken down" in rest
    assert not alive(processes), "it is said only when it is true"
    ends(lab, processes, before)


@pytest.mark.parametrize("lab", ["uml"], indirect=True)
def test_interrupt_while_the_machine_boots(lab: Lab) -> None:
    before = Traces.now(lab)
    with lab.start_up() as process:
        wait_until(lambda: sockets.is_up(lab.name))
        processes = lab.processes()
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=120)

    assert process.returncode == 130
    ends(lab, processes, before)


def test_killed_client_takes_a_half_made_lab_with_it(lab: Lab) -> None:
    before = Traces.now(lab)
    with lab.start_up() as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "agents:" in line:
                break
        processes = lab.processes()

        os.killpg(process.pid, signal.SIGKILL)

        process.stdout.read()
    ends(lab, processes, before)


def test_failed_up_leaves_nothing_and_shows_the_agents_logs(quick: Lab, tmp_path: Path) -> None:
    before = Traces.now(quick)
    topology = tmp_path / "wrong.yaml"
    # The address lies in no pool, so the plugin refuses the pod after all agents have started.
    topology.write_text(
        "name: wrong\n"
        "nodes:\n"
        "  - {name: node-0, address: 10.0.0.2/24, gateway: 10.0.0.1}\n"
        "pods:\n"
        "  - {name: default/one, node: node-0}\n",
    )

    ran = quick.up("--topology", str(topology))

    assert ran.returncode == 1
    assert "error: " in ran.stderr
    assert "nothing was left running" in ran.stderr
    assert not sockets.is_up(quick.name)
    assert Traces.now(quick) == before


def test_topology_with_a_mistake_is_refused_by_name(quick: Lab, tmp_path: Path) -> None:
    topology = tmp_path / "mistake.yaml"
    topology.write_text("nodes: [{name: node-0, address: 10.0.0.2/24, door: 10.0.0.1}]\n")

    ran = quick.up("--topology", str(topology))

    assert ran.returncode == 1
    assert "mistake.yaml" in ran.stderr
    assert "gateway is missing" in ran.stderr


def test_nothing_is_left_of_a_supervisor_killed_from_inside(lab: Lab) -> None:
    before = Traces.now(lab)
    assert lab.up().returncode == 0
    processes = lab.processes()

    # What runs in the lab is the supervisor's child.
    ran = lab.run("exec", "router", "--", "sh", "-c", "kill -KILL $PPID")

    assert ran.returncode == 1
    ends(lab, processes, before)


def test_nodes_of_one_subnet_share_it(quick: Lab) -> None:
    topology = CLONE / "examples" / "cross-subnet.yaml"
    assert quick.up("--topology", str(topology)).returncode == 0

    ran = quick.run("test")

    assert ran.returncode == 0, ran.stdout
    assert "default/two on right" in ran.stdout
    assert "it sees 10.20.0.11" in ran.stdout, "no tunnel between neighbours"
    assert "PASS  protocol 4 on the underlay" in ran.stdout


def test_two_labs_are_up_at_once(quick: Lab) -> None:
    assert quick.up().returncode == 0
    for other in fresh("bpf", "second"):
        assert other.up().returncode == 0

        assert quick.run("test").returncode == 0
        assert other.run("test").returncode == 0


def test_own_runtime_stands_in_for_cnitool(lab: Lab) -> None:
    lab.extra["PYCNI_LAB_RUNTIME"] = "own"

    ran = lab.up()

    assert ran.returncode == 0, ran.stderr
    assert "added by lab-runtime" in ran.stdout
    assert lab.run("test", timeout=120).returncode == 0
