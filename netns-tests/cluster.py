"""A running lab, as the scenario tests see it: commands in, text out, and a stream of pings."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lab_verbs
from pings import Loss, loss_of
from pycni.errors import PycniError

ROOT = Path(__file__).resolve().parent.parent
LAB = str(ROOT / "bin" / "lab")
EXERCISE, DUAL_STACK = (ROOT / "examples" / f"{n}.yaml" for n in ("exercise", "dual-stack"))
WEB = "default/nginx-deployment-69df458bc5-bb87w"
DNSUTILS = "default/dnsutils"
HOLD_TIME_S = 9.0
SPARE = 50
"""Requests that a stream sends after those that count: their answers have half a second to come."""


class NotYet(Exception):
    """Something can't be asked for now; `eventually` goes on waiting."""


class Failed(AssertionError, NotYet):
    """A command failed: so does the test, unless it waits for something (`eventually`)."""


class Cluster:
    """One lab on this machine's kernel; `has_ipv6` beside IPv4."""

    def __init__(self, name: str, *, has_ipv6: bool = False) -> None:
        self.name = name
        self.has_ipv6 = has_ipv6

    def lab(self, *words: str, check: bool = True, timeout: float = 60) -> str:
        """Run a verb of bin/lab; return what it printed."""
        verb, *rest = words
        ran = subprocess.run(
            [LAB, verb, "--name", self.name, *rest],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if check and ran.returncode != 0:
            raise Failed(f"bin/lab {' '.join(words)}: {ran.returncode}\n{ran.stdout}{ran.stderr}")
        return ran.stdout

    def run(self, place: str, command: str, *, check: bool = True) -> str:
        """Run a shell command in a node or pod."""
        return self.execute(place, "sh", "-c", command, check=check)

    def execute(self, place: str, *command: str, check: bool = True) -> str:
        """Run a program in a node or pod; return what it printed."""
        ran = lab_verbs.execute(self.name, place, *command)
        return output_of(ran, place, *command) if check else ran.output

    def routes(self, node: str, *, family: int = 4) -> list[str]:
        """Return a node's table, blanks collapsed, without interfaces' link-local networks."""
        table = self.run(node, f"ip -{family} route").splitlines()
        lines = (" ".join(line.split()) for line in table)
        return [line for line in lines if not line.startswith("fe80::/64 ")]

    def news(self) -> str:
        """Say what nodes heard by BGP lately, for whoever reads why packets were lost."""
        found = []
        for node in ("node-0", "node-1", "node-2"):
            items = self.ask(node, "bgp_news")["items"]
            found += [node, *(f"  {i['age_s']:.2f} s ago {i['peer']} {i['what']}" for i in items)]
        return "\n".join(found)

    def status(self, node: str) -> dict[str, Any]:
        """Return the agent's status; raise `NotYet` while no agent answers."""
        return self.ask(node, "status")

    def ask(self, node: str, question: str) -> dict[str, Any]:
        """Return the agent's answer to a question; raise `NotYet` while no agent answers."""
        try:
            return lab_verbs.ask_agent(self.name, node, question)
        except (OSError, PycniError) as exc:
            raise NotYet(f"no agent answers on {node}: {exc}") from exc

    def exabgp(self, node: str) -> int:
        """Return the process of a node's ExaBGP; raise `NotYet` while there is none."""
        pid = self.status(node)["bgp_pid"]
        if pid is None:
            raise NotYet(f"no ExaBGP runs on {node}")
        return int(pid)

    def kill_exabgp(self, node: str, signal_name: str = "KILL") -> int:
        """End a node's ExaBGP, which may just be being started; return which process that was."""
        eventually(lambda: self.exabgp(node), within_s=60)
        pid = self.exabgp(node)
        self.run(node, f"kill -{signal_name} {pid}")
        return pid

    def answers(self, place: str, address: str) -> bool:
        """Tell whether an address answers a single request from a place."""
        return "1 received" in self.run(place, f"ping -c 1 -W 2 {address}", check=False)

    @contextlib.contextmanager
    def stream(self, source: str, target: str, *, seconds: float) -> Iterator[list[Loss]]:
        """Send 100 requests a second meanwhile; the result is filled in at the end."""
        result: list[Loss] = []
        counted = int(seconds * 100)
        with tempfile.NamedTemporaryFile(prefix="ping-") as log:
            process = subprocess.Popen(
                [LAB, "exec", "--name", self.name, source, "--",
                 "ping", "-i", "0.01", "-c", str(counted + SPARE), "-W", "1", target],
                stdout=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                said = Path(log.name)
                eventually(
                    lambda: said.stat().st_size > 0 or process.poll() is not None, within_s=60
                )
                yield result
                process.wait(timeout=3 * seconds + 60)
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
            result.append(loss_of(said, counted=counted))


def output_of(ran: lab_verbs.Ran, *words: str) -> str:
    """Return what a program has printed, which had to succeed."""
    if ran.status != 0:
        raise Failed(f"{' '.join(words)}: {ran.status}\n{ran.output}{ran.errors}")
    return ran.output


def eventually(
    is_so: Callable[[], object], *, within_s: float, what: Callable[[], object] = str
) -> float:
    """Wait until something is so; return after how many seconds it was.

    `what` tells what there is instead, for whoever reads why the test failed.
    """
    began = time.monotonic()
    while True:
        obstacle: NotYet | None = None
        asked = time.monotonic()
        try:
            if is_so():
                return time.monotonic() - began
        except NotYet as exc:
            obstacle = exc
        # By when it was asked: on a loaded machine a look takes as long as the limit.
        if asked - began > within_s:
            raise AssertionError(f"not so within {within_s} s: {obstacle or _told(what)}")
        time.sleep(0.05)


def _told(what: Callable[[], object]) -> object:
    try:
        return what()
    except NotYet as exc:
        return exc


def wait_for_answer(cluster: Cluster, place: str, address: str, *, within_s: float = 60) -> None:
    """Wait until an address answers: the first packets by a new way may wait for ARP in vain."""
    eventually(
        lambda: cluster.answers(place, address),
        within_s=within_s,
        what=lambda: cluster.run(place, f"ip route get {address}; ip neigh", check=False),
    )


def renew_server(find: Callable[[], int | None], kill: Callable[[int], object]) -> None:
    """Have a CNI server that can't know what was before.

    It hears of changes by watching, a moment later, and tells nobody when.
    """
    eventually(lambda: find() is not None, within_s=60)
    former = find()
    assert former is not None
    kill(former)
    eventually(lambda: find() not in (None, former), within_s=60)


def wait_until_steady(cluster: Cluster) -> None:
    """Wait until all agents answer, with all sessions up and all tables as predicted.

    Tests come in any order: the one before may have begun sessions anew.
    """
    eventually(lambda: cluster.lab("show"), within_s=90)


def cni_tools() -> Path:
    """Return the directory of cnitool and the reference plugins."""
    cache = Path(os.environ.get("PYCNI_CACHE", Path.home() / ".cache" / "pycni"))
    found = sorted((cache / "go-tools").rglob("cnitool"))
    if not found:
        raise AssertionError("cnitool is missing: run  bin/ensure cni-tools")
    return found[-1].parent


@contextlib.contextmanager
def lab(name: str, *, topology: Path | None = None) -> Iterator[Cluster]:
    """Bring a lab up over tc-bpf, and down again whatever happens."""
    more = ("--topology", str(topology)) if topology is not None else ()
    cluster = Cluster(f"{name}-{os.getpid()}", has_ipv6=topology == DUAL_STACK)
    try:
        cluster.lab("up", "--tunnel", "bpf", *more, timeout=120)
        yield cluster
    finally:
        cluster.lab("down", check=False)
