"""Interface names and indexes, translated both ways within one socket's namespace."""

import errno
import fcntl
import struct

from pycni.kernel import wire_link
from pycni.kernel.netlink import KernelError, NetlinkSocket

_SIOCGIFNAME = 0x8910
_SIOCGIFINDEX = 0x8933
_IFREQ_INDEX = struct.Struct("16si20x")
_MAX_NAME = 15


def link_index(socket: NetlinkSocket, name: str) -> int:
    """Return the index in the socket's namespace; raise `KernelError` (ENODEV) without such a link.

    Asks with an ioctl: a microsecond, and unlike RTM_GETLINK it waits for no lock.
    """
    encoded = name.encode(errors="surrogateescape")
    if not 0 < len(encoded) <= _MAX_NAME:
        raise KernelError(errno.ENODEV, f"no interface {name!r}")
    try:
        packed = fcntl.ioctl(socket.fileno(), _SIOCGIFINDEX, _IFREQ_INDEX.pack(encoded, 0))
    except OSError as exc:
        raise KernelError(exc.errno or errno.ENODEV, f"no interface {name!r}") from exc
    index: int = _IFREQ_INDEX.unpack(packed)[1]
    return index


def pairs_by_alias(socket: NetlinkSocket) -> dict[str, int]:
    """Return the indexes of the host ends of pairs by their ifaliases, which no renaming changes.

    Lists all interfaces: for the case in which a name leads nowhere.
    """
    links = (wire_link.read_link(message.body) for message in socket.dump(wire_link.dump_links()))
    return {link.alias: link.index for link in links if link and link.kind == "veth" and link.alias}


class LinkIndexes:
    """Remembers what it looked up: make one per batch, because indexes go stale.

    A link that was deleted and made again has the old name and a new index.  Asking costs one
    ioctl (about a microsecond), so nothing is remembered beyond a batch.
    """

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket
        self._indexes: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def learn(self, index: int, *, name: str) -> None:
        """Take over what a listing or an event said."""
        self._names[index] = name

    def forget(self, index: int) -> str | None:
        """Drop an index; return the name that it had."""
        return self._names.pop(index, None)

    def index_of(self, name: str) -> int:
        """Return the index; raise `KernelError` (ENODEV) when there is no such interface."""
        found = self._indexes.get(name)
        if found is not None:
            return found
        self._indexes[name] = index = link_index(self._socket, name)
        return index

    def name_of(self, index: int) -> str | None:
        """Return the name; None when the interface is gone."""
        found = self._names.get(index)
        if found is not None:
            return found
        try:
            packed = fcntl.ioctl(
                self._socket.fileno(), _SIOCGIFNAME, struct.pack("=16xi20x", index)
            )
        except OSError:
            return None
        name = packed[:16].split(b"\0", 1)[0].decode(errors="surrogateescape")
        self._names[index] = name
        return name
