"""The effects of the test runner: processes with a time limit, and the files that they leave."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.etree import ElementTree as ET

from tests.tier_model import Case

ROOT = Path(__file__).resolve().parent.parent
GRACE_S = 5.0
TIMED_OUT = 124

# A test may do to this namespace what it likes; it is gone with the last process. /run gets a
# private copy too, because `ip netns add` leaves files in /run/netns.
ISOLATE = (
    "unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "--",
    "sh", "-c",
    'mount -t tmpfs tmpfs /run && mkdir -p /run/netns /run/lock && ip link set lo up && exec "$@"',
    "isolated",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ran:
    """What a process left: its exit status and what it printed, both streams together."""

    status: int
    output: str


class Processes:
    """The process groups of the commands that run now, for the one who has to end them all."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._is_ended = False

    def add(self, pid: int) -> None:
        """Remember a group; one that comes too late is ended at once."""
        self._groups.add(pid)
        if self._is_ended:
            self.end_all()

    def remove(self, pid: int) -> None:
        """Forget a group that has ended."""
        self._groups.discard(pid)

    def end_all(self) -> None:
        """Kill every group, now and later: whoever waits for one of them goes on."""
        self._is_ended = True
        for pid in tuple(self._groups):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str],
    scratch: Path,
    processes: Processes | None = None,
) -> Ran:
    """Run a command in a process group of its own; nothing of it survives this call."""
    processes = processes or Processes()
    with (scratch / "output").open("w+b") as output:
        # A file, not a pipe: a stray grandchild that keeps a pipe open would block the reader.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=dict(env),
            start_new_session=True,
        )
        processes.add(process.pid)
        try:
            status = process.wait(timeout_s)
            note = ""
        except subprocess.TimeoutExpired:
            status, note = TIMED_OUT, f"\ntimed out after {timeout_s:g} s: killed\n"
        finally:
            _end_group(process)
            processes.remove(process.pid)
        return Ran(status, _text(output) + note)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the group to end, then make it; the leader may be gone while others are left."""
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sig)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def find_obstacle(ran: Ran) -> str:
    """Say why namespaces of our own can't be had, from a try; empty when they can."""
    return "" if ran.status == 0 else f"no namespaces on this machine: {ran.output.strip()}"


def pytest_command(
    paths: Sequence[str],
    *,
    markers: str,
    junit: Path,
    test_timeout_s: int,
    coverage: Path | None,
    basetemp: Path | None = None,
) -> list[str]:
    """Compose one pytest run; with a coverage file it is measured.

    Its temporary files are in `basetemp`: where all runs share pytest's own place, each removes
    what it takes for old, and that may be in use.
    """
    command = [sys.executable, "-I"]
    if coverage is not None:
        command += ["-m", "coverage", "run", f"--data-file={coverage}"]
    return [
        *command, "-m", "pytest", *paths, "-m", markers, f"--junitxml={junit}",
        f"--timeout={test_timeout_s}", "-o", f"cache_dir={junit.parent}/pytest-cache",
        *([] if basetemp is None else [f"--basetemp={basetemp}"]),
    ]  # fmt: skip


def read_junit(path: Path) -> tuple[Case, ...]:
    """Read what pytest reported; nothing when it died before it could."""
    if not path.exists():
        return ()
    try:
        root = ET.parse(path).getroot()  # noqa: S314 - as the import
    except ET.ParseError:
        return ()
    # A test that fails and then fails again in its teardown has two entries: it is one failure.
    cases: dict[str, Case] = {}
    for element in root.iter("testcase"):
        case = _case(element)
        if case.name not in cases or case.outcome == "failed":
            cases[case.name] = case
    return tuple(cases.values())


def _case(element: ET.Element) -> Case:
    name = f"{element.get('classname', '')}::{element.get('name', '')}"
    seconds = float(element.get("time", "0"))
    for child in element:
        if child.tag in ("failure", "error"):
            return Case(name, "failed", seconds)
        if child.tag == "skipped":
            return Case(name, "skipped", seconds, child.get("message", ""))
    return Case(name, "passed", seconds)


def pytest_summary(output: str) -> str:
    """Pick pytest's own closing line, without its rulers."""
    for line in reversed(output.splitlines()):
        stripped = line.strip("= ")
        if line.startswith("=") and " in " in stripped:
            return stripped
    return ""
