"""Permanent neighbours, and forwarding entries of VXLAN devices, as rtnetlink writes them.

Both travel in the same messages (struct ndmsg of linux/neighbour.h); those of a forwarding database
are of the family AF_BRIDGE.
"""

import struct
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6

from pycni.kernel.wire import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REPLACE,
    Request,
    attribute,
    attributes,
    u32,
)
from pycni.model.linklayer import FdbEntry, LinkLayerEntry, NeighbourEntry

RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30

AF_BRIDGE = 7
NUD_FAILED = 0x20
NUD_PERMANENT = 0x80

_NUD_NOARP = 0x40
_NTF_SELF = 0x02
_NTF_EXT_LEARNED = 0x10
_NDA_DST = 1
_NDA_LLADDR = 2
_NDA_IFINDEX = 8
_IPV4_LENGTH, _MAC_LENGTH = 4, 6

_NDMSG = struct.Struct("=BxxxiHBB")
FAMILIES = (AF_BRIDGE, AF_INET, AF_INET6)


def set_request(entry: LinkLayerEntry, *, index: int) -> Request:
    """Write an entry, over whatever stands under its key.

    A forwarding entry that somebody else has written leads whither this one says from then on, and
    stays another's: the kernel lets nothing learned take over what a user added.
    """
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, _encode(entry, index=index))


def delete_request(entry: LinkLayerEntry, *, index: int) -> Request:
    """Delete what stands under an entry's key; ENOENT when there is nothing."""
    if isinstance(entry, FdbEntry):
        entry = replace(entry, remote=None)  # with one, nothing else would match
    return Request(RTM_DELNEIGH, 0, _encode(entry, index=index))


def dump_request(family: int, *, index: int) -> Request:
    """List the entries of a device; a kernel without strict checking lists all devices'."""
    if family == AF_BRIDGE:
        return Request(RTM_GETNEIGH, NLM_F_DUMP, _NDMSG.pack(family, index, 0, 0, 0))
    body = _NDMSG.pack(family, 0, 0, 0, 0) + u32(_NDA_IFINDEX, index)
    return Request(RTM_GETNEIGH, NLM_F_DUMP, body)


def _encode(entry: LinkLayerEntry, *, index: int) -> bytes:
    lladdr = attribute(_NDA_LLADDR, bytes.fromhex(entry.mac.replace(":", ""))) if entry.mac else b""
    mark = _NTF_EXT_LEARNED if entry.is_ours else 0
    if isinstance(entry, FdbEntry):
        state = NUD_PERMANENT | _NUD_NOARP
        head = _NDMSG.pack(AF_BRIDGE, index, state, _NTF_SELF | mark, 0)
        remote = b"" if entry.remote is None else attribute(_NDA_DST, entry.remote.packed)
        return head + remote + lladdr
    family = AF_INET if entry.address.version == 4 else AF_INET6
    head = _NDMSG.pack(family, index, NUD_PERMANENT, mark, 0)
    return head + attribute(_NDA_DST, entry.address.packed) + lladdr


def read_entry(
    body: bytes, *, name_of: Callable[[int], str | None]
) -> tuple[LinkLayerEntry, bool] | None:
    """Decode an entry, and tell whether it has a place in a `KernelState`.

    A neighbour has if it is permanent and valid.  A forwarding entry has in any case, and is
    another's where it isn't permanent: what we write over that doesn't become so.  None for what
    never has: a bridge's own forwarding entries, an interface that is gone.  One that is being
    deleted may have lost its MAC address already.
    """
    family, index, state, flags, _ = _NDMSG.unpack_from(body)
    found = attributes(body, start=_NDMSG.size)
    name = name_of(index)
    destination, mac = found.get(_NDA_DST, b""), found.get(_NDA_LLADDR, b"")
    if name is None or family not in FAMILIES or not destination:
        return None
    is_permanent = bool(state & NUD_PERMANENT)
    is_ours = is_permanent and bool(flags & _NTF_EXT_LEARNED)
    address = _address(destination)
    entry: LinkLayerEntry
    if family == AF_BRIDGE:
        entry = FdbEntry(name, mac.hex(":"), address, is_ours)
    else:
        entry = NeighbourEntry(name, address, mac.hex(":"), is_ours)
    return entry, (is_permanent or family == AF_BRIDGE) and len(mac) == _MAC_LENGTH


def read_index(body: bytes) -> int:
    """Return the index of the interface that an entry belongs to."""
    index: int = _NDMSG.unpack_from(body)[1]
    return index


def _address(packed: bytes) -> IPv4Address | IPv6Address:
    return IPv4Address(packed) if len(packed) == _IPV4_LENGTH else IPv6Address(packed)
