"""The lab's agents: their configuration, their processes, and what they say of themselves.

An agent that dies stays dead until somebody starts it: tests kill them to see what happens.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pycni.errors import NotFound, TryAgain
from pycni.lab import commands
from pycni.lab.layout import Layout
from pycni.lab.sockets import command
from pycni.topology.model import TopologyNode

# A number needs no entry in the password file; nobody else has this one.
BGP_USER = "64512"
HOLD_TIME_S = 9
STOP_TIMEOUT_S = 10.0
ASK_TIMEOUT_S = 10.0
ASK_LIMIT = 1 << 24
LOG_TAIL = 15


def is_reachable_by_all(path: Path) -> bool:
    """Say whether an unprivileged user could read this file: all its parents let them pass."""
    can_pass = all(place.stat().st_mode & 0o001 for place in path.parents)
    return can_pass and bool(path.stat().st_mode & 0o004)


def can_drop_privileges() -> bool:
    """Say whether ExaBGP can run as a user of its own.

    The lab shows the virtual environment at a place that all can reach; the interpreter behind it,
    and its library, may still lie in somebody's home.
    """
    return all(map(is_reachable_by_all, (Path(sys.executable).resolve(), Path(os.__file__))))


def agent_settings(node: TopologyNode, *, layout: Layout) -> Mapping[str, object]:
    """Return what an agent's configuration file says."""
    ipv6 = {"node_address6": str(node.address6)} if node.address6 is not None else {}
    return {
        "node": node.name,
        "node_address": str(node.address),
        **ipv6,
        "run_dir": str(layout.run_dir(node.name)),
        "state_dir": str(layout.state_dir(node.name)),
        "datastore": str(layout.datastore),
        "services_file": str(layout.services),
        "hold_time_s": HOLD_TIME_S,
        "bgp_user": BGP_USER if can_drop_privileges() else "",
        "exabgp_python": str(layout.python),
    }


def write_settings(node: TopologyNode, *, layout: Layout) -> None:
    """Make a node's directories and configuration."""
    for directory in (layout.run_dir(node.name), layout.state_dir(node.name)):
        directory.mkdir(parents=True)
    layout.services.parent.mkdir(exist_ok=True)
    text = yaml.safe_dump(dict(agent_settings(node, layout=layout)), sort_keys=False)
    layout.agent_config(node.name).write_text(text, encoding="utf-8")


class Agents:
    """The agent processes of a lab, by node."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    def is_running(self, node: str) -> bool:
        """Say whether a node's agent lives."""
        process = self._processes.get(node)
        return process is not None and process.returncode is None

    def pid(self, node: str) -> int | None:
        """Return the process id of a node's agent."""
        return self._processes[node].pid if self.is_running(node) else None

    async def start(self, node: str) -> None:
        """Start a node's agent in its network namespace."""
        if self.is_running(node):
            raise TryAgain(f"the agent of {node} runs already: stop it first")
        config = str(self._layout.agent_config(node))
        command = [sys.executable, "-I", "-m", "pycni.agent", "--config", config]
        with self._layout.agent_log(node).open("ab") as log:
            self._processes[node] = await asyncio.create_subprocess_exec(
                *commands.inside(node, command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=commands.environment(),
                cwd="/",
                start_new_session=True,
            )

    async def end(self, node: str, *, number: int = signal.SIGTERM) -> None:
        """Send an agent a signal that ends it, and wait until it has."""
        process = self._processes.get(node)
        if process is None or process.returncode is not None:
            raise NotFound(
                f"no agent runs on {node}: start it with  {self._command('start', node)}"
            )
        process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            raise TryAgain(
                f"the agent of {node} ignored signal {number} for {STOP_TIMEOUT_S:g} s:"
                " it was killed"
            ) from None

    def way_on(self, node: str) -> str:
        """Say what to do about an agent that doesn't answer."""
        return (
            f"start it with  {self._command('start', node)}, or see  {self._command('log', node)}"
        )

    def _command(self, verb: str, node: str) -> str:
        return command(f"agent {verb} {node}", self._layout.name)

    async def ask(self, node: str, question: str) -> dict[str, Any]:
        """Ask an agent on its control socket; TryAgain: it does not answer (yet)."""
        path = self._layout.run_dir(node) / "control.sock"
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(str(path), limit=ASK_LIMIT)
                try:
                    writer.write(json.dumps({"question": question}).encode() + b"\n")
                    line = await reader.readline()
                finally:
                    writer.close()
            answer: dict[str, Any] = json.loads(line)["answer"]
        except TimeoutError as exc:
            raise TryAgain(f"the agent of {node} gave no answer in {ASK_TIMEOUT_S:g} s") from exc
        except OSError as exc:
            raise TryAgain(f"the agent of {node} does not answer: {self.way_on(node)}") from exc
        except (ValueError, KeyError) as exc:
            raise TryAgain(f"the agent of {node} answered nonsense: {exc!r}") from exc
        return answer

    def log_tails(self, node: str) -> dict[str, list[str]]:
        """Return the last lines of what an agent and its ExaBGP have written, by file name."""
        tails = {}
        for path in (self._layout.agent_log(node), self._layout.run_dir(node) / "exabgp.log"):
            if path.exists():
                text = path.read_text(encoding="utf-8", errors="replace")
                tails[path.name] = text.splitlines()[-LOG_TAIL:]
        return tails
