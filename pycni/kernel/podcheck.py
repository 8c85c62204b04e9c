"""Read the two ends of a pod's pair, and say how they differ from what `plug` builds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from socket import AF_INET, AF_INET6

from pycni.kernel import podplan, wire_link, wire_route
from pycni.kernel.names import LinkIndexes
from pycni.kernel.netlink import KernelError, NetlinkSocket
from pycni.kernel.sysctl import read_sysctl
from pycni.model.endpoints import GATEWAY_V6
from pycni.model.network import MAIN_TABLE, IPInterface, Link, Route
from pycni.plan.iproute import route_text
from pycni.ports import PlugRequest


@dataclass(slots=True)
class Side:
    """One end as it is: no link means that nothing else was read."""

    link: Link | None = None
    addresses: set[IPInterface] = field(default_factory=set)
    routes: set[Route] = field(default_factory=set)
    sysctls: dict[str, str | None] = field(default_factory=dict)


def read_host(socket: NetlinkSocket, request: PlugRequest) -> Side:
    """Read the host's end, as far as `differences` looks at it."""
    side = _read_link(socket, request.host_veth)
    if side.link is not None:
        if podplan.has_version(request, 6):
            side.addresses = _read_addresses(socket, side.link)
        side.routes = _read_routes(socket, side.link, request=request)
        side.sysctls = {name: read_sysctl(name) for name in podplan.checked_host_sysctls(request)}
    return side


def read_pod(socket: NetlinkSocket, request: PlugRequest) -> Side:
    """Read the pod's end; the calling thread must be inside the pod's namespace."""
    side = _read_link(socket, request.ifname)
    if side.link is not None:
        side.addresses = _read_addresses(socket, side.link)
        side.routes = _read_routes(socket, side.link, request=request)
        side.sysctls = {name: read_sysctl(name) for name in podplan.pod_sysctls(request)}
    return side


def _read_link(socket: NetlinkSocket, ifname: str) -> Side:
    try:
        replies = socket.call(wire_link.get_link(name=ifname))
    except KernelError:
        return Side()
    return Side(next(filter(None, (wire_link.read_link(reply.body) for reply in replies)), None))


def _read_addresses(socket: NetlinkSocket, link: Link) -> set[IPInterface]:
    # An older kernel lists all interfaces' addresses: only those of `link` count.
    names = {link.index: link.name}
    listed = socket.dump(wire_link.dump_addresses(index=link.index))
    read = (wire_link.read_address(message.body, name_of=names.get) for message in listed)
    return {address.interface for address in read if address is not None}


def _read_routes(socket: NetlinkSocket, link: Link, *, request: PlugRequest) -> set[Route]:
    reader = wire_route.RouteReader(LinkIndexes(socket).name_of)
    routes = set()
    for version, family in ((4, AF_INET), (6, AF_INET6)):
        # Every listing takes time, and no route of an IP version is wanted without an address.
        if podplan.has_version(request, version):
            for message in socket.dump(wire_route.dump_request(family, oif=link.index)):
                route = reader.read(message.body)
                if route is not None and link.name in route.oifs:
                    routes.add(route)
    return routes


def differences(request: PlugRequest, *, host: Side, pod: Side) -> list[str]:
    """Return each difference as a sentence; none means that all is as it was built."""
    host_name, pod_name = f"host interface {request.host_veth}", f"pod interface {request.ifname}"
    found = [
        *_of_link(host_name, link=host.link, mtu=request.mtu),
        *_of_link(pod_name, link=pod.link, mtu=request.mtu),
    ]
    if host.link is not None:
        if host.link.mac != podplan.HOST_MAC:
            found.append(f"{host_name} has MAC {host.link.mac} instead of {podplan.HOST_MAC}")
        if host.link.alias != request.alias:
            found.append(f"{host_name} has alias {host.link.alias!r} instead of {request.alias!r}")
        if podplan.has_version(request, 6) and GATEWAY_V6 not in host.addresses:
            found.append(f"{host_name} lacks address {GATEWAY_V6}, the pod's IPv6 gateway")
        found += _missing_routes(podplan.host_routes(request), have=host.routes, where="the host")
        wanted = podplan.checked_host_sysctls(request)
        found += _of_sysctls(wanted, have=host.sysctls, where="on the host")
    if pod.link is not None:
        if request.pod_mac not in ("", pod.link.mac):
            found.append(f"{pod_name} has MAC {pod.link.mac} instead of {request.pod_mac}")
        found += [
            f"{pod_name} lacks address {address}"
            for address in podplan.pod_addresses(request)
            if address not in pod.addresses
        ]
        have = _of_any_table(pod.routes)
        found += _missing_routes(podplan.pod_routes(request), have=have, where="the pod")
        found += _of_sysctls(podplan.pod_sysctls(request), have=pod.sysctls, where="in the pod")
    return found


def _of_link(name: str, *, link: Link | None, mtu: int) -> list[str]:
    if link is None:
        return [f"{name} does not exist"]
    found = []
    if link.kind != "veth":
        found.append(f"{name} is of kind {link.kind!r} instead of 'veth'")
    if not link.is_up:
        found.append(f"{name} is down")
    if link.mtu != mtu:
        found.append(f"{name} has MTU {link.mtu} instead of {mtu}")
    return found


def _of_any_table(routes: set[Route]) -> set[Route]:
    """Return routes as if all were of the main table: `sbr`, chained behind us, moves them."""
    return {replace(route, key=replace(route.key, table=MAIN_TABLE)) for route in routes}


def _missing_routes(want: list[Route], *, have: set[Route], where: str) -> list[str]:
    # By key and device: the reconciler may since have given the host's route its own protocol.
    there = {(route.key, hop) for route in have for hop in route.next_hops}
    return [
        f"{where} lacks route {route_text(route)}"
        for route in want
        if not {(route.key, hop) for hop in route.next_hops} <= there
    ]


def _of_sysctls(
    want: Mapping[str, str], *, have: Mapping[str, str | None], where: str
) -> list[str]:
    return [
        f"sysctl {name} {where} is {have.get(name)} instead of {value}"
        for name, value in want.items()
        if have.get(name) != value
    ]
