"""The terminal's side of a verb: carry keys, sizes and signals there, output and status back."""

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
import tty
from collections.abc import Iterator

from pycni.errors import TryAgain
from pycni.lab.frames import (
    Decoder,
    Frame,
    Kind,
    Request,
    Terminal,
    encode,
    encode_request,
    number,
    number_of,
    resize,
)

CHUNK = 65536
STDIN, STDOUT, STDERR = 0, 1, 2


def own_terminal() -> Terminal | None:
    """Return what standard output is, if it is a terminal."""
    if not os.isatty(STDOUT):
        return None
    rows, columns = _size()
    return Terminal(os.environ.get("TERM", "dumb"), rows, columns)


def _size() -> tuple[int, int]:
    packed = fcntl.ioctl(STDOUT, termios.TIOCGWINSZ, bytes(8))
    rows, columns, _, _ = struct.unpack("4H", packed)
    return rows or 24, columns or 80


def perform(connection: socket.socket, request: Request, *, has_input: bool) -> int:
    """Do one verb over a connection; return its exit status.

    With input, a terminal is put into raw mode and every key goes to the other side, ^C too.
    Without, ^C ends us (KeyboardInterrupt), which the other side sees.
    """
    connection.sendall(encode_request(request))
    with contextlib.ExitStack() as stack:
        stack.callback(connection.close)
        if not has_input:
            return _Exchange(connection, watch=()).run()
        is_terminal = request.terminal is not None
        signals = (signal.SIGWINCH,) if is_terminal else (signal.SIGINT, signal.SIGTERM)
        wake = stack.enter_context(_caught(signals))
        if is_terminal:
            stack.enter_context(_raw_mode())
        return _Exchange(connection, watch=(STDIN, wake)).run()


class _Exchange:
    """One verb's traffic, from the request to the exit status."""

    def __init__(self, connection: socket.socket, *, watch: tuple[int, ...]) -> None:
        self._connection = connection
        self._decoder = Decoder()
        self._poll = select.poll()
        self._wake = watch[1] if watch else -1
        for descriptor in (connection.fileno(), *watch):
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> int:
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._connection.fileno():
                    status = self._receive()
                    if status is not None:
                        return status
                elif descriptor == self._wake:
                    self._pass_signals()
                else:
                    self._pass_input()

    def _receive(self) -> int | None:
        try:
            piece = self._connection.recv(CHUNK)
        except ConnectionError:
            piece = b""
        if not piece:
            raise TryAgain("the lab ended before it had answered: see  bin/lab show")
        for frame in self._decoder.feed(piece):
            if frame.kind is Kind.STDOUT:
                _write_all(STDOUT, frame.payload)
            elif frame.kind is Kind.STDERR:
                _write_all(STDERR, frame.payload)
            elif frame.kind is Kind.EXIT:
                return number_of(frame)
        return None

    def _send(self, frame: Frame) -> None:
        with contextlib.suppress(ConnectionError):  # the reading side tells
            self._connection.sendall(encode(frame))

    def _pass_input(self) -> None:
        try:
            piece = os.read(STDIN, CHUNK)
        except OSError:
            piece = b""
        if not piece:
            self._poll.unregister(STDIN)
        self._send(Frame(Kind.STDIN, piece))

    def _pass_signals(self) -> None:
        for value in os.read(self._wake, 64):
            if value == signal.SIGWINCH:
                self._send(resize(*_size()))
            else:
                self._send(number(Kind.SIGNAL, value=value))


def _write_all(descriptor: int, octets: bytes) -> None:
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextlib.contextmanager
def _caught(signals: tuple[signal.Signals, ...]) -> Iterator[int]:
    """Give a descriptor from which the numbers of arriving signals can be read."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    former = signal.set_wakeup_fd(writing)
    handlers = {s: signal.signal(s, lambda *_: None) for s in signals}
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(former)
        for caught, handler in handlers.items():
            signal.signal(caught, handler)
        os.close(reading)
        os.close(writing)


@contextlib.contextmanager
def _raw_mode() -> Iterator[None]:
    """Hand every key on as it is, until the block ends."""
    if not sys.stdin.isatty():
        yield
        return
    former = termios.tcgetattr(STDIN)
    tty.setraw(STDIN)
    try:
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, former)
