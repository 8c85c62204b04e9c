"""Find the interface that carries the node's underlay address, without an event loop."""

from pycni.kernel import wire_link
from pycni.kernel.netlink import NetlinkSocket
from pycni.model.network import IPAddress, Link


def underlay_link(address: IPAddress | None) -> Link | None:
    """Return the link that has this address; without one, the link with the smallest MTU.

    Links without a global address don't count for that guess, nor does the loopback.
    """
    with NetlinkSocket() as socket:
        links = {
            link.index: link
            for message in socket.dump(wire_link.dump_links())
            if (link := wire_link.read_link(message.body)) is not None
        }
        names = {index: link.name for index, link in links.items()}
        found = [
            read
            for message in socket.dump(wire_link.dump_addresses())
            if (read := wire_link.read_address(message.body, name_of=names.get)) is not None
        ]
    by_name = {link.name: link for link in links.values()}
    for entry in found:
        if entry.interface.ip == address:
            return by_name.get(entry.ifname)
    candidates = {e.ifname for e in found if e.interface.ip.is_global or e.interface.ip.is_private}
    candidates -= {e.ifname for e in found if e.interface.ip.is_loopback}
    guesses = [by_name[name] for name in candidates if by_name[name].kind not in ("ipip", "veth")]
    return min(guesses, key=lambda link: link.mtu, default=None)
