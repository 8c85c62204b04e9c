"""A machine of its own for a benchmark: mounts, processes and network apart, gone when it ends.

`enter` runs the program again inside new namespaces, where /run is memory (as on every node) and
nothing survives the end of the first process.  `Node` is one network namespace with an agent in it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("PYCNI_CACHE", Path.home() / ".cache" / "pycni"))
_INSIDE = "PYCNI_BENCH_INSIDE"


def enter(*, keep: Sequence[Path] = ()) -> None:
    """Become PID 1 of a machine of our own; return inside it.

    Paths in `keep` stay visible even if they lie below /run.
    """
    if os.geteuid() != 0:
        sys.exit("this benchmark makes network namespaces: run it as root (sudo)")
    if os.environ.get(_INSIDE) != "1":
        os.environ[_INSIDE] = "1"
        command = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        os.execvp("unshare", [*command, sys.executable, *sys.argv])  # noqa: S606  # no shell wanted
    if any(str(path).startswith("/run/") for path in keep):
        sys.exit("the clone must not lie below /run, which the benchmark covers")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    Path("/run/netns").mkdir()
    run("ip", "link", "set", "lo", "up")


def run(*command: str, text: str | None = None) -> str:
    """Run a command that has to succeed; return what it printed."""
    ran = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stdout


def in_netns(name: str, *command: str, text: str | None = None) -> str:
    """Run a command in a named network namespace."""
    return run("nsenter", f"--net=/run/netns/{name}", "--", *command, text=text)


class Node:
    """A node of the benchmark: a namespace, an agent, its own directories below /run."""

    def __init__(
        self,
        name: str,
        *,
        address: str,
        datastore: Path | str,
        kubeconfig: str = "",
        directory: Path | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.directory = directory or Path("/run/bench") / name
        self.run_dir = self.directory / "run"
        self.state_dir = self.directory / "state"
        self.datastore = datastore
        self.kubeconfig = kubeconfig
        self.agent: subprocess.Popen[bytes] | None = None
        if not Path(f"/run/netns/{name}").exists():
            run("ip", "netns", "add", name)
            in_netns(name, "ip", "link", "set", "lo", "up")

    def start_agent(self, *, is_waiting: bool = True) -> None:
        """Start the agent; wait until it has converged."""
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "agent.yaml"
        config.write_text(
            f"node: {self.name}\nnode_address: {self.address}\nrun_dir: {self.run_dir}\n"
            f"state_dir: {self.state_dir}\ndatastore: {self.datastore}\nlog_level: warning\n"
            + (f"kubeconfig: {self.kubeconfig}\n" if self.kubeconfig else "")
        )
        log = (self.directory / "agent.log").open("wb")
        self.agent = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.name}", "--",
             sys.executable, "-m", "pycni.agent", "--config", str(config)],
            cwd=ROOT, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        if is_waiting:
            self.wait(lambda s: bool(s["converged"]))

    def wait(
        self, is_reached: Callable[[dict[str, Any]], bool], timeout_s: float = 60.0
    ) -> dict[str, Any]:
        """Ask for the agent's status until it is as wanted."""
        from pycni.ctl.agentlink import ask
        from pycni.errors import PycniError

        deadline = time.monotonic() + timeout_s
        status: dict[str, Any] = {}
        while time.monotonic() < deadline:
            try:
                status = ask(self.run_dir, "status")
                if is_reached(status):
                    return status
            except PycniError:
                pass
            time.sleep(0.02)
        log = (self.directory / "agent.log").read_text()
        raise RuntimeError(f"{self.name} is not as wanted after {timeout_s} s: {status}\n{log}")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows with the same columns, as Markdown; the first column is a name."""
    heads = [head.replace("_", " ") for head in rows[0]]
    print(f"| {' | '.join(heads)} |")
    print("|---" + "|--:" * (len(heads) - 1) + "|")
    for row in rows:
        print(f"| {' | '.join(str(value) for value in row.values())} |")


def apply_pool(place: Sequence[str], *, cidr: str = "192.168.0.0/16", ipip: str = "Always") -> None:
    """Write a pool by the operator's own command; `place` are its words for the datastore."""
    manifest = json.dumps(
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": "IPPool",
            "metadata": {"name": "bench"},
            "spec": {"cidr": cidr, "ipipMode": ipip, "natOutgoing": True},
        }
    )
    run(
        sys.executable, "-m", "pycni.ctl", *place, "apply", "-f", "-",
        text=manifest,
    )  # fmt: skip
