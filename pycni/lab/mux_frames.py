"""The multiplexer's wire format: frames to bytes and back. Pure.

A frame is a type, a stream's number, a length and a payload. A line that carries anything else is
broken for good: there is no way to find the next frame's start again.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from pycni.errors import InvalidInput

# The side that is started last says this first; what comes before is the line's own noise.
HELLO = b"\x00pycni-mux-1\n"
# Small, so that a keystroke waits only for one of them behind a bulk transfer.
MAX_PAYLOAD = 1024
_HEADER = struct.Struct(">BIH")
_CREDIT = struct.Struct(">I")


class Kind(IntEnum):
    """What a frame says of its stream."""

    OPEN = 1
    DATA = 2
    CREDIT = 3  # the receiver has room for so many bytes more
    FIN = 4  # no more data from this side; the other direction goes on
    RESET = 5  # forget the stream, both directions
    ALIVE = 6  # of no stream: the line still has somebody at its end
    HEARD = 7  # of no stream: so many bytes of the line were read


@dataclass(frozen=True, slots=True)
class Frame:
    """One message about one stream."""

    kind: Kind
    stream: int
    payload: bytes = b""

    @property
    def credit(self) -> int:
        """Read a CREDIT's or HEARD's number of bytes."""
        return int(_CREDIT.unpack(self.payload)[0])


def credit(stream: int, size: int) -> Frame:
    """Make a CREDIT."""
    return Frame(Kind.CREDIT, stream, _CREDIT.pack(size))


def heard(size: int) -> Frame:
    """Make a HEARD."""
    return Frame(Kind.HEARD, 0, _CREDIT.pack(size))


def encoded_size(frame: Frame) -> int:
    """Return how many bytes of the line a frame takes."""
    return _HEADER.size + len(frame.payload)


def encode(frame: Frame) -> bytes:
    """Render a frame for the line."""
    return _HEADER.pack(frame.kind, frame.stream, len(frame.payload)) + frame.payload


class Decoder:
    """Cut what the line delivers, in pieces of any size, into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[Frame]:
        """Add bytes; return the frames that they complete. InvalidInput: the line is broken."""
        self._rest += piece
        frames = []
        start = 0
        while len(self._rest) - start >= _HEADER.size:
            kind, stream, length = _HEADER.unpack_from(self._rest, start)
            check_header(kind, length)
            end = start + _HEADER.size + length
            if end > len(self._rest):
                break
            frames.append(Frame(Kind(kind), stream, bytes(self._rest[start + _HEADER.size : end])))
            start = end
        del self._rest[:start]
        return frames


def check_header(kind: int, length: int) -> None:
    """Refuse a header that no multiplexer of ours has written."""
    if kind not in Kind.__members__.values():
        raise InvalidInput(f"the line carries something else: {kind} is no type of a frame")
    numbers = (Kind.CREDIT, Kind.HEARD)
    limit = MAX_PAYLOAD if kind == Kind.DATA else _CREDIT.size if kind in numbers else 0
    if length > limit or (kind in numbers and length != limit):
        raise InvalidInput(f"the line carries something else: {length} bytes in a frame {kind}")
