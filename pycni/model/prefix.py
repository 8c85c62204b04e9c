"""Prefixes and addresses that are looked up far more often than read: one object for each.

`ipaddress` works out a hash at each lookup, and compares two objects of one prefix field by field;
a learned route is looked up some twenty times on its way to the kernel and back.  These know their
hash, and are the same object wherever the same bits were read (up to a bound, beyond which they
cost time only).  To everybody else they are what the library makes.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network

from pycni.model.network import IPAddress, IPNetwork, RouteKey

# More than a node learns from a large cluster, and what a peer that makes prefixes up can take is
# bounded: some 40 MB.
_KNOWN = 1 << 16
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_USUAL = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}/(?:[12]?[0-9]|3[0-2])", re.ASCII)

# What the library's own methods make from one (`subnets`, `supernet`) is of its class, by whatever
# an address can be made of.


class _Address4(IPv4Address):
    __slots__ = ("_hash",)

    def __repr__(self) -> str:
        return f"IPv4Address({str(self)!r})"

    def __init__(self, address: object) -> None:
        super().__init__(address)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


class _Prefix4(IPv4Network):
    def __repr__(self) -> str:
        return f"IPv4Network({str(self)!r})"

    def __init__(self, address: object) -> None:
        super().__init__(address)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


class _Prefix6(IPv6Network):
    def __repr__(self) -> str:
        return f"IPv6Network({str(self)!r})"

    def __init__(self, address: object) -> None:
        super().__init__(address)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


@lru_cache(maxsize=_KNOWN)
def prefix4(bits: int, length: int) -> IPv4Network:
    """Return an IPv4 prefix by its address as a number; `ValueError` when it is none."""
    return _Prefix4((bits, length))


@lru_cache(maxsize=_KNOWN)
def prefix6(bits: int, length: int) -> IPv6Network:
    """Return an IPv6 prefix by its address as a number; `ValueError` when it is none."""
    return _Prefix6((bits, length))


def read_prefix(text: str) -> IPNetwork:
    """Read a prefix as the library does; raise `ValueError` when it is none."""
    # The usual spelling, in a fraction of the time that the library takes to read it.
    if _USUAL.fullmatch(text):
        address, _, length = text.partition("/")
        return prefix4(int.from_bytes(bytes(map(int, address.split("."))), "big"), int(length))
    return known_prefix(ip_network(text))


def known_prefix(prefix: IPNetwork) -> IPNetwork:
    """Return the one object of a prefix; one with a zone stays what it is."""
    if prefix.version == 6 and "%" in str(prefix):
        return prefix
    make = prefix4 if prefix.version == 4 else prefix6
    return make(int(prefix.network_address), prefix.prefixlen)


@lru_cache(maxsize=1 << 14)
def read_address(text: str) -> IPAddress:
    """Read an address as the library does; raise `ValueError` when it is none."""
    return known_address(ip_address(text))


@lru_cache(maxsize=1 << 14)
def known_address(address: IPAddress) -> IPAddress:
    """Return the one object of an address; only those of IPv4 know their hash.

    An IPv6 address with a zone stays what it is.
    """
    return _Address4(int(address)) if address.version == 4 else address


@lru_cache(maxsize=_KNOWN)
def known_key(dst: IPNetwork, table: int, tos: int, priority: int) -> RouteKey:
    """Return the one object of a route's key."""
    # Whoever asks first may have read the prefix in another way.
    return RouteKey(known_prefix(dst), table, tos, priority)


def network_order(cidr: IPNetwork) -> tuple[int, int, int]:
    """Return what to sort networks of both families by."""
    return cidr.version, int(cidr.network_address), cidr.prefixlen
