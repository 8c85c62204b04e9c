"""Pack and unpack netlink messages and attributes: bytes here, values there, no sockets.

Hand-packed, because a general library spends about 1,450 calls on one route, and because the
engine that serves a CNI request in a fresh process can't afford to import one.
"""

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

NLM_F_REQUEST = 0x001
NLM_F_MULTI = 0x002
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_DUMP = 0x300
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3

_NLMSGERR_ATTR_MSG = 1
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

HEADER_LENGTH = _HEADER.size


@dataclass(frozen=True, slots=True)
class Request:
    """A message to the kernel, still without the sequence number that its socket gives it."""

    type: int
    flags: int
    body: bytes

    def packed(self, sequence: int) -> bytes:
        """Return the bytes to send; the kernel answers under the same sequence number."""
        length = HEADER_LENGTH + len(self.body)
        header = _HEADER.pack(length, self.type, self.flags | NLM_F_REQUEST, sequence, 0)
        return header + self.body + _PADDING[length & 3]


@dataclass(frozen=True, slots=True)
class Message:
    """A message from the kernel."""

    type: int
    flags: int
    sequence: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """The kernel's answer to one request: errno (0 is success) and its own words, if any."""

    sequence: int
    errno: int
    text: str


def attribute(kind: int, payload: bytes) -> bytes:
    """Pack one attribute, padded to the four bytes that netlink aligns to."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + _PADDING[len(payload) & 3]


def u32(kind: int, value: int) -> bytes:
    """Pack an attribute that holds an unsigned 32-bit number in host order."""
    return attribute(kind, _U32.pack(value))


def text(kind: int, value: str) -> bytes:
    """Pack an attribute that holds a terminated string."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *attributes: bytes) -> bytes:
    """Pack attributes into an attribute."""
    return attribute(kind | _NESTED, b"".join(attributes))


def parse_u32(payload: bytes) -> int:
    """Read an unsigned 32-bit number in host order."""
    value: int = _U32.unpack_from(payload)[0]
    return value


def parse_text(payload: bytes) -> str:
    """Read a terminated string; a name that isn't UTF-8 keeps its bytes as surrogates."""
    return payload.split(b"\0", 1)[0].decode(errors="surrogateescape")


def messages(datagram: bytes) -> Iterator[Message]:
    """Split what one `recv` returned into messages; a truncated tail is left out."""
    offset, end = 0, len(datagram)
    while offset + HEADER_LENGTH <= end:
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
        if length < HEADER_LENGTH or offset + length > end:
            return
        body = datagram[offset + HEADER_LENGTH : offset + length]
        yield Message(kind, flags, sequence, body)
        offset += (length + 3) & ~3


def attributes(data: bytes, *, start: int = 0) -> dict[int, bytes]:
    """Read the attributes from an offset on; of a repeated one the last counts."""
    found: dict[int, bytes] = {}
    end = len(data)
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > end:
            break
        found[kind & _TYPE_MASK] = data[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def parse_ack(message: Message) -> Ack:
    """Read an NLMSG_ERROR (or the error that closes a dump), with the extended text if any."""
    code = int.from_bytes(message.body[:4], sys.byteorder, signed=True)
    if not message.flags & NLM_F_ACK_TLVS:
        return Ack(message.sequence, -code, "")
    # The original header follows the code, and the whole request too unless it was capped.
    echoed = HEADER_LENGTH if message.type == NLMSG_ERROR else 0
    if message.type == NLMSG_ERROR and not message.flags & NLM_F_CAPPED:
        echoed = (int.from_bytes(message.body[4:8], sys.byteorder) + 3) & ~3
    tlvs = attributes(message.body, start=4 + echoed)
    return Ack(message.sequence, -code, parse_text(tlvs.get(_NLMSGERR_ATTR_MSG, b"")))
