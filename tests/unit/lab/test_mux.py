"""The multiplexer between two ends of a line in one process: a socket pair, or a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycni.errors import InvalidInput, TryAgain
from pycni.lab.mux import WINDOW, Line, Mux, serve_clients, serve_target, socket_address
from pycni.lab.mux_frames import HELLO

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Joined:
    """Two multiplexers on one line: clients come to `address`, `handler` serves them."""

    address: str
    host: asyncio.Task[None]
    guest: asyncio.Task[None]
    ends: tuple[socket.socket, socket.socket]

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(socket_address(self.address))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(8192):
            writer.write(piece)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def joined(
    handler: Handler = echo, *, fds: tuple[int, int] | None = None, noise: bytes = b""
) -> AsyncIterator[Joined]:
    ends = socket.socketpair()
    host_fd, guest_fd = fds or (ends[0].fileno(), ends[1].fileno())
    address = f"@pycni-test-{os.getpid()}-{id(ends)}"
    target = f"@pycni-test-target-{os.getpid()}-{id(ends)}"
    ready = asyncio.Event()
    server = await asyncio.start_unix_server(handler, socket_address(target))
    async with server:
        if noise:
            ends[1].sendall(noise)
        host = asyncio.create_task(serve_clients(Line(host_fd), address, on_ready=ready.set))
        guest = asyncio.create_task(serve_target(Line(guest_fd), target))
        await ready.wait()
        try:
            yield Joined(address, host, guest, ends)
        finally:
            for task in (host, guest):
                task.cancel()
            await asyncio.gather(host, guest, return_exceptions=True)
            for end in ends:
                end.close()


async def exchange(line: Joined, pieces: list[bytes]) -> bytes:
    """Send pieces and the end, return all that comes back."""
    reader, writer = await line.client()

    async def send() -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.write_eof()

    _, answer = await asyncio.gather(send(), reader.read())
    writer.close()
    await writer.wait_closed()
    return answer


def run(story: Awaitable[None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(15):
            await story

    asyncio.run(limited())


@settings(max_examples=50)
@given(st.lists(st.lists(st.binary(min_size=1, max_size=5000), max_size=6), min_size=1, max_size=4))
def test_every_stream_arrives_unaltered(streams: list[list[bytes]]) -> None:
    async def story() -> None:
        async with joined() as line:
            answers = await asyncio.gather(*(exchange(line, pieces) for pieces in streams))

            assert answers == [b"".join(pieces) for pieces in streams]

    run(story())


def test_large_streams_both_ways_at_once_do_not_stop_each_other() -> None:
    bulk = os.urandom(8 * WINDOW)

    async def story() -> None:
        async with joined() as line:
            assert await asyncio.gather(*(exchange(line, [bulk]) for _ in range(3))) == [bulk] * 3

    run(story())


def test_terminal_carries_every_byte() -> None:
    every_byte = bytes(range(256)) * 64

    async def story() -> None:
        master, slave = pty.openpty()
        try:
            Line(slave)  # raw before the first byte
            async with joined(fds=(master, slave)) as line:
                assert await exchange(line, [every_byte]) == every_byte
        finally:
            os.close(master)
            os.close(slave)

    run(story())


def test_end_of_input_leaves_the_other_direction_open() -> None:
    async def answer_after_the_end(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        question = await reader.read()
        writer.write(b"answer to " + question)
        writer.close()

    async def story() -> None:
        async with joined(answer_after_the_end) as line:
            assert await exchange(line, [b"question"]) == b"answer to question"

    run(story())


def test_reader_that_does_not_read_holds_up_nobody_else() -> None:
    async def story() -> None:
        async with joined() as line:
            _, lazy = await line.client()
            lazy.write(b"x" * (32 * WINDOW))  # the echo fills every buffer on the way

            assert await exchange(line, [b"quick"]) == b"quick"

            lazy.close()

    run(story())


def test_client_that_vanishes_is_forgotten_on_both_sides() -> None:
    gone = asyncio.Event()

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x" * 4096)
                await writer.drain()
        gone.set()

    async def story() -> None:
        async with joined(flood) as line:
            reader, writer = await line.client()
            await reader.readexactly(10)

            writer.transport.abort()

            await gone.wait()

    run(story())


def test_target_that_refuses_ends_the_client() -> None:
    async def story() -> None:
        near, far = socket.socketpair()
        client, local = socket.socketpair()
        with near, far, client:
            nobody = asyncio.create_task(serve_target(Line(far.fileno()), "@pycni-test-nobody"))
            near.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(near, 100) == HELLO
            mux = Mux(Line(near.fileno()))
            running = asyncio.create_task(mux.run())
            await asyncio.sleep(0)
            client.setblocking(False)

            mux.join(local)

            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
            assert mux.stream_count == 0
            for task in (running, nobody):
                task.cancel()
            await asyncio.gather(running, nobody, return_exceptions=True)

    run(story())


def test_death_of_the_line_ends_clients_and_both_sides() -> None:
    async def story() -> None:
        async with joined() as line:
            reader, writer = await line.client()
            writer.write(b"hello")
            await reader.readexactly(5)

            line.ends[1].shutdown(socket.SHUT_RDWR)

            assert await reader.read() == b""
            await line.host
            await line.guest
            writer.close()

    run(story())


def test_silence_on_the_line_is_its_death(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pycni.lab.mux.DEAD_AFTER_S", 0.05)

    async def story() -> None:
        near, far = socket.socketpair()
        with near, far:
            await Mux(Line(near.fileno())).run()

    run(story())


def test_both_sides_show_that_they_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pycni.lab.mux.ALIVE_EVERY_S", 0.01)

    async def story() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        with near, far:
            running = asyncio.create_task(Mux(Line(far.fileno())).run())
            assert (await asyncio.get_running_loop().sock_recv(near, 1)) == b"\x06"
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(story())


def test_noise_before_the_first_word_is_skipped() -> None:
    async def story() -> None:
        async with joined(noise=b"Welcome to tty2\r\n" + HELLO[:5]) as line:
            assert await exchange(line, [b"hello"]) == b"hello"

    run(story())


def test_other_side_that_never_comes_is_told() -> None:
    async def story() -> None:
        near, far = socket.socketpair()
        far.close()
        with near, pytest.raises(TryAgain, match="other side"):
            await serve_clients(Line(near.fileno()), "@pycni-test-never", on_ready=lambda: None)

    run(story())


def test_broken_line_is_an_error() -> None:
    async def story() -> None:
        near, far = socket.socketpair()
        with near, far:
            far.sendall(b"login: root, password: toor")
            with pytest.raises(InvalidInput, match="something else"):
                await Mux(Line(near.fileno())).run()

    run(story())


def test_stream_needs_a_running_line() -> None:
    near, far = socket.socketpair()
    with near, far, pytest.raises(TryAgain, match="not running"):
        Mux(Line(near.fileno())).join(far)


def test_path_of_the_clients_socket_is_removed(tmp_path: object) -> None:
    path = f"{tmp_path}/clients"

    async def story() -> None:
        near, far = socket.socketpair()
        with near, far:
            ready = asyncio.Event()
            far.sendall(HELLO)
            serving = asyncio.create_task(
                serve_clients(Line(near.fileno()), path, on_ready=ready.set)
            )
            await ready.wait()
            assert os.path.exists(path)  # noqa: ASYNC240, PTH110 - a test's look

            far.shutdown(socket.SHUT_RDWR)

            await serving
            assert not os.path.exists(path)  # noqa: ASYNC240, PTH110 - as above

    run(story())
