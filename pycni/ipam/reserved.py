"""Addresses that are never given unasked (`IPReservation`): pure rules over values.

As in Calico, who asks for a particular address gets it though it is reserved: that is what one
reserves it for.
"""

from bisect import bisect_right
from collections.abc import Iterable

from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import IPReservation

# First and last addresses, as numbers, of ranges that neither overlap nor touch, in their order.
_Ranges = tuple[list[int], list[int]]


class Reserved:
    """The union of all reservations: a container of addresses."""

    __slots__ = ("_ranges",)

    def __init__(self, reservations: Iterable[IPReservation]) -> None:
        cidrs = [cidr for one in reservations for cidr in one.cidrs]
        self._ranges = {version: _merged(cidrs, version) for version in (4, 6)}

    def __bool__(self) -> bool:
        return any(firsts for firsts, _ in self._ranges.values())

    def __contains__(self, address: object) -> bool:
        return isinstance(address, IPAddress) and self._from(int(address), address.version) > 0

    def _from(self, number: int, version: int) -> int:
        """Return how many addresses are reserved in a row from this one on."""
        firsts, lasts = self._ranges[version]
        at = bisect_right(firsts, number) - 1
        return max(lasts[at] - number + 1, 0) if at >= 0 else 0

    def whole_blocks(self, block: IPNetwork) -> int:
        """Return how many blocks of that size are reserved whole, from this one on, in a row."""
        return self._from(int(block.network_address), block.version) // block.num_addresses


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
