"""Under which underlay addresses a node is known: as stated, detected or registered.  Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pycni.model.network import Address, IPAddress, IPInterface
from pycni.model.resources import Node

_VERSIONS = (4, 6)


@dataclass(frozen=True, slots=True)
class Detected:
    """What autodetection says of one IP version: an address, or None, for whatever the node has.

    `complaint` is why it finds none; "" where it does.
    """

    version: int
    address: IPInterface | None
    complaint: str = ""


@dataclass(frozen=True, slots=True)
class OwnAddresses:
    """At most one address of each IP version, with its subnet's prefix length.

    `absent` are InternalIPs that no interface of the host has, `complaints` what autodetection
    found wrong.
    """

    found: tuple[IPInterface, ...] = ()
    absent: tuple[IPAddress, ...] = ()
    complaints: tuple[str, ...] = ()

    def of(self, node: Node) -> dict[int, IPInterface]:
        """Return by IP version what a node that has these is to say; else it says what it did."""
        said: dict[int, IPInterface] = {
            one.version: one for one in (node.ipv4, node.ipv6) if one is not None
        }
        return said | {one.version: one for one in self.found}


def own_addresses(
    node: Node,
    *,
    stated: Iterable[IPInterface],
    host: Iterable[Address],
    detected: Sequence[Detected] = (),
) -> OwnAddresses:
    """Return a node's addresses, of each IP version the stated or detected one, or the InternalIP.

    The kubelet knows no prefix length: it is that of the interface which carries the address.
    """
    by_version: dict[int, IPInterface] = {one.version: one for one in stated}
    by_version |= {one.version: one.address for one in detected if one.address is not None}
    settled = {*by_version, *(one.version for one in detected)}
    # Bytes, because each `ip` would be a new object, and a proxy may have added thousands.
    wanted = {address.packed for address in node.internal_ips}
    carried = [one.interface for one in host if one.interface.packed in wanted]
    absent: list[IPAddress] = []
    for address in node.internal_ips:
        if address.version in settled:
            continue
        there = [one for one in carried if one.ip == address]
        if there:
            # A second place without a subnet, as of a load balancer, says nothing of neighbours.
            by_version[address.version] = min(there, key=lambda one: one.network.prefixlen)
            settled.add(address.version)
        else:
            absent.append(address)
    found = tuple(by_version[version] for version in _VERSIONS if version in by_version)
    complaints = tuple(one.complaint for one in detected if one.complaint)
    return OwnAddresses(found, tuple(absent), complaints)
