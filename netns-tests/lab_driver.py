"""Drive bin/lab from outside, as a person at a terminal does, and look for what it leaves."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import lab_verbs
from cluster import Cluster, eventually, output_of, wait_for_answer
from pycni.lab import sockets

CLONE = Path(__file__).resolve().parent.parent
BARE = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": os.environ.get("HOME", "/")}

is_possible = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces"),
    pytest.mark.skipif(
        "PYCNI_IN_UML" in os.environ, reason="the lab starts user-mode Linux itself"
    ),
]


def environment(**extra: str) -> dict[str, str]:
    """A nearly empty environment: what the test run has prepared may be used, nothing else."""
    kept = {k: v for k, v in os.environ.items() if k in ("PYCNI_CACHE", "PYCNI_VENV")}
    return {**BARE, **kept, **extra}


def skip_unless_possible(tunnel: str) -> None:
    """Skip, with the reason, where this machine lacks what a kind of lab needs."""
    if tunnel == "uml" and shutil.which("linux.uml") is None:
        pytest.skip("user-mode-linux is not installed (bin/ensure uml)")
    if tunnel == "bpf" and shutil.which("clang") is None:
        pytest.skip("clang is missing (bin/ensure bpf)")


@dataclass
class Lab:
    """One lab by name; `run` is a second terminal."""

    name: str
    tunnel: str
    extra: dict[str, str] = field(default_factory=dict)

    def command(self, verb: str, *words: str) -> list[str]:
        return [str(CLONE / "bin" / "lab"), verb, "--name", self.name, *words]

    def run(self, verb: str, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(verb, *words), capture_output=True, text=True, check=False,
            timeout=timeout, env=environment(**self.extra), cwd="/", stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def feed(self, text: str, verb: str, *words: str) -> str:
        """Run a verb that reads standard input; it has to succeed."""
        ran = subprocess.run(
            self.command(verb, *words), input=text, capture_output=True, text=True, check=False,
            timeout=120, env=environment(**self.extra), cwd="/",
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def up(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("up", "--tunnel", self.tunnel, *words, timeout=170)

    def start_up(self) -> subprocess.Popen[str]:
        """Begin to come up, in a terminal session of its own, and don't wait."""
        return subprocess.Popen(
            self.command("up", "--tunnel", self.tunnel),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env=environment(**self.extra), cwd="/", start_new_session=True,
        )  # fmt: skip

    def execute(self, place: str, *command: str) -> str:
        """Run a program in a place, without a terminal of our own."""
        ran = lab_verbs.execute(self.name, place, *command, timeout_s=120)
        return output_of(ran, place, *command)

    def wait_for_answer(self, place: str, address: str) -> None:
        """Wait until an address answers a place: neighbours may be asked for anew."""
        wait_for_answer(Cluster(self.name), place, address)

    def server_pid(self) -> int:
        """The process behind the verbs' address: the supervisor, or user-mode Linux's owner."""
        with sockets.connect(self.name) as connection:
            return sockets.peer(connection)[0]

    def holder_pid(self) -> int:
        """The process whose end is the lab's."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(sockets.life_address(self.name))
            return sockets.peer(connection)[0]

    def processes(self) -> set[int]:
        """All processes of the lab."""
        return descendants(self.holder_pid())


def descendants(ancestor: int) -> set[int]:
    """A process and all that come from it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue
        parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that still run; what is dead and only not buried by its parent yet doesn't count."""
    return {pid for pid in pids if _state(pid) not in ("", "Z", "X")}


def _state(pid: int) -> str:
    try:
        stat = Path("/proc", str(pid), "stat").read_text(errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


CURL = ("curl", "-gsm5", "--retry", "20", "--retry-delay", "1", "--retry-connrefused")
"""A new pod's server begins to listen a moment after the pod is there."""


def wait_until(
    condition: Callable[[], bool], *, seconds: float = 60, what: Callable[[], object] = str
) -> None:
    """Wait for another process's doing, which sends us no event."""
    eventually(condition, within_s=seconds, what=what)


@dataclass(frozen=True)
class Traces:
    """What a lab could leave on its host."""

    mounts: str
    names: frozenset[str]
    directories: frozenset[str]

    @staticmethod
    def now(lab: Lab) -> Traces:
        """Look at the host; other tests' labs and network namespaces come and go meanwhile."""
        interesting = ("/run", "/var/lib", "/var/lib/cni")
        mounts = [
            line
            for line in Path("/proc/self/mounts").read_text().splitlines()
            if "pycni" in line or line.split()[1] in interesting
        ]
        sockets_ = Path("/proc/net/unix").read_text().split()
        return Traces(
            mounts="\n".join(mounts),
            names=frozenset(word for word in sockets_ if lab.name in word),
            directories=frozenset(
                str(path)
                for pattern in ("run/pycni-lab*", "run/var-lib*")
                for path in Path("/").glob(pattern)
            ),
        )


def lab_of(tunnel: str, purpose: str) -> Lab:
    """A lab that nobody else has."""
    skip_unless_possible(tunnel)
    # Not by process id: abstract addresses are seen across PID namespaces.
    return Lab(f"test-{purpose}-{tunnel}-{secrets.token_hex(3)}", tunnel)


def put_away(lab: Lab) -> None:
    """End a lab whatever state a failed test has left it in."""
    if not sockets.is_up(lab.name):
        return
    if lab.run("down", timeout=120).returncode != 0:
        os.kill(lab.holder_pid(), signal.SIGKILL)
    wait_until(lambda: not sockets.is_up(lab.name))


def fresh(tunnel: str, purpose: str) -> Iterator[Lab]:
    """Give a lab that is not up yet; nothing may be left of it after the test."""
    lab = lab_of(tunnel, purpose)
    try:
        yield lab
    finally:
        put_away(lab)
