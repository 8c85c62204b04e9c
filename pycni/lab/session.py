"""One connection seen from the supervisor: a client's request, its input, and what it is shown."""

import asyncio
import time

from pycni.errors import InvalidInput
from pycni.lab.frames import (
    HEADER,
    Frame,
    Kind,
    Request,
    decode_header,
    decode_request,
    encode,
    number,
)

REQUEST_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 3.0
DEFAULT_WIDTH = 100
_ERASE_LINE = "\r\x1b[K"


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """Read one frame; None: the other end is gone."""
    try:
        kind, length = decode_header(await reader.readexactly(HEADER.size))
        return Frame(kind, await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class Session:
    """Talks to one client; a client that is gone is written to in vain, without an error."""

    def __init__(
        self, request: Request, *, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.request = request
        self._reader = reader
        self._writer = writer
        self._began = time.monotonic()
        self._progress = ""
        self.incoming: asyncio.Queue[Frame] = asyncio.Queue()

    @property
    def is_terminal(self) -> bool:
        """Say whether a person's terminal shows what is printed."""
        return self.request.terminal is not None

    @property
    def width(self) -> int:
        """Return how many columns there are to print in."""
        terminal = self.request.terminal
        return terminal.columns if terminal is not None else DEFAULT_WIDTH

    async def receive(self) -> None:
        """Queue what the client sends, until it is gone."""
        while (frame := await read_frame(self._reader)) is not None:
            self.incoming.put_nowait(frame)

    async def send(self, kind: Kind, payload: bytes) -> None:
        """Send output as it is; waits for a slow client."""
        try:
            self._writer.write(encode(Frame(kind, payload)))
            await self._writer.drain()
        except (ConnectionError, RuntimeError):
            pass  # the task that reads notices, and ends this session

    async def say(self, *lines: str) -> None:
        """Print lines to standard output."""
        await self._clear()
        await self.send(Kind.STDOUT, "".join(f"{line}\n" for line in lines).encode())

    async def complain(self, *lines: str) -> None:
        """Print lines to standard error."""
        await self._clear()
        await self.send(Kind.STDERR, "".join(f"{line}\n" for line in lines).encode())

    async def step(self, text: str) -> None:
        """Note a finished step, with the time since the beginning."""
        await self.say(f"[{time.monotonic() - self._began:5.1f} s] {text}")

    async def progress(self, text: str) -> None:
        """Show where we are: one changing line on a terminal, a line per change elsewhere."""
        if text == self._progress:
            return
        if not self.is_terminal:
            await self.step(text)
            self._progress = text
            return
        self._progress = text
        line = f"[{time.monotonic() - self._began:5.1f} s] {text}"[: self.width - 1]
        await self.send(Kind.STDOUT, f"{_ERASE_LINE}{line}".encode())

    async def _clear(self) -> None:
        if self._progress and self.is_terminal:
            await self.send(Kind.STDOUT, _ERASE_LINE.encode())
        self._progress = ""

    async def finish(self, status: int) -> None:
        """Send the exit status and wait until the client has it."""
        try:
            self._writer.write(encode(number(Kind.EXIT, value=status)))
            await self._writer.drain()
            # The client closes when it has read this; only then may the line to it go away.
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while await self._reader.read(4096):
                    pass
        except (OSError, TimeoutError, RuntimeError):
            pass


async def accept_request(reader: asyncio.StreamReader) -> Request:
    """Read a connection's first frame."""
    async with asyncio.timeout(REQUEST_TIMEOUT_S):
        frame = await read_frame(reader)
    if frame is None:
        raise InvalidInput("the client left without a request")
    return decode_request(frame)
