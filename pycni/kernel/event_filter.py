"""What the kernel keeps to itself: events that nobody here looks at, dropped before they wake us.

Half of what the kernel tells of a new pod are routes of its own `local` table, and the link-local
address and route that it gives every interface with IPv6 (that an address goes may matter: one
of them is a pod's gateway); neighbours that traffic finds matter as little, but for those of our
VXLAN devices, where nobody is to be found but by us.  And whoever asked the kernel for routes knows
which it got: of 10,000 learned ones, to read the echo takes as long as to decode what peers said.

A program of the classic packet filter on the event socket drops these.  It judges the one message
of each event by fixed offsets; where a message looks different, it lets it pass, and readers leave
out the rest of what doesn't matter.
"""

import socket
import struct
from array import array
from collections.abc import Collection

from pycni.kernel.wire_link import RTM_NEWADDR
from pycni.kernel.wire_neighbour import NUD_FAILED, NUD_PERMANENT, RTM_NEWNEIGH
from pycni.kernel.wire_route import LOCAL_TABLE, RTM_DELROUTE, RTM_NEWROUTE
from pycni.model.network import Scope

_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("=HBBI")

# Classic BPF (linux/bpf_common.h): load from an offset, mask, jump, return.
_LOAD_8, _LOAD_16, _LOAD_32 = 0x30, 0x28, 0x20
_AND, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x54, 0x15, 0x35, 0x06
_JUMP_IF_ANY = 0x45
_WHOLE, _NONE = 0xFFFFFFFF, 0

# Offsets in a message: its header is 16 bytes long.
_TYPE = 4
_SENDER = 12  # the port of the socket that asked for the change; 0 where the kernel itself did
_FAMILY = 16  # the same in rtmsg and ifaddrmsg
_ADDRESS_SCOPE = 19
_ROUTE_LENGTH, _ROUTE_TABLE = 17, 20
# Of an IPv6 route RTA_DST comes second, behind RTA_TABLE, and holds all 16 bytes.
_ROUTE_DST_HEADER, _ROUTE_DST = 36, 40
_DST_HEADER = struct.pack("=HH", 4 + 16, 1)
_NEIGHBOUR_INDEX, _NEIGHBOUR_STATE = 20, 24  # four and two bytes in the host's order
_LINK_LOCAL, _LINK_LOCAL_LENGTH, _LINK_LOCAL_MASK = 0xFE80, 10, 0xFFC0


def _type(number: int) -> int:
    """Return a message type as a load of two bytes, which takes them in network order, sees it."""
    return socket.htons(number)


# label, operation, operand; a jump goes to its first label or its second, anything else goes on.
_Program = tuple[tuple[str, int, int, str, str], ...]
_VERDICTS: _Program = (
    ("pass", _RETURN, _WHOLE, "", ""),
    ("drop", _RETURN, _NONE, "", ""),
)
_KINDS: _Program = (
    ("", _LOAD_16, _TYPE, "", ""),
    ("", _JUMP_IF_EQUAL, _type(RTM_NEWROUTE), "route", ""),
    ("", _JUMP_IF_EQUAL, _type(RTM_DELROUTE), "route", ""),
    ("", _JUMP_IF_EQUAL, _type(RTM_NEWNEIGH), "neighbour", ""),
    ("", _JUMP_IF_EQUAL, _type(RTM_NEWADDR), "address", "pass"),
    ("route", _LOAD_32, _SENDER, "", ""),
)
_WHAT_MATTERS: _Program = (
    ("", _LOAD_8, _ROUTE_TABLE, "", ""),
    ("", _JUMP_IF_EQUAL, LOCAL_TABLE, "drop", ""),
    ("", _LOAD_8, _FAMILY, "", ""),
    ("", _JUMP_IF_EQUAL, socket.AF_INET6, "", "pass"),
    ("", _LOAD_8, _ROUTE_LENGTH, "", ""),
    ("", _JUMP_IF_AT_LEAST, _LINK_LOCAL_LENGTH, "", "pass"),
    ("", _LOAD_32, _ROUTE_DST_HEADER, "", ""),
    ("", _JUMP_IF_EQUAL, int.from_bytes(_DST_HEADER, "big"), "", "pass"),
    ("", _LOAD_16, _ROUTE_DST, "", ""),
    ("", _AND, _LINK_LOCAL_MASK, "", ""),
    ("", _JUMP_IF_EQUAL, _LINK_LOCAL, "drop", "pass"),
    ("address", _LOAD_8, _FAMILY, "", ""),
    ("", _JUMP_IF_EQUAL, socket.AF_INET6, "", "pass"),
    ("", _LOAD_8, _ADDRESS_SCOPE, "", ""),
    ("", _JUMP_IF_EQUAL, Scope.LINK, "drop", "pass"),
    ("neighbour", _LOAD_32, _NEIGHBOUR_INDEX, "", ""),
)
_NEIGHBOURS_THAT_STAY: _Program = (
    ("", _LOAD_16, _NEIGHBOUR_STATE, "", ""),
    ("", _JUMP_IF_ANY, socket.htons(NUD_PERMANENT | NUD_FAILED), "pass", "drop"),
)


def hear_what_matters(
    raw: socket.socket, *, devices: Collection[int] = (), own_ports: Collection[int] = ()
) -> None:
    """Let the kernel drop what nobody looks at from a socket that is subscribed to its events.

    `devices` are the indexes of interfaces whose neighbours all matter; `own_ports` the netlink
    ports of sockets by which the listener itself writes routes.
    """
    own = tuple(("", _JUMP_IF_EQUAL, socket.htonl(port), "drop", "") for port in own_ports)
    ours = tuple(("", _JUMP_IF_EQUAL, socket.htonl(index), "pass", "") for index in sorted(devices))
    _attach(raw, (*_KINDS, *own, *_WHAT_MATTERS, *ours, *_NEIGHBOURS_THAT_STAY, *_VERDICTS))


def hear_only(raw: socket.socket, kind: int) -> None:
    """Let the kernel drop every message but those of one type: they wake nobody."""
    load = ("", _LOAD_16, _TYPE, "", "")
    _attach(raw, (load, ("", _JUMP_IF_EQUAL, _type(kind), "pass", "drop"), *_VERDICTS))


def _attach(raw: socket.socket, program: _Program) -> None:
    code = array("B", _assembled(program))
    address, length = code.buffer_info()
    counted = struct.pack("@HP", length // _INSTRUCTION.size, address)
    raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, counted)


def _assembled(program: _Program) -> bytes:
    places = {label: number for number, (label, *_) in enumerate(program) if label}
    code = bytearray()
    for number, (_, operation, operand, if_true, if_false) in enumerate(program):
        # Jumps count from the next instruction on.
        then, otherwise = (places.get(t, number + 1) - number - 1 for t in (if_true, if_false))
        code += _INSTRUCTION.pack(operation, then, otherwise, operand)
    return bytes(code)
