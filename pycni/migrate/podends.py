"""Pods' interfaces that another plugin made: find their far ends, and write whose they are.

Calico keeps neither a pod's network namespace nor its MAC address.  The kernel numbers the
namespaces to which links of ours lead: so each is known for certain, whatever addresses others
have inside.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from pycni.kernel import wire_link
from pycni.kernel.netlink import KernelError, NetlinkSocket
from pycni.kernel.netns import inside, is_netns, open_own
from pycni.kernel.wire_link import FarEnd
from pycni.migrate.plan import PodEnd
from pycni.model.network import Link

NAMED = (Path("/run/netns"), Path("/run/docker/netns"))
"""Where runtimes keep namespaces by name; others are found by their processes."""
PROCESSES = Path("/proc")


def find_ends() -> dict[str, PodEnd]:
    """Return the far ends of this host's pairs by the names of the near ones."""
    home = open_own()
    try:
        with NetlinkSocket() as socket:
            wanted = _far_ends(socket)
            ends: dict[str, PodEnd] = {}
            for path in _paths():
                numbers = {far.netns_id for far in wanted if wanted[far] not in ends}
                ends |= _ends_in(path, home=home, socket=socket, wanted=wanted, numbers=numbers)
    finally:
        os.close(home)
    return ends


def _far_ends(socket: NetlinkSocket) -> dict[FarEnd, str]:
    """Return the names of the host's pairs by where their far ends are."""
    found = {}
    for message in socket.dump(wire_link.dump_links()):
        link, far = wire_link.read_link(message.body), wire_link.read_far_end(message.body)
        if link is not None and link.kind == "veth" and far is not None:
            found[far] = link.name
    return found


def _paths() -> Iterator[Path]:
    """Yield where namespaces may be; a name first, because it outlives the processes."""
    for directory in NAMED:
        if directory.is_dir():
            yield from sorted(directory.iterdir())
    for process in PROCESSES.iterdir():
        if process.name.isdecimal():
            yield process / "ns" / "net"


def _ends_in(
    path: Path,
    *,
    home: int,
    socket: NetlinkSocket,
    wanted: Mapping[FarEnd, str],
    numbers: Collection[int],
) -> dict[str, PodEnd]:
    """Look into the namespace behind a path if it has one of these numbers.

    One that is gone by now has no ends.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return {}
    try:
        number = _number_of(fd, socket) if is_netns(fd) else None
        if number is None or number not in numbers:
            return {}
        with inside(fd, home=home), NetlinkSocket() as within:
            ends = _read_ends(within, netns=str(path))
    finally:
        os.close(fd)
    ours = {FarEnd(index, number): end for index, end in ends.items()}
    return {wanted[far]: end for far, end in ours.items() if far in wanted}


def _number_of(fd: int, socket: NetlinkSocket) -> int | None:
    (answer,) = socket.ask([wire_link.get_netns_id(fd)])
    return None if answer is None else wire_link.read_netns_id(answer.body)


def _read_ends(socket: NetlinkSocket, *, netns: str) -> dict[int, PodEnd]:
    """Return a namespace's interfaces by their indexes."""
    read = (wire_link.read_link(message.body) for message in socket.dump(wire_link.dump_links()))
    links = [link for link in read if link is not None]
    names = {link.index: link.name for link in links}
    listed = socket.dump(wire_link.dump_addresses())
    addresses = [wire_link.read_address(one.body, name_of=names.get) for one in listed]
    return {
        link.index: PodEnd(
            netns,
            link.name,
            link.mac,
            frozenset(
                one.interface.ip for one in addresses if one is not None and one.ifname == link.name
            ),
        )
        for link in links
    }


def name_end(host_veth: str, *, alias: str, expected: Collection[str]) -> bool:
    """Write the ifalias of a pair's host end if it is one of those expected; tell whether it is.

    By index: another pair may have the name by then, and must not get this one's.
    """
    with NetlinkSocket() as socket:
        link = _link(socket, host_veth)
        if link is None or link.kind != "veth" or link.alias not in (alias, *expected):
            return False
        if link.alias != alias:
            try:
                socket.call(wire_link.set_link(index=link.index, alias=alias))
            except KernelError:
                return False
    return True


def _link(socket: NetlinkSocket, name: str) -> Link | None:
    (answer,) = socket.ask([wire_link.get_link(name=name)])
    return None if answer is None else wire_link.read_link(answer.body)
