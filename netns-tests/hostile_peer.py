"""A BGP speaker that says what it must not.  Standard library: it runs in a place of the lab.

python3 hostile_peer.py LOCAL REMOTE AS MODE [ARGUMENT]: opens a session from LOCAL and does

  announce SECONDS FILE
                     10,000 prefixes of others, and what would hurt the node most; then keeps still,
                     so long or until there is such a file
  flap SECONDS       100 times a second a block of another node and a stranger's, there and gone
  send NAME SECONDS  one bad message; then listens, so long or until it has heard the end
  rush SECONDS       opens session after session and breaks each off without a word

It prints a line of JSON: whether the session came up, what NOTIFICATION came back, and whether the
peer closed it.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

PORT = 179
OPEN_WITHIN_S = 30
MARKER = b"\xff" * 16
OPEN, UPDATE, NOTIFICATION, KEEPALIVE = 1, 2, 3, 4
ORIGIN, AS_PATH, NEXT_HOP = 1, 2, 3
TRANSITIVE = 0x40
FOREIGN = [f"{20 + n // 65536}.{n // 256 % 256}.{n % 256}.0/24" for n in range(10_000)]
HURTFUL = [
    "0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1",
    "10.10.7.20/32", "10.10.0.0/20", "10.10.0.1/32", "10.10.24.89/32",
    "192.168.39.192/26", "192.168.39.193/32", "192.168.39.194/32", "192.168.0.0/16",
    "192.168.247.0/26", "192.168.247.10/32", "192.168.99.0/26",
    "127.0.0.0/8", "127.0.0.1/32", "169.254.1.1/32", "224.0.0.0/4", "240.0.0.0/4",
    "255.255.255.255/32",
]  # fmt: skip


def message(kind: int, body: bytes) -> bytes:
    return MARKER + struct.pack("!HB", 19 + len(body), kind) + body


def nlri(prefix: str) -> bytes:
    address, _, length = prefix.partition("/")
    return bytes([int(length)]) + socket.inet_aton(address)[: (int(length) + 7) // 8]


def attribute(kind: int, value: bytes, *, flags: int = TRANSITIVE) -> bytes:
    return bytes([flags, kind, len(value)]) + value


def attributes(number: int, next_hop: str) -> bytes:
    return (
        attribute(ORIGIN, b"\0")
        + attribute(AS_PATH, bytes([2, 1]) + struct.pack("!I", number))
        + attribute(NEXT_HOP, socket.inet_aton(next_hop))
    )


def update(announced: Iterable[str], paths: bytes, *, withdrawn: Iterable[str] = ()) -> bytes:
    gone = b"".join(map(nlri, withdrawn))
    there = b"".join(map(nlri, announced))
    paths = paths if there else b""
    body = struct.pack("!H", len(gone)) + gone + struct.pack("!H", len(paths)) + paths + there
    return message(UPDATE, body)


def bad_messages(paths: bytes) -> dict[str, bytes]:
    """What no speaker sends: broken headers, lengths that lie, attributes that contradict."""
    good = nlri("20.0.0.0/24")

    def raw(body_paths: bytes, rest: bytes = good, *, length: int | None = None) -> bytes:
        size = len(body_paths) if length is None else length
        return message(UPDATE, struct.pack("!HH", 0, size) + body_paths + rest)

    return {
        "wrong marker": b"\0" * 16 + struct.pack("!HB", 19, KEEPALIVE),
        "too short": MARKER + struct.pack("!HB", 5, KEEPALIVE),
        "too long": MARKER + struct.pack("!HB", 65535, UPDATE) + bytes(65516),
        "unknown type": message(77, b"x"),
        "truncated": update(["20.0.0.0/24"], paths)[:-3],
        "random": bytes(range(256)) * 16,
        "prefix of 33 bits": raw(paths, bytes([33]) + bytes(5)),
        "prefix that ends early": raw(paths, bytes([24, 20])),
        "attributes longer than the message": raw(paths, length=4000),
        "an attribute longer than all": raw(
            attribute(ORIGIN, b"\0") + bytes([TRANSITIVE, AS_PATH, 200, 1])
        ),
        "no next hop": raw(attribute(ORIGIN, b"\0") + attribute(AS_PATH, b"")),
        "an origin of two bytes": raw(attribute(ORIGIN, b"\0\0") + paths[4:]),
        "an origin that is none": raw(attribute(ORIGIN, b"\x09") + paths[4:]),
        "an AS path that ends early": raw(
            attribute(ORIGIN, b"\0") + attribute(AS_PATH, bytes([2, 9, 0, 1])) + paths[-7:]
        ),
        "the same attribute twice": raw(paths + attribute(ORIGIN, b"\1")),
        "a next hop of three bytes": raw(paths[:-7] + attribute(NEXT_HOP, b"\x0a\x0a\x00")),
        "an unknown attribute that all must know": raw(paths + attribute(99, b"x")),
        "withdrawn longer than the message": message(UPDATE, struct.pack("!H", 900) + bytes(8)),
        "a notification with nonsense": message(NOTIFICATION, b"\xff\xff" + bytes(200)),
        "open again": message(OPEN, bytes(10)),
    }


@dataclass
class Session:
    """One connection, with what came back."""

    local: str
    remote: str
    number: int
    notification: list[int] = field(default_factory=list)
    is_closed: bool = False
    _buffer: bytes = b""

    def establish(self) -> bool:
        """Open until the session is established: the peer may still hold the one before."""
        end = time.monotonic() + OPEN_WITHIN_S
        while not self._is_opened():
            self.socket.close()
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
            self.notification, self.is_closed, self._buffer = [], False, b""
        return True

    def _is_opened(self) -> bool:
        try:
            return self.open()
        except OSError:
            return False

    def open(self) -> bool:
        """Connect and exchange OPENs; whether the session is established."""
        self.socket = socket.socket()
        self.socket.settimeout(10)
        self.socket.bind((self.local, 0))
        self.socket.connect((self.remote, PORT))
        families = b"\x01\x04\0\x01\0\x01"
        wide = b"\x41\x04" + struct.pack("!I", self.number)
        capabilities = families + wide
        options = bytes([2, len(capabilities)]) + capabilities
        head = struct.pack("!BHH", 4, self.number, 90) + socket.inet_aton(self.local)
        self.socket.sendall(message(OPEN, head + bytes([len(options)]) + options))
        seen = [self._receive(), self._receive()] if self._receive_open() else []
        return KEEPALIVE in seen[:1] or KEEPALIVE in seen

    def _receive_open(self) -> bool:
        kind = self._receive()
        if kind == OPEN:
            self.socket.sendall(message(KEEPALIVE, b""))
        return kind == OPEN

    def _receive(self) -> int:
        """Return the type of the next message; 0 when there is none any more."""
        while len(self._buffer) < 19 or len(self._buffer) < self._length():
            try:
                piece = self.socket.recv(65536)
            except OSError:
                return 0
            if not piece:
                self.is_closed = True
                return 0
            self._buffer += piece
        length = self._length()
        whole, self._buffer = self._buffer[:length], self._buffer[length:]
        if whole[18] == NOTIFICATION:
            self.notification = [whole[19], whole[20]]
        return whole[18]

    def _length(self) -> int:
        return max(19, int.from_bytes(self._buffer[16:18], "big"))

    def send(self, data: bytes) -> None:
        """Send, unless the peer has had enough."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.is_closed = True

    def is_over(self) -> bool:
        """Tell whether the peer has ended the session."""
        return self.is_closed or bool(self.notification)

    def listen(self, seconds: float, until: str = "/nowhere") -> None:
        """Take in what comes for a while, or until a file is there; keep the session alive."""
        end = time.monotonic() + seconds
        spoken = 0.0
        self.socket.settimeout(0.1)
        while time.monotonic() < end and not self.is_over() and not Path(until).exists():
            if time.monotonic() - spoken > 2:
                self.send(message(KEEPALIVE, b""))
                spoken = time.monotonic()
            self._receive()

    def result(self, *, is_up: bool) -> str:
        return json.dumps(
            {"up": is_up, "notification": self.notification, "closed": self.is_closed}
        )


def announce(session: Session, seconds: float, until: str) -> None:
    own = attributes(session.number, session.local)
    for at in range(0, len(FOREIGN), 800):
        session.send(update(FOREIGN[at : at + 800], own))
    for next_hop in (session.local, session.remote, "10.10.24.89", "127.0.0.1", "0.0.0.0"):
        session.send(update(HURTFUL, attributes(session.number, next_hop)))
    session.listen(seconds, until)


def flap(session: Session, seconds: float) -> None:
    prefixes = ["192.168.247.0/26", "20.0.0.0/24", "0.0.0.0/0"]
    own = attributes(session.number, session.local)
    end = time.monotonic() + seconds
    while time.monotonic() < end and not session.is_closed:
        session.send(update(prefixes, own))
        session.send(update([], b"", withdrawn=prefixes))
        time.sleep(0.01)
    session.listen(1)


def rush(local: str, remote: str, number: int, seconds: float) -> int:
    count = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        session = Session(local, remote, number)
        try:
            session.open()
        except OSError:
            time.sleep(0.05)
        session.socket.close()
        count += 1
    return count


def main() -> None:
    local, remote, number, mode, *rest = sys.argv[1:]
    if mode == "rush":
        count = rush(local, remote, int(number), float(rest[0]))
        sys.stdout.write(json.dumps({"sessions": count}))
        return
    session = Session(local, remote, int(number))
    is_up = session.establish()
    if mode == "send":
        session.send(bad_messages(attributes(session.number, local))[rest[0]])
        session.listen(float(rest[1]))
    elif mode == "announce":
        announce(session, float(rest[0]), rest[1])
    else:
        flap(session, float(rest[0]))
    sys.stdout.write(session.result(is_up=is_up))


if __name__ == "__main__":
    main()
