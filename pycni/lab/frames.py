"""The lab's control protocol: frames to bytes and back, and the request that opens a connection.

Pure.  A connection carries one verb: the client sends REQUEST, then its standard input, window
sizes and signals; the supervisor sends output and, last, EXIT.  A frame is a kind, a length and a
payload.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from pycni.errors import InvalidInput

HEADER = struct.Struct(">BI")
MAX_PAYLOAD = 1 << 20
_SIZE = struct.Struct(">HH")
_NUMBER = struct.Struct(">B")


class Kind(IntEnum):
    """What a frame carries."""

    REQUEST = 1
    STDIN = 2  # an empty one is the end of standard input
    STDOUT = 3
    STDERR = 4
    RESIZE = 5
    SIGNAL = 6
    EXIT = 7


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of a connection."""

    kind: Kind
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Terminal:
    """The client's terminal: its kind (TERM) and size."""

    kind: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Request:
    """A verb with its arguments; `terminal` None: the client's output is no terminal."""

    verb: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    terminal: Terminal | None = None


def encode(frame: Frame) -> bytes:
    """Render a frame."""
    return HEADER.pack(frame.kind, len(frame.payload)) + frame.payload


def decode_header(octets: bytes) -> tuple[Kind, int]:
    """Read a frame's kind and length; InvalidInput: the other side speaks something else."""
    kind, length = HEADER.unpack(octets)
    if kind not in Kind.__members__.values() or length > MAX_PAYLOAD:
        raise InvalidInput(f"frame of kind {kind} and {length} bytes: no lab is at the other end")
    return Kind(kind), length


class Decoder:
    """Cut what a socket delivers, in pieces of any size, into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[Frame]:
        """Add bytes; return the frames that they complete."""
        self._rest += piece
        frames = []
        while len(self._rest) >= HEADER.size:
            kind, length = decode_header(bytes(self._rest[: HEADER.size]))
            end = HEADER.size + length
            if len(self._rest) < end:
                break
            frames.append(Frame(kind, bytes(self._rest[HEADER.size : end])))
            del self._rest[:end]
        return frames


def encode_request(request: Request) -> bytes:
    """Render a connection's first frame."""
    document: dict[str, Any] = {"verb": request.verb, "arguments": dict(request.arguments)}
    if request.terminal is not None:
        size = [request.terminal.rows, request.terminal.columns]
        document["terminal"] = [request.terminal.kind, *size]
    return encode(Frame(Kind.REQUEST, json.dumps(document).encode()))


def decode_request(frame: Frame) -> Request:
    """Read a connection's first frame."""
    if frame.kind is not Kind.REQUEST:
        raise InvalidInput(f"a connection begins with a request, not with {frame.kind.name}")
    try:
        document = json.loads(frame.payload)
        terminal = document.get("terminal")
        return Request(
            verb=str(document["verb"]),
            arguments=dict(document["arguments"]),
            terminal=Terminal(*terminal) if terminal else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InvalidInput(f"the request can't be read: {exc!r}") from exc


def resize(rows: int, columns: int) -> Frame:  # the order of TIOCSWINSZ
    """Say the terminal's new size."""
    return Frame(Kind.RESIZE, _SIZE.pack(min(rows, 65535), min(columns, 65535)))


def size_of(frame: Frame) -> tuple[int, int]:
    """Read a RESIZE: rows and columns."""
    rows, columns = _SIZE.unpack(frame.payload)
    return rows, columns


def number(kind: Kind, *, value: int) -> Frame:
    """Make an EXIT or a SIGNAL."""
    return Frame(kind, _NUMBER.pack(value))


def number_of(frame: Frame) -> int:
    """Read an EXIT's status or a SIGNAL's number."""
    return int(_NUMBER.unpack(frame.payload)[0])
