"""Routes as rtnetlink writes them: encode our `Route`, decode the kernel's.

Interfaces are names on one side and indexes on the other; whoever calls brings the translation.
"""

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6

from pycni.kernel.wire import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Request,
    attribute,
    attributes,
    nested,
    parse_u32,
    u32,
)
from pycni.model.network import (
    IPV6_DEFAULT_PRIORITY,
    MAIN_TABLE,
    IPAddress,
    IPNetwork,
    NextHop,
    Route,
    RouteType,
    Scope,
)
from pycni.model.prefix import known_address, known_key, prefix4, prefix6
from pycni.plan.iproute import hop_order

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26

LOCAL_TABLE = 255
RTM_F_CLONED = 0x200
RTM_F_FIB_MATCH = 0x2000

_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_PREFSRC = 7
_RTA_METRICS = 8
_RTA_MULTIPATH = 9
_RTA_TABLE = 15
_RTA_VIA = 18
_RTAX_MTU = 2
_RTNH_F_ONLINK = 4
_MAX_SHORT_TABLE = 255
_RT_TABLE_COMPAT = 252
# The loopback device is the first of every namespace, and it is what IPv6 "leaves by" for a
# blackhole; naming it in a deletion spares a unicast route of the same key.
_LOOPBACK_INDEX = 1

_RTMSG = struct.Struct("=BBBBBBBBI")
_NEXTHOP = struct.Struct("=HBBi")
_ENTRY_HEADER = _RTMSG.size
_SIZE_V4, _SIZE_V6 = 4, 16
# By number, for an enumeration looks up its members in several times as long.
_TYPES = {int(kind): kind for kind in RouteType}
_SCOPES = {int(scope): scope for scope in Scope}
_PRIORITY_V6 = u32(_RTA_PRIORITY, IPV6_DEFAULT_PRIORITY)

IndexOf = Callable[[str], int]
NameOf = Callable[[int], str | None]


def add_request(route: Route, *, index_of: IndexOf) -> Request:
    """Create exclusively: EEXIST when any route, ours or another's, has that key."""
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, _encode(route, index_of=index_of))


def add_host_request(packed: bytes, *, index: int, protocol: int) -> Request:
    """As `add_request` of the `pod_route` to that address (in network order) by that link."""
    if len(packed) == _SIZE_V6:
        head = _RTMSG.pack(AF_INET6, 128, 0, 0, MAIN_TABLE, protocol, 0, RouteType.UNICAST, 0)
        tail = _PRIORITY_V6
    else:
        head = _RTMSG.pack(
            AF_INET, 32, 0, 0, MAIN_TABLE, protocol, Scope.LINK, RouteType.UNICAST, 0
        )
        tail = b""
    body = head + attribute(_RTA_DST, packed) + u32(_RTA_OIF, index) + tail
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)


def append_request(route: Route, *, index_of: IndexOf) -> Request:
    """Add behind all routes of the same key; EEXIST only when this very route is there."""
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, _encode(route, index_of=index_of))


def replace_request(route: Route, *, index_of: IndexOf) -> Request:
    """Overwrite the FIRST route of that key, whoever wrote it: look before."""
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _encode(route, index_of=index_of))


def delete_request(route: Route, *, index_of: IndexOf) -> Request:
    """Delete the first route that agrees in all that the kernel compares: see `_encode`.

    It compares type, protocol, scope, next hops (a multipath route's in their order), and, where
    given, source and metrics.  A priority of 0 stands for any: such a route is listed first, so it
    goes first, but once it is absent the next of the same next hop and protocol would match.
    """
    body = _encode(route, index_of=index_of)
    if route.key.dst.version == 6 and not route.next_hops:
        body += u32(_RTA_OIF, _LOOPBACK_INDEX)
    return Request(RTM_DELROUTE, 0, body)


def dump_request(family: int, *, oif: int = 0) -> Request:
    """List all routes of a family, of every table; only those by one interface if it is named."""
    body = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    if oif:  # the kernel heeds it on sockets with strict checking
        body += u32(_RTA_OIF, oif)
    return Request(RTM_GETROUTE, 0x300, body)


def lookup_request(dst: IPNetwork) -> Request:
    """Ask for the table's entry that an address of `dst` matches."""
    family = AF_INET if dst.version == 4 else AF_INET6
    head = _RTMSG.pack(family, dst.max_prefixlen, 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH)
    return Request(RTM_GETROUTE, 0, head + attribute(_RTA_DST, dst.network_address.packed))


def source_request(destination: IPAddress) -> Request:
    """Ask how a packet to an address would be sent, by all rules and tables."""
    family = AF_INET if destination.version == 4 else AF_INET6
    head = _RTMSG.pack(family, destination.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    return Request(RTM_GETROUTE, 0, head + attribute(_RTA_DST, destination.packed))


def read_source(body: bytes) -> IPAddress | None:
    """Return the source address of such an answer; None where packets would be refused."""
    kind = _RTMSG.unpack_from(body)[7]
    found = attributes(body, start=_ENTRY_HEADER).get(_RTA_PREFSRC)
    # IPv6 tells of a route that refuses as of any other.
    return _address(found) if found and kind not in _WITHOUT_NEXT_HOP else None


def _encode(route: Route, *, index_of: IndexOf) -> bytes:
    key = route.key
    ipv6 = key.dst.version == 6
    hops = hop_order(route.next_hops)
    flags = _RTNH_F_ONLINK if len(hops) == 1 and hops[0].is_onlink else 0
    table = key.table if key.table <= _MAX_SHORT_TABLE else _RT_TABLE_COMPAT
    family = AF_INET6 if ipv6 else AF_INET
    prefix = key.dst.prefixlen
    # fmt: off
    parts = [
        _RTMSG.pack(family, prefix, 0, key.tos, table, route.protocol, route.scope, route.type, flags),  # noqa: E501
        attribute(_RTA_DST, key.dst.network_address.packed) if prefix else b"",
    ]
    # fmt: on
    if len(hops) == 1:
        parts.append(_encode_gateway(hops[0].gateway, version=key.dst.version))
        parts.append(u32(_RTA_OIF, index_of(hops[0].oif)))
    elif hops:
        encoded = [_encode_hop(hop, version=key.dst.version, index_of=index_of) for hop in hops]
        parts.append(attribute(_RTA_MULTIPATH, b"".join(encoded)))
    if key.table > _MAX_SHORT_TABLE:
        parts.append(u32(_RTA_TABLE, key.table))
    if key.priority:
        parts.append(u32(_RTA_PRIORITY, key.priority))
    if route.src is not None:
        parts.append(attribute(_RTA_PREFSRC, route.src.packed))
    if route.mtu is not None:
        parts.append(nested(_RTA_METRICS, u32(_RTAX_MTU, route.mtu)))
    return b"".join(parts)


def _encode_gateway(gateway: IPAddress | None, *, version: int) -> bytes:
    if gateway is None:
        return b""
    if gateway.version == version:
        return attribute(_RTA_GATEWAY, gateway.packed)
    # An IPv4 destination behind an IPv6 neighbour (RFC 5549).
    return attribute(_RTA_VIA, struct.pack("=H", AF_INET6) + gateway.packed)


def _encode_hop(hop: NextHop, *, version: int, index_of: IndexOf) -> bytes:
    gateway = _encode_gateway(hop.gateway, version=version)
    flags = _RTNH_F_ONLINK if hop.is_onlink else 0
    length = _NEXTHOP.size + len(gateway)
    return _NEXTHOP.pack(length, flags, hop.weight - 1, index_of(hop.oif)) + gateway


class RouteReader:
    """Decodes route messages, remembering next hops that recur (thousands share a few)."""

    def __init__(self, name_of: NameOf) -> None:
        self._name_of = name_of
        self._hops: dict[tuple[bytes, bytes, int], frozenset[NextHop] | None] = {}

    def read(self, body: bytes) -> Route | None:
        """Return the route, or None for what the agent doesn't look at.

        That is: the local table (the kernel's own), cached clones, routes of other families, and
        routes by an interface that is gone (they are gone too).
        """
        family, prefix, _, tos, table, protocol, scope, kind, flags = _RTMSG.unpack_from(body)
        if table == LOCAL_TABLE or flags & RTM_F_CLONED or family not in {AF_INET, AF_INET6}:
            return None
        found = attributes(body, start=_ENTRY_HEADER)
        if _RTA_TABLE in found:
            table = parse_u32(found[_RTA_TABLE])
        hops = self._next_hops(found, flags=flags, kind=kind)
        if table == LOCAL_TABLE or hops is None:
            return None
        priority = parse_u32(found[_RTA_PRIORITY]) if _RTA_PRIORITY in found else 0
        metrics = attributes(found[_RTA_METRICS]) if _RTA_METRICS in found else {}
        dst = _network(family, found.get(_RTA_DST), prefix)
        return Route(
            known_key(dst, table, tos, priority),
            _TYPES[kind] if kind in _TYPES else RouteType(kind),
            _SCOPES[scope] if scope in _SCOPES else Scope(scope),
            hops,
            _address(found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else None,
            protocol,
            parse_u32(metrics[_RTAX_MTU]) if _RTAX_MTU in metrics else None,
        )

    def _next_hops(
        self, found: dict[int, bytes], *, flags: int, kind: int
    ) -> frozenset[NextHop] | None:
        if _RTA_MULTIPATH in found:
            return self._multipath(found[_RTA_MULTIPATH])
        if _RTA_OIF not in found or kind in _WITHOUT_NEXT_HOP:
            return frozenset()
        gateway = found.get(_RTA_GATEWAY) or found.get(_RTA_VIA, b"")
        # Only `onlink` is configuration; dead, linkdown, offload, trap come and go.
        memo = (found[_RTA_OIF], gateway, flags & _RTNH_F_ONLINK)
        if memo not in self._hops:
            hop = self._hop(parse_u32(memo[0]), gateway=gateway, flags=memo[2], weight=1)
            self._hops[memo] = None if hop is None else frozenset((hop,))
        return self._hops[memo]

    def _multipath(self, payload: bytes) -> frozenset[NextHop] | None:
        hops, offset = set(), 0
        while offset + _NEXTHOP.size <= len(payload):
            length, flags, weight, index = _NEXTHOP.unpack_from(payload, offset)
            found = attributes(payload[offset : offset + length], start=_NEXTHOP.size)
            gateway = found.get(_RTA_GATEWAY) or found.get(_RTA_VIA, b"")
            hop = self._hop(index, gateway=gateway, flags=flags, weight=weight + 1)
            if hop is None:
                return None
            hops.add(hop)
            offset += (max(length, _NEXTHOP.size) + 3) & ~3
        return frozenset(hops)

    def _hop(self, index: int, *, gateway: bytes, flags: int, weight: int) -> NextHop | None:
        name = self._name_of(index)
        if name is None:
            return None
        address = _address(gateway) if gateway else None
        return NextHop(name, address, bool(flags & _RTNH_F_ONLINK), weight)


_WITHOUT_NEXT_HOP = frozenset(
    {RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT, RouteType.THROW}
)


def _address(packed: bytes) -> IPAddress:
    if len(packed) == _SIZE_V4:
        return known_address(IPv4Address(packed))
    # RTA_VIA has two bytes of family before the address.
    return IPv6Address(packed[-_SIZE_V6:])


# Equal ones that are one object compare at once.
def _network(family: int, packed: bytes | None, prefix: int) -> IPNetwork:
    make = prefix4 if family == AF_INET else prefix6
    return make(int.from_bytes(packed or b"", "big"), prefix)
