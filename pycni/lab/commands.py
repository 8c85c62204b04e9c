"""Run programs inside the lab's network namespaces and collect what they say."""

import asyncio
import contextlib
import os
import pwd
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pycni.errors import TryAgain
from pycni.lab.layout import netns_path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Ran:
    """A program's end: its exit status and output."""

    status: int
    output: str
    errors: str

    @property
    def complaint(self) -> str:
        """Return the last line that says what went wrong."""
        said = (self.errors.strip() or self.output.strip()).splitlines()
        return said[-1] if said else f"status {self.status}"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of everything that runs in the lab: nothing of its starter's."""
    return {"PATH": PATH, "HOME": pwd.getpwuid(0).pw_dir, "LANG": "C.UTF-8", **(extra or {})}


def inside(place: str, command: Sequence[str]) -> list[str]:
    """Return the command that runs another one in a node, host, pod or the router."""
    return ["nsenter", f"--net={netns_path(place)}", "--", *command]


async def run(
    *words: str,
    place: str | None = None,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Ran:
    """Run a program to its end; one that takes too long is killed and counts as failed."""
    command = inside(place, words) if place is not None else list(words)
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(env),
        cwd="/",
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await process.communicate(stdin.encode() if stdin else None)
    except TimeoutError:
        return Ran(124, "", f"{words[0]} took longer than {timeout_s:g} s")
    finally:
        kill_group(process)
    return Ran(process.returncode or 0, output.decode(), errors.decode(errors="replace"))


def kill_group(process: asyncio.subprocess.Process, *, number: int = signal.SIGKILL) -> None:
    """Send a signal to a program of ours that still runs, and to all that it started."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


async def must(
    *words: str,
    place: str | None = None,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program that has to succeed; return its output."""
    ran = await run(*words, place=place, stdin=stdin, env=env)
    if ran.status != 0:
        where = f" in {place}" if place is not None else ""
        raise TryAgain(f"cannot run {' '.join(words)}{where}: {ran.complaint}")
    return ran.output
