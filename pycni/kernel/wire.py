"""Pack and unpack netlink messages and attributes: bytes here, values there, no sockets.

Hand-packed, because a general library spends about 1,450 calls on one route, and because the
engine that serves a CNI request in a fresh process can't afford to import one.
"""

import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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
_CODE = struct.Struct("=i")
_U32 = struct.Struct("=I")
_U32_ATTRIBUTE = struct.Struct("=HHI")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

HEADER_LENGTH = _HEADER.size


# Named tuples, not frozen dataclasses: every message is one, and they are made in a third of the
# time.


class Request(NamedTuple):
    """A message to the kernel, still without the sequence number that its socket gives it."""

    type: int
    flags: int
    body: bytes

    def packed(self, sequence: int) -> bytes:
        """Return the bytes to send; the kernel answers under the same sequence number."""
        length = HEADER_LENGTH + len(self.body)
        header = _HEADER.pack(length, self.type, self.flags | NLM_F_REQUEST, sequence, 0)
        return header + self.body + _PADDING[length & 3]


class Message(NamedTuple):
    """A message from the kernel."""

    type: int
    flags: int
    sequence: int
    body: bytes


class Ack(NamedTuple):
    """The kernel's answer to one request: errno (0 is success) and its own words, if any."""

    sequence: int
    errno: int
    text: str


def pack_batch(requests: Sequence[Request], *, first: int) -> bytes:
    """Return requests in one piece, numbered from `first` on; the last one asks for an answer."""
    parts = []
    left = len(requests)
    for sequence, (kind, flags, body) in enumerate(requests, first):
        left -= 1
        mode = NLM_F_REQUEST if left else NLM_F_REQUEST | NLM_F_ACK
        length = HEADER_LENGTH + len(body)
        parts.append(_HEADER.pack(length, kind, flags | mode, sequence, 0))
        parts.append(body + _PADDING[length & 3])
    return b"".join(parts)


def attribute(kind: int, payload: bytes) -> bytes:
    """Pack one attribute, padded to the four bytes that netlink aligns to."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + _PADDING[len(payload) & 3]


def u32(kind: int, value: int) -> bytes:
    """Pack an attribute that holds an unsigned 32-bit number in host order."""
    return _U32_ATTRIBUTE.pack(8, kind, value)


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
    """Read an NLMSG_ERROR (or the error that closes a dump), with a refusal's text if any."""
    code: int = _CODE.unpack_from(message.body)[0]
    if not code or not message.flags & NLM_F_ACK_TLVS:
        return Ack(message.sequence, -code, "")
    # The original header follows the code, and the whole request too unless it was capped.
    echoed = HEADER_LENGTH if message.type == NLMSG_ERROR else 0
    if message.type == NLMSG_ERROR and not message.flags & NLM_F_CAPPED:
        echoed = (int.from_bytes(message.body[4:8], sys.byteorder) + 3) & ~3
    tlvs = attributes(message.body, start=4 + echoed)
    return Ack(message.sequence, -code, parse_text(tlvs.get(_NLMSGERR_ATTR_MSG, b"")))
