"""Run a program in a namespace for a client: on a terminal of its own, or over pipes."""

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable, Mapping, Sequence

from pycni.lab import commands
from pycni.lab.frames import Frame, Kind, Terminal, number_of, size_of
from pycni.lab.session import Session

CHUNK = 65536
HANG_UP_TIMEOUT_S = 2.0
DRAIN_S = 0.3
SIGNALLED = 128


def shell_command(place: str) -> tuple[list[str], dict[str, str]]:
    """Return an interactive shell and the variables that make its prompt say where it is."""
    shell = ["bash", "--norc", "--noprofile"] if os.path.exists("/bin/bash") else ["sh"]  # noqa: PTH110
    return shell, {"PS1": f"{place}# "}


async def run(session: Session, *, words: Sequence[str], env: Mapping[str, str]) -> int:
    """Run the program to its end; return its exit status as a shell gives it."""
    terminal = session.request.terminal
    if terminal is not None:
        status = await _run_on_terminal(session, words, {**env, "TERM": terminal.kind})
    else:
        status = await _run_on_pipes(session, words, env)
    return status if status >= 0 else SIGNALLED - status


async def _run_on_terminal(session: Session, words: Sequence[str], env: Mapping[str, str]) -> int:
    master, slave = os.openpty()
    assert session.request.terminal is not None  # noqa: S101 - the caller looked
    _set_size(master, session.request.terminal)
    try:
        # The first terminal that a session's leader opens becomes its own: setsid -c does that.
        process = await asyncio.create_subprocess_exec(
            "setsid", "-c", "-w", *words,
            stdin=slave, stdout=slave, stderr=slave,
            env=commands.environment(env), cwd="/",
        )  # fmt: skip
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    os.set_blocking(master, False)
    feeding = asyncio.create_task(_feed_terminal(session, master, process), name="terminal input")
    showing = asyncio.create_task(_show_terminal(session, master), name="terminal output")
    try:
        status = await process.wait()
        # What it started in the background may hold the terminal for long: show what is there.
        await asyncio.wait({showing}, timeout=DRAIN_S)
        return status
    finally:
        feeding.cancel()
        showing.cancel()
        await asyncio.gather(feeding, showing, return_exceptions=True)
        # Closing the master hangs the terminal's programs up.
        os.close(master)
        await _end(process)


async def _show_terminal(session: Session, master: int) -> None:
    while True:
        try:
            piece = os.read(master, CHUNK)
        except BlockingIOError:
            await _readable(master)
            continue
        except OSError:
            return  # EIO: the last program has closed it
        if not piece:
            return
        await session.send(Kind.STDOUT, piece)


async def _feed_terminal(
    session: Session, master: int, process: asyncio.subprocess.Process
) -> None:
    while True:
        frame = await session.incoming.get()
        if frame.kind is Kind.STDIN:
            # A person types slowly and a paste fits the terminal's buffer; what doesn't waits.
            rest = frame.payload or b"\x04"
            while rest:
                try:
                    rest = rest[os.write(master, rest) :]
                except BlockingIOError:
                    await _writable(master)
                except OSError:
                    return
        elif frame.kind is Kind.RESIZE:
            rows, columns = size_of(frame)
            _set_size(master, Terminal("", rows, columns))
        elif frame.kind is Kind.SIGNAL:
            commands.kill_group(process, number=number_of(frame))


def _set_size(master: int, terminal: Terminal) -> None:
    packed = struct.pack("4H", terminal.rows, terminal.columns, 0, 0)
    fcntl.ioctl(master, termios.TIOCSWINSZ, packed)


async def _run_on_pipes(session: Session, words: Sequence[str], env: Mapping[str, str]) -> int:
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=commands.environment(env),
        cwd="/",
        start_new_session=True,
    )
    feeding = asyncio.create_task(_feed_pipe(session, process), name="standard input")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(session, process.stdout, Kind.STDOUT))
            group.create_task(_copy(session, process.stderr, Kind.STDERR))
        return await process.wait()
    finally:
        feeding.cancel()
        await _end(process)


async def _copy(session: Session, stream: asyncio.StreamReader | None, kind: Kind) -> None:
    assert stream is not None  # noqa: S101 - both are pipes
    while piece := await stream.read(CHUNK):
        await session.send(kind, piece)


async def _feed_pipe(session: Session, process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None  # noqa: S101 - a pipe
    while True:
        frame: Frame = await session.incoming.get()
        if frame.kind is Kind.STDIN and frame.payload:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(frame.payload)
                await process.stdin.drain()
        elif frame.kind is Kind.STDIN:
            process.stdin.close()
        elif frame.kind is Kind.SIGNAL:
            commands.kill_group(process, number=number_of(frame))


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a program whose client is gone; one that ended already is left alone."""
    if process.returncode is not None:
        return
    commands.kill_group(process, number=signal.SIGHUP)
    try:
        async with asyncio.timeout(HANG_UP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        commands.kill_group(process)
        await process.wait()


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    await _ready(descriptor, watch=loop.add_reader, forget=loop.remove_reader)


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    await _ready(descriptor, watch=loop.add_writer, forget=loop.remove_writer)


async def _ready(
    descriptor: int, *, watch: Callable[..., None], forget: Callable[[int], bool]
) -> None:
    ready = asyncio.Event()
    watch(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        forget(descriptor)
