"""A task that runs another program ends when it is cancelled, at whatever moment that comes."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable

import pytest

from pycni import programs
from pycni.bgp import child
from pycni.errors import TryAgain
from pycni.kernel import nft

Start = Callable[..., Awaitable[asyncio.subprocess.Process]]
Said = bytes | bytearray | memoryview | None


def test_a_programs_words_and_status_are_told() -> None:
    script = "import sys; print(sys.stdin.read()[::-1]); sys.exit('no\\nmore')"

    ran = asyncio.run(programs.run([sys.executable, "-c", script], stdin="ab", timeout_s=20))

    assert ran == programs.Ended(1, "ba\n", "no\nmore\n")
    assert ran.first_complaint == "no"


def test_a_program_that_takes_too_long_is_killed() -> None:
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        asyncio.run(programs.run(["sleep", "30"], timeout_s=0.05))

    assert time.monotonic() - began < 10


def test_a_program_that_fails_or_hangs_is_named() -> None:
    with pytest.raises(TryAgain, match="sh -c exit 4: status 4"):
        asyncio.run(programs.output_of("sh", "-c", "exit 4"))
    with pytest.raises(TryAgain, match="sh -c echo why >&2; exit 1: why"):
        asyncio.run(programs.output_of("sh", "-c", "echo why >&2; exit 1"))
    with pytest.raises(TryAgain, match=r"sleep 30: no answer within 0.05 s"):
        asyncio.run(programs.output_of("sleep", "30", timeout_s=0.05))


def lingering(start: Start, over: list[asyncio.Event]) -> Start:
    """Return what starts programs whose waiter hears of their end late, as one does that is busy.

    The program has ended and asyncio has let go of it: what comes between that and the waiter's
    next turn is drawn out, so that a test can meet it.
    """

    async def begin(*words: str, **options: int) -> asyncio.subprocess.Process:
        process = await start(*words, **options)
        communicate = process.communicate

        async def late(said: Said = None) -> tuple[bytes, bytes]:
            answer = await communicate(said)
            over[0].set()
            await asyncio.sleep(30)
            return answer

        process.communicate = late  # type: ignore[assignment, method-assign]
        return process

    return begin


def test_a_cancellation_is_not_lost_to_a_program_that_has_just_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("bin")
    (directory / "nft").write_text("#!/bin/sh\nexit 0\n")
    (directory / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    async def cancel_late() -> None:
        over = [asyncio.Event()]
        start = lingering(asyncio.create_subprocess_exec, over)
        monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
        nftables = nft.Nftables()
        task = asyncio.create_task(nftables.unavailable())
        await over[0].wait()
        task.cancel()
        try:
            with pytest.raises(asyncio.CancelledError):
                await task
        finally:
            nftables.close()

    asyncio.run(cancel_late())


@pytest.mark.parametrize("turns", range(8))
def test_a_cancellation_is_not_lost_while_exabgp_is_killed(turns: int) -> None:
    async def cancel_after(turns: int) -> None:
        process = await asyncio.create_subprocess_exec("sleep", "30")
        killed = asyncio.create_task(process.wait())
        stop = asyncio.create_task(child.stop(process))
        await killed
        for _ in range(turns):
            await asyncio.sleep(0)
        was_over = stop.done()
        stop.cancel()
        await asyncio.wait({stop})
        assert stop.cancelled() or was_over

    asyncio.run(cancel_after(turns))


def test_a_wait_for_a_program_is_bounded_also_while_cancelled() -> None:
    async def wait_in_cancellation() -> tuple[bool, float]:
        process = await asyncio.create_subprocess_exec("sleep", "30")

        async def clean_up() -> bool:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                return await programs.is_over(process, within_s=0.05)
            return True

        task = asyncio.create_task(clean_up())
        await asyncio.sleep(0)
        task.cancel()
        began = time.monotonic()
        is_over = await task
        process.send_signal(signal.SIGTERM)
        assert await programs.is_over(process, within_s=20)
        return is_over, time.monotonic() - began

    is_over, took_s = asyncio.run(wait_in_cancellation())

    assert not is_over
    assert took_s < 10
