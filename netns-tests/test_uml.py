"""User-mode Linux as the lab uses it: started on this machine, seen from outside and inside."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pycni.lab.mux import Line, serve_clients, socket_address
from pycni.lab.uml_guest import STATE_PARENT, STATE_PREFIX, Guest, Spec

CLONE = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-I", "-m", "pycni.lab.uml"]

is_outside = pytest.mark.skipif(
    shutil.which("linux.uml") is None, reason="user-mode-linux is not installed (bin/ensure uml)"
)


def uml(
    *arguments: str, cwd: Path = CLONE, command: Sequence[str] = COMMAND
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*command, *arguments], cwd=cwd, capture_output=True, timeout=120, check=False
    )


@pytest.fixture
def shared() -> Iterator[Path]:
    """Give a directory that is neither in /tmp nor in the clone."""
    # Not named by process id: those repeat in each namespace.
    path = Path(tempfile.mkdtemp(prefix="pycni-test.", dir=STATE_PARENT))
    yield path
    shutil.rmtree(path)


def wait_for(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("it did not happen in time")
        time.sleep(0.02)  # what we wait for has no event: another machine's or process's state


def machines_of(marker: str) -> list[int]:
    """Find processes by a word of their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if marker.encode() in words and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


@pytest.mark.netns
@is_outside
def test_streams_arrive_apart_and_byte_for_byte(shared: Path) -> None:
    every_byte = bytes(range(256)) * 64
    (shared / "bytes").write_bytes(every_byte)

    ran = uml("--", "sh", "-c", f"cat {shared}/bytes; cat {shared}/bytes >&2; exit 7")

    assert (ran.returncode, ran.stdout, ran.stderr) == (7, every_byte, every_byte)


@pytest.mark.netns
@is_outside
def test_guest_has_a_real_tunnel_interface() -> None:
    ran = uml("--", "ip", "-d", "link", "show", "tunl0")

    assert b"ipip" in ran.stdout


@pytest.mark.netns
@is_outside
def test_writes_vanish_except_where_they_are_asked_for(shared: Path) -> None:
    script = f"echo kept >{shared}/kept; echo gone >/etc/pycni-gone; cat /etc/pycni-gone"

    ran = uml("--rw", str(shared), "--", "sh", "-c", script)

    assert ran.stdout == b"gone\n"
    assert (shared / "kept").read_text() == "kept\n"
    assert not Path("/etc/pycni-gone").exists()


@pytest.mark.netns
@is_outside
def test_environment_reaches_the_command() -> None:
    ran = uml("--env", "WORD=a 'b' $c", "--", "sh", "-c", 'echo "$WORD" "$PYCNI_IN_UML"')

    assert ran.stdout == b"a 'b' $c 1\n"


@pytest.mark.netns
@is_outside
def test_command_without_end_is_ended() -> None:
    ran = uml("--timeout", "6", "--", "sleep", "600")

    assert ran.returncode == 124
    assert b"timed out after 6 s" in ran.stderr


@pytest.mark.netns
@is_outside
def test_machine_that_does_not_boot_shows_its_log() -> None:
    ran = uml("--mem", "8M", "--timeout", "60", "--", "true")

    assert ran.returncode == 125
    assert b"its log" in ran.stderr


@pytest.mark.netns
@is_outside
def test_interrupt_reaches_the_command_and_ends_everything() -> None:
    script = "trap 'echo interrupted; exit' INT; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen([*COMMAND, "--", "sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()

    assert (process.returncode, rest) == (130, b"interrupted\n")


def text_of(path: Path) -> str:
    """Return what a file has; nothing if it went with its machine since it was listed."""
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.mark.netns
@is_outside
def test_nothing_is_left_of_a_caller_that_is_killed() -> None:
    # Other machines may be running here; process ids repeat in each namespace.
    ours = f"sleep 600.{secrets.randbelow(10**9)}"
    with subprocess.Popen(
        [*COMMAND, "--", "sh", "-c", f"echo ready; {ours}"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (directory,) = [
            path.parent
            for path in STATE_PARENT.glob(f"{STATE_PREFIX}*/cmd")
            if ours in text_of(path)
        ]
        assert machines_of(f"pycni.dir={directory}")

        process.kill()

    wait_for(lambda: not directory.exists())
    # The machine and the guardian both have the directory in their arguments.
    wait_for(lambda: not machines_of(str(directory)))


@pytest.mark.netns
@is_outside
def test_clone_below_tmp_is_seen_from_inside(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(CLONE / "pycni", clone / "pycni")
    (clone / "word").write_text("seen\n")
    assert clone.is_relative_to("/tmp"), "pytest keeps its directories there"

    # The copy's own package, by PYTHONPATH: its idea of where the clone is counts.
    ran = subprocess.run(
        [sys.executable, "-m", "pycni.lab.uml", "--",
         "sh", "-c", "cat word; echo x >word; ls pycni/lab/uml_init.sh"],
        cwd=clone, env={**os.environ, "PYTHONPATH": str(clone)},
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip

    assert ran.stdout.split() == [b"seen", b"pycni/lab/uml_init.sh"], ran.stderr
    assert (clone / "word").read_text() == "seen\n"


@pytest.mark.uml
def test_this_test_runs_where_real_tunnels_are() -> None:
    made = subprocess.run(
        ["ip", "link", "add", "ipip-test", "type", "ipip", "local", "127.0.0.1"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert made.returncode == 0, made.stderr
    assert os.environ["PYCNI_IN_UML"] == "1"


ECHO_INSIDE = """
import asyncio, os
from pycni.lab.mux import Line, serve_target

async def echo(reader, writer):
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    writer.close()

async def main():
    async with await asyncio.start_unix_server(echo, "\\0echo"):
        line = os.open(os.environ["PYCNI_CHANNEL"], os.O_RDWR | os.O_NOCTTY)
        await serve_target(Line(line), "@echo")

asyncio.run(main())
"""


@pytest.mark.netns
@is_outside
def test_megabyte_passes_the_channel_both_ways_unaltered() -> None:
    bulk = os.urandom(1 << 20)
    command = (sys.executable, "-I", "-c", ECHO_INSIDE)

    async def story() -> tuple[bytes, float]:
        ready = asyncio.Event()
        address = f"@pycni-test-{os.getpid()}"
        with Guest(Spec(command=command, has_channel=True)) as guest:
            assert guest.channel is not None
            line = Line(*guest.channel)
            serving = asyncio.create_task(serve_clients(line, address, on_ready=ready.set))
            async with asyncio.timeout(60):
                await ready.wait()
            reader, writer = await asyncio.open_unix_connection(socket_address(address))
            started = time.monotonic()
            writer.write(bulk)
            writer.write_eof()
            async with asyncio.timeout(60):
                answer = await reader.read()
            elapsed = time.monotonic() - started
            writer.close()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        return answer, elapsed

    answer, elapsed = asyncio.run(story())

    assert answer == bulk
    # Ten times what a busy two-core machine takes: a line that stalls and starts again shows.
    assert elapsed < 30
