"""Print a routing table the way `ip route` and `ip -6 route` of iproute2 6.1 do.

What a node will have can so be shown, and compared to the letter, before anything runs.  Blanks
are collapsed to one and none trails; each next hop of a multipath route is a line of its own.
"""

from collections.abc import Mapping

from pycni.errors import InvalidInput
from pycni.model.network import (
    MAIN_TABLE,
    PROTOCOL_BOOT,
    KernelState,
    NextHop,
    Route,
    RouteType,
    Scope,
)

# iproute2's etc/iproute2/rt_protos, as Debian 12 and Ubuntu install it.
PROTOCOL_NAMES: Mapping[int, str] = {
    0: "unspec",
    1: "redirect",
    2: "kernel",
    3: "boot",
    4: "static",
    8: "gated",
    9: "ra",
    10: "mrt",
    11: "zebra",
    12: "bird",
    13: "dnrouted",
    14: "xorp",
    15: "ntk",
    16: "dhcp",
    18: "keepalived",
    42: "babel",
    99: "openr",
    186: "bgp",
    187: "isis",
    188: "ospf",
    189: "rip",
    192: "eigrp",
}
_SCOPE_NAMES: Mapping[int, str] = {
    Scope.SITE: "site",
    Scope.LINK: "link",
    Scope.HOST: "host",
    Scope.NOWHERE: "nowhere",
}
_IPV6 = 6


def protocol_number(protocol: int | str) -> int:
    """Return the number of a route protocol, given as number or by its name in rt_protos."""
    numbers = {name: number for number, name in PROTOCOL_NAMES.items()}
    number = numbers.get(protocol, -1) if isinstance(protocol, str) else protocol
    if not 0 < number < 256:
        raise InvalidInput(
            f"route protocol {protocol!r} is unknown: use 1 to 255 or one of {', '.join(numbers)}"
        )
    return number


def ip_route_lines(state: KernelState, *, family: int) -> list[str]:
    """Return the main table's lines; `family` is 4 or 6."""
    listed = [
        route
        for key, routes in state.routes.items()
        if key.table == MAIN_TABLE and key.dst.version == family
        for route in routes
    ]
    # Sorting is stable: routes of one key keep the kernel's order among themselves.
    listed.sort(key=_ipv6_order if family == _IPV6 else _ipv4_order)
    return [line for route in listed for line in route_lines(route)]


def _ipv4_order(route: Route) -> tuple[int, int, int, int]:
    """Order as the kernel's trie does: by address, there the longest prefix first."""
    key = route.key
    return (int(key.dst.network_address), -key.dst.prefixlen, -key.tos, key.priority)


def _ipv6_order(route: Route) -> tuple[int, int, int]:
    """Order as the kernel's tree walk does: children before parents, so by last address."""
    key = route.key
    return (int(key.dst.broadcast_address), -key.dst.prefixlen, key.priority)


def route_text(route: Route) -> str:
    """Return a route in one line, for messages."""
    return " ".join(route_lines(route))


def route_lines(route: Route) -> list[str]:
    """Return a route as `ip route` prints it: one line, and one more for each of several hops."""
    hops = hop_order(route.next_hops)
    words = [*_head(route), *_way(route, hops), *_attributes(route)]
    if route.src is not None:
        words += ["src", str(route.src)]
    if route.key.priority:
        words += ["metric", str(route.key.priority)]
    if len(hops) == 1 and hops[0].is_onlink:
        words.append("onlink")
    if route.mtu is not None:
        words += ["mtu", str(route.mtu)]
    if route.key.dst.version == _IPV6:
        words += ["pref", "medium"]
    lines = [" ".join(words)]
    if len(hops) > 1:
        lines += [" ".join(_nexthop_words(hop, version=route.key.dst.version)) for hop in hops]
    return lines


def hop_order(hops: frozenset[NextHop]) -> list[NextHop]:
    """Put next hops in the order in which we write them, which the kernel keeps."""
    return sorted(hops, key=lambda hop: (hop.gateway.packed if hop.gateway else b"", hop.oif))


def _head(route: Route) -> list[str]:
    key = route.key
    words = [] if route.type is RouteType.UNICAST else [route.type.name.lower()]
    if key.dst.prefixlen == 0:
        words.append("default")
    elif key.dst.prefixlen == key.dst.max_prefixlen:
        words.append(str(key.dst.network_address))
    else:
        words.append(str(key.dst))
    if key.tos:
        words += ["tos", f"0x{key.tos:02x}"]
    return words


def _way(route: Route, hops: list[NextHop]) -> list[str]:
    if len(hops) == 1:
        return _hop_words(hops[0], version=route.key.dst.version)
    if not hops and route.key.dst.version == _IPV6:
        # For IPv6 the kernel hangs a blackhole onto the loopback device, and shows it.
        return ["dev", "lo"]
    return []


def _hop_words(hop: NextHop, *, version: int) -> list[str]:
    if hop.gateway is None:
        return ["dev", hop.oif]
    foreign = [] if hop.gateway.version == version else ["inet6"]
    return ["via", *foreign, str(hop.gateway), "dev", hop.oif]


def _nexthop_words(hop: NextHop, *, version: int) -> list[str]:
    words = ["nexthop", *_hop_words(hop, version=version), "weight", str(hop.weight)]
    return [*words, "onlink"] if hop.is_onlink else words


def _attributes(route: Route) -> list[str]:
    words = []
    if route.protocol != PROTOCOL_BOOT:
        words += ["proto", PROTOCOL_NAMES.get(route.protocol, str(route.protocol))]
    if route.scope != Scope.UNIVERSE:
        words += ["scope", _SCOPE_NAMES.get(route.scope, str(int(route.scope)))]
    return words
