"""Addresses that are never given unasked (`IPReservation`): pure rules over values.

As in Calico, who asks for a particular address gets it though it is reserved: that is what one
reserves it for.
"""

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import ip_network

from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import IPReservation

# First and last addresses, as numbers, of ranges that neither overlap nor touch, in their order.
_Ranges = tuple[list[int], list[int]]


class Reserved:
    """The union of all reservations: a container of addresses."""

    __slots__ = ("_links", "_ranges")

    def __init__(self, reservations: Iterable[IPReservation]) -> None:
        cidrs = [cidr for one in reservations for cidr in one.cidrs]
        self._ranges = {version: _merged(cidrs, version) for version in (4, 6)}
        self._links: tuple[tuple[IPNetwork, int], ...] = ()

    def on_links(self, links: Iterable[tuple[IPNetwork, int]]) -> "Reserved":
        """Return these and what means a whole link: of each network of that length in a range."""
        result = Reserved(())
        result._ranges = self._ranges  # of its own class
        result._links = tuple(links)
        return result

    def __bool__(self) -> bool:
        return bool(self._links) or any(firsts for firsts, _ in self._ranges.values())

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, IPAddress):
            return False
        return self._from(int(address), address.version) > 0 or self._means_all(address)

    def _means_all(self, address: IPAddress) -> bool:
        return any(
            _means_all(address, ip_network((address, length), strict=False))
            for cidr, length in self._links
            if address in cidr
        )

    def _from(self, number: int, version: int) -> int:
        """Return how many addresses are reserved in a row from this one on."""
        firsts, lasts = self._ranges[version]
        at = bisect_right(firsts, number) - 1
        return max(lasts[at] - number + 1, 0) if at >= 0 else 0

    def whole_blocks(self, block: IPNetwork) -> int:
        """Return how many blocks of that size are reserved whole, from this one on, in a row."""
        address, size = block.network_address, block.num_addresses
        count = self._from(int(address), block.version) // size
        return count or int(size == 1 and self._means_all(address))


def _means_all(address: IPAddress, link: IPNetwork) -> bool:
    """Tell whether an address means more than one neighbour on a link of that network.

    In IPv4 the last is the broadcast address, and older hosts take the first for one (RFC 1122,
    3.3.6); in IPv6 the first means any router (RFC 4291, 2.6.1).  Where there are two only, both
    are neighbours (RFC 3021, RFC 6164).
    """
    if link.num_addresses <= 2:
        return False
    is_last = link.version == 4 and address == link.broadcast_address
    return is_last or address == link.network_address


def _merged(cidrs: Iterable[IPNetwork], version: int) -> _Ranges:
    firsts: list[int] = []
    lasts: list[int] = []
    ranges = sorted(
        (int(cidr.network_address), int(cidr.broadcast_address))
        for cidr in cidrs
        if cidr.version == version
    )
    for first, last in ranges:
        if lasts and first <= lasts[-1] + 1:
            lasts[-1] = max(lasts[-1], last)
        else:
            firsts.append(first)
            lasts.append(last)
    return firsts, lasts


NOTHING = Reserved(())
