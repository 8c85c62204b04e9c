"""Who is behind VXLAN devices: list their entries, write and delete them."""

import asyncio
import errno
from collections.abc import Iterable

from pycni.kernel import wire_neighbour
from pycni.kernel.names import LinkIndexes
from pycni.kernel.netlink import KernelError, NetlinkSocket
from pycni.model.linklayer import EntryKey, LinkLayerEntry
from pycni.model.network import DeleteNeighbour, Link, SetNeighbour

VXLAN_KIND = "vxlan"
# ENODEV and EINVAL: the interface is gone, or another kind of one now has its name.
_ABSENT = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL})


async def list_entries(
    socket: NetlinkSocket, links: Iterable[Link], *, names: LinkIndexes
) -> dict[EntryKey, LinkLayerEntry]:
    """Return the entries of all VXLAN devices among these links.

    Neighbours as far as they are permanent, forwarding entries in any case (`read_entry`).
    Other tasks have their turn every few milliseconds.
    """
    found: dict[EntryKey, LinkLayerEntry] = {}
    for link in links:
        if link.kind != VXLAN_KIND:
            continue
        for family in wire_neighbour.FAMILIES:
            request = wire_neighbour.dump_request(family, index=link.index)
            for part in socket.dump_parts(request):
                for message in part:
                    read = wire_neighbour.read_entry(message.body, name_of=names.name_of)
                    if read is not None and read[1] and read[0].ifname == link.name:
                        found[read[0].key] = read[0]
                await asyncio.sleep(0)
    return found


def write_entry(socket: NetlinkSocket, op: SetNeighbour | DeleteNeighbour) -> None:
    """Write or delete one entry; raise `KernelError` when the kernel refuses."""
    names = LinkIndexes(socket)
    try:
        index = names.index_of(op.entry.ifname)
    except KernelError:
        if isinstance(op, DeleteNeighbour):
            return
        raise
    is_deletion = isinstance(op, DeleteNeighbour)
    build = wire_neighbour.delete_request if is_deletion else wire_neighbour.set_request
    ack = socket.send([build(op.entry, index=index)])[0]
    if ack.errno and not (is_deletion and ack.errno in _ABSENT):
        raise KernelError(ack.errno, ack.text)
