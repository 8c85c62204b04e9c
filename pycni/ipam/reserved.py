"""Addresses that are never given unasked (`IPReservation`): pure rules over values.

As in Calico, who asks for a particular address gets it though it is reserved: that is what one
reserves it for.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import IPReservation


class Reserved:
    """The union of all reservations: a container of addresses."""

    __slots__ = ("_networks",)

    def __init__(self, reservations: Iterable[IPReservation]) -> None:
        cidrs = [cidr for one in reservations for cidr in one.cidrs]
        v4 = collapse_addresses(c for c in cidrs if isinstance(c, IPv4Network))
        v6 = collapse_addresses(c for c in cidrs if isinstance(c, IPv6Network))
        self._networks: Sequence[IPNetwork] = (*v4, *v6)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: object) -> bool:
        return isinstance(address, IPAddress) and any(address in one for one in self._networks)

    def covers(self, block: IPNetwork) -> bool:
        """Return whether nothing of a block may be given unasked."""
        overlapping = [one for one in self._networks if one.overlaps(block)]
        # Of two networks that overlap, one lies within the other; collapsed ones don't overlap.
        inside = sum(min(one.num_addresses, block.num_addresses) for one in overlapping)
        return inside == block.num_addresses


NOTHING = Reserved(())
