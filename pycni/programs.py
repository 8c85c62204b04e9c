"""Other programs, run by a task that waits for them: bounded, and ended with the task.

A task that is cancelled has to end as cancelled.  Two things of asyncio's stand in the way: a
process that has ended by itself refuses `kill` (ProcessLookupError would take the cancellation's
place), and `asyncio.wait_for` of Python 3.11 forgets a cancellation that comes together with the
result.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from pycni.errors import TryAgain


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit status and what it wrote."""

    status: int
    output: str
    complaint: str

    @property
    def first_complaint(self) -> str:
        """Return the first line of what it complained of."""
        return self.complaint.strip().partition("\n")[0]


async def run(words: Sequence[str], *, timeout_s: float, stdin: str = "") -> Ended:
    """Run a program to its end; TimeoutError: it was killed after `timeout_s` seconds."""
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, complaint = await process.communicate(stdin.encode() if stdin else None)
    except BaseException:
        await kill(process)
        raise
    texts = (part.decode(errors="replace") for part in (output, complaint))
    return Ended(process.returncode or 0, *texts)


async def output_of(*words: str, timeout_s: float = 30, stdin: str = "") -> str:
    """Return what a program prints; raise `TryAgain` when it fails or hangs."""
    line = " ".join(words)
    try:
        ended = await run(words, timeout_s=timeout_s, stdin=stdin)
    except TimeoutError as exc:
        raise TryAgain(f"{line}: no answer within {timeout_s:g} s") from exc
    if ended.status:
        raise TryAgain(f"{line}: {ended.first_complaint or f'status {ended.status}'}")
    return ended.output


async def kill(process: asyncio.subprocess.Process) -> None:
    """Kill a program, which may have ended by itself, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def is_over(process: asyncio.subprocess.Process, *, within_s: float) -> bool:
    """Wait for a program's end for so long; return whether it has come.

    Also for a task that is being cancelled: there `asyncio.timeout` raises another cancellation.
    """
    end = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({end}, timeout=within_s)
        return end.done()
    finally:
        end.cancel()
