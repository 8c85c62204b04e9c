"""The links, addresses and routes of `FakeKernel`, with the side effects that Linux has."""

import errno
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Interface, IPv6Network

from pycni.model.linklayer import EntryKey, FdbEntry, LinkLayerEntry, NeighbourEntry, Vxlan
from pycni.model.network import (
    IPV6_CONNECTED_PRIORITY,
    IPV6_DEFAULT_PRIORITY,
    MAIN_TABLE,
    PROTOCOL_KERNEL,
    Address,
    AddressChanged,
    IPAddress,
    KernelEvent,
    Link,
    LinkChanged,
    LinkGone,
    NeighbourChanged,
    NextHop,
    Route,
    RouteChanged,
    RouteKey,
    Scope,
    Tunnel,
)

_IPV6 = 6


class Refused(Exception):
    """The kernel's answer to an operation that it doesn't perform."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.errno = code
        self.text = text


class FakeTables:
    """State and side effects; every change that Linux announces is told to `tell`."""

    def __init__(self, *, tell: Callable[[KernelEvent], None]) -> None:
        self.links: dict[str, Link] = {}
        self.addresses: dict[Address, None] = {}
        self.neighbours: dict[EntryKey, LinkLayerEntry] = {}
        self._routes: dict[RouteKey, list[Route]] = {}
        self._tell = tell
        self._last_index = 0

    def snapshot_routes(self) -> dict[RouteKey, tuple[Route, ...]]:
        """Return the routes as a state holds them."""
        return {key: tuple(routes) for key, routes in self._routes.items()}

    # --- links ----------------------------------------------------------------------------------

    def next_index(self) -> int:
        """Return an index that no link has had."""
        return self._last_index + 1

    def add_link(self, link: Link) -> None:
        """Make a link."""
        self._last_index = max(self._last_index, link.index)
        self.links[link.name] = link
        self._tell(LinkChanged(link))

    def require_link(self, name: str) -> Link:
        """Return a link or refuse."""
        if name not in self.links:
            raise Refused(errno.ENODEV, f"no interface {name!r}")
        return self.links[name]

    def change_link(self, link: Link) -> None:
        """Take over a link's new state, and what follows from going up or down."""
        before = self.links[link.name]
        if before == link:
            return
        self.links[link.name] = link
        self._tell(LinkChanged(link))
        if before.is_up and not link.is_up:
            self._drop_routes_of(link.name)
            self._drop_neighbours_of(link.name, keeps_fdb=True)
            for address in self._addresses_of(link.name):
                if address.interface.version == _IPV6:
                    # Unless keep_addr_on_down is set.
                    self.delete_address(address)
        if link.is_up and not before.is_up:
            for address in self._addresses_of(link.name):
                self._connect(address)

    def change_tunnel(self, wanted: Tunnel) -> None:
        """Give a VXLAN device other addresses; those behind it are forgotten with its own MAC."""
        link = self.links[wanted.name]
        if link.vxlan is None or wanted.vxlan is None or link.vxlan.vni != wanted.vxlan.vni:
            raise Refused(errno.EOPNOTSUPP, "cannot change VNI")
        vxlan = replace(wanted.vxlan, port=link.vxlan.port, is_bound=link.vxlan.is_bound)
        self.change_link(replace(link, mac=wanted.mac or link.mac, vxlan=vxlan))
        if wanted.mac:
            self._drop_neighbours_of(link.name, keeps_fdb=True)

    def rename_link(self, name: str, *, to: str) -> None:
        """Rename a link; what refers to it is by index, and so goes along."""
        link = replace(self.links.pop(name), name=to)
        self.links[to] = link
        self.addresses = {
            replace(a, ifname=to) if a.ifname == name else a: None for a in self.addresses
        }
        for key, routes in self._routes.items():
            self._routes[key] = [_renamed(route, name=name, to=to) for route in routes]
        entries = [
            replace(entry, ifname=to) if entry.ifname == name else entry
            for entry in self.neighbours.values()
        ]
        self.neighbours = {entry.key: entry for entry in entries}
        self._tell(LinkGone(name))
        self._tell(LinkChanged(link))

    def delete_link(self, name: str) -> None:
        """Delete a link; its addresses are announced, its IPv4 routes are not."""
        for address in self._addresses_of(name):
            self.delete_address(address)
        self._drop_routes_of(name)
        self._drop_neighbours_of(name)
        del self.links[name]
        self._tell(LinkGone(name))

    def require_no_rival(self, vxlan: Vxlan | None) -> None:
        """Refuse a second VXLAN device of the same network, port and IP version."""
        if vxlan is None:
            return
        for link in self.links.values():
            if link.vxlan is not None and _network_of(link.vxlan) == _network_of(vxlan):
                raise Refused(errno.EEXIST, "a VXLAN device with the specified VNI exists already")

    # --- neighbours -----------------------------------------------------------------------------

    def set_neighbour(self, entry: LinkLayerEntry) -> None:
        """Write an entry over whatever stands under its key."""
        self.require_link(entry.ifname)
        there = self.neighbours.get(entry.key)
        if isinstance(entry, FdbEntry) and there is not None and not there.is_ours:
            entry = replace(entry, is_ours=False)
        self.neighbours[entry.key] = entry
        self._tell(NeighbourChanged(entry, is_present=True))

    def delete_neighbour(self, entry: LinkLayerEntry) -> None:
        """Delete an entry; absent is success."""
        there = self.neighbours.pop(entry.key, None)
        if there is not None:
            self._tell(NeighbourChanged(there, is_present=False))

    def _drop_neighbours_of(self, name: str, *, keeps_fdb: bool = False) -> None:
        for entry in list(self.neighbours.values()):
            if entry.ifname == name and (isinstance(entry, NeighbourEntry) or not keeps_fdb):
                self.delete_neighbour(entry)

    # --- addresses ------------------------------------------------------------------------------

    def _addresses_of(self, name: str) -> list[Address]:
        return [address for address in self.addresses if address.ifname == name]

    def add_address(self, address: Address) -> None:
        """Add an address; present is success."""
        link = self.require_link(address.ifname)
        if address in self.addresses:
            return
        self.addresses[address] = None
        self._tell(AddressChanged(address, is_present=True))
        if link.is_up:
            self._connect(address)

    def delete_address(self, address: Address) -> None:
        """Delete an address with the routes that depend on it; absent is success."""
        if address not in self.addresses:
            return
        del self.addresses[address]
        connected = _connected(address)
        version = address.interface.version
        for route in self._all_routes():
            is_connected = route == connected
            if is_connected or (route.src is not None and route.src == address.interface.ip):
                self._remove(route, is_told=is_connected or version == _IPV6)
        if version != _IPV6 and not any(
            a.interface.version == version for a in self._addresses_of(address.ifname)
        ):
            # The last address of a device takes all its IPv4 routes along.
            self._drop_routes_of(address.ifname, versions=(4,))
        self._tell(AddressChanged(address, is_present=False))

    def _connect(self, address: Address) -> None:
        route = _connected(address)
        if route is not None and route not in self._routes.get(route.key, []):
            self._insert(route)

    def source_to(self, destination: IPAddress) -> IPAddress | None:
        """Return the source of packets to a destination: the route's, or its interface's."""
        own = [a for a in self.addresses if a.interface.version == destination.version]
        if any(a.interface.ip == destination for a in own):
            return destination
        routes = [
            route
            for route in self._all_routes()
            if route.key.table == MAIN_TABLE and destination in route.key.dst
        ]
        if not routes:
            return None
        best = max(routes, key=lambda route: (route.key.dst.prefixlen, -route.key.priority))
        if best.src is not None:
            return best.src
        return next((a.interface.ip for a in own if a.ifname in best.oifs), None)

    # --- routes ---------------------------------------------------------------------------------

    def add_route(self, route: Route) -> None:
        """Create exclusively."""
        route = self._accept(route)
        if self._routes.get(route.key):
            raise Refused(errno.EEXIST, "File exists")
        self._insert(route)

    def append_route(self, route: Route) -> None:
        """Add behind the others of that key; the very same is refused."""
        route = self._accept(route)
        if route in self._routes.get(route.key, []):
            raise Refused(errno.EEXIST, "File exists")
        self._insert(route)

    def overwrite_route(self, route: Route) -> None:
        """Replace the first route of that key, whoever wrote it, or create.

        Of IPv4, the very same as the first is no change, and as another is refused.
        """
        route = self._accept(route)
        present = self._routes.setdefault(route.key, [])
        if route.key.dst.version != _IPV6 and route in present:
            if route != present[0]:
                raise Refused(errno.EEXIST, "File exists")
            return
        present[:1] = [route]
        self._tell(RouteChanged(route, is_present=True, is_replacement=True))

    def replace_route(self, old: Route, *, new: Route) -> None:
        """Replace `old` by `new`; strangers of the same key stay."""
        new = self._accept(new)
        old = _normal(old)
        if old == new and new in self._routes.get(new.key, []):
            return
        rivals = [r for r in self._routes.get(new.key, []) if r not in {old, new}]
        if rivals and new.key.dst.version == _IPV6:
            raise Refused(errno.EEXIST, "another route stands under that key")
        if new not in self._routes.get(new.key, []):
            self._insert(new)
        if old != new:
            self.delete_route(old)

    def delete_route(self, route: Route) -> bool:
        """Delete exactly this route; return whether it was there."""
        route = _normal(route)
        if route not in self._routes.get(route.key, []):
            return False
        self._remove(route, is_told=True)
        return True

    def flush(self, *, protocol: int) -> None:
        """Delete all routes of a protocol."""
        for route in self._all_routes():
            if route.protocol == protocol:
                self._remove(route, is_told=True)

    def _all_routes(self) -> list[Route]:
        return [route for routes in self._routes.values() for route in routes]

    def _insert(self, route: Route) -> None:
        self._routes.setdefault(route.key, []).append(route)
        self._tell(RouteChanged(route, is_present=True))

    def _remove(self, route: Route, *, is_told: bool) -> None:
        routes = self._routes[route.key]
        routes.remove(route)
        if not routes:
            del self._routes[route.key]
        if is_told:
            self._tell(RouteChanged(route, is_present=False))

    def _drop_routes_of(self, name: str, *, versions: tuple[int, ...] = (4, 6)) -> None:
        """Remove routes whose last living next hop left by that device; IPv4's silently."""
        for route in self._all_routes():
            version = route.key.dst.version
            is_by_name = name in route.oifs and version in versions
            others = route.oifs - {name}
            if is_by_name and not any(self.links[oif].is_up for oif in others):
                self._remove(route, is_told=version == _IPV6)

    def _accept(self, route: Route) -> Route:
        """Check a route the way the kernel does before it looks at the table."""
        for hop in route.next_hops:
            link = self.require_link(hop.oif)
            if not link.is_up:
                raise Refused(errno.ENETDOWN, "Device for nexthop is not up")
            if hop.gateway is not None and not hop.is_onlink:
                self._require_reachable(hop.gateway, oif=hop.oif)
            elif hop.gateway is not None and hop.gateway.version == _IPV6:
                self._require_no_other_way(hop.gateway, oif=hop.oif)
        if route.src is not None and route.src not in {a.interface.ip for a in self.addresses}:
            raise Refused(errno.EINVAL, "Invalid prefsrc address")
        return _normal(route)

    def _require_reachable(self, gateway: IPAddress, *, oif: str) -> None:
        if gateway.version == _IPV6 and gateway.is_link_local:
            return
        # The kernel looks among the routes by that very device only.
        matching = [
            (route.key.dst.prefixlen, hop.gateway is None)
            for route in self._all_routes()
            for hop in route.next_hops
            if hop.oif == oif
            and route.key.table == MAIN_TABLE
            and route.key.dst.version == gateway.version
            and gateway in route.key.dst
        ]
        if not matching:
            code = errno.ENETUNREACH if gateway.version != _IPV6 else errno.EHOSTUNREACH
            raise Refused(code, "Nexthop has invalid gateway")
        if not max(matching)[1]:
            raise Refused(errno.EINVAL, "Nexthop has invalid gateway")

    def _require_no_other_way(self, gateway: IPAddress, *, oif: str) -> None:
        """Refuse a next hop to which a route leads by another device (ip6_route_check_nh_onlink).

        The default route doesn't count, nor one that refuses.
        """
        leading = [
            route
            for route in self._all_routes()
            if route.key.table == MAIN_TABLE
            and route.key.dst.prefixlen
            and gateway in route.key.dst
        ]
        best = max(leading, key=lambda r: (r.key.dst.prefixlen, -r.key.priority), default=None)
        if best is not None and best.next_hops and oif not in best.oifs:
            raise Refused(errno.EINVAL, "Nexthop has invalid gateway or device mismatch")


def _network_of(vxlan: Vxlan) -> tuple[int, int, int]:
    version = vxlan.local.version if vxlan.local is not None else 4
    return (vxlan.vni, vxlan.port, version)


def _normal(route: Route) -> Route:
    """Write a route the way the kernel will show it."""
    key = route.key
    if key.dst.version == _IPV6 and key.priority == 0:
        key = replace(key, priority=IPV6_DEFAULT_PRIORITY)
    if key.dst.version == _IPV6 and route.scope is not Scope.UNIVERSE:
        return replace(route, key=key, scope=Scope.UNIVERSE)
    return replace(route, key=key) if key is not route.key else route


def _renamed(route: Route, *, name: str, to: str) -> Route:
    hops = frozenset(replace(h, oif=to) if h.oif == name else h for h in route.next_hops)
    return replace(route, next_hops=hops)


def _connected(address: Address) -> Route | None:
    """Return the route that the kernel makes for an address: its network, by its device."""
    interface = address.interface
    hop = frozenset((NextHop(address.ifname),))
    if isinstance(interface, IPv6Interface):
        key = RouteKey(IPv6Network(interface.network), priority=IPV6_CONNECTED_PRIORITY)
        return Route(key, next_hops=hop, protocol=PROTOCOL_KERNEL)
    if interface.network.prefixlen == interface.max_prefixlen or interface.ip.is_loopback:
        return None
    return Route(
        RouteKey(interface.network),
        scope=Scope.LINK,
        next_hops=hop,
        src=interface.ip,
        protocol=PROTOCOL_KERNEL,
    )
