"""What a pod's interface consists of: decided here, done by `podnet`, compared by `check`."""

import re
from collections.abc import Collection
from ipaddress import (
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_interface,
)

from pycni.errors import AlreadyExists, InvalidInput
from pycni.model.endpoints import GATEWAY_V4, GATEWAY_V6
from pycni.model.network import (
    IPV6_DEFAULT_PRIORITY,
    IPAddress,
    IPInterface,
    IPNetwork,
    NextHop,
    Route,
    RouteKey,
    Scope,
)
from pycni.plan.podroute import pod_route
from pycni.plan.podsysctls import host_veth_sysctls, interface_sysctl
from pycni.ports import PlugRequest

HOST_MAC = "ee:ee:ee:ee:ee:ee"
"""The same on every host end: a pod's neighbour entry for its gateway never goes stale."""

_MAX_IFNAME = 15
_MIN_MTU, _MIN_MTU_V6, _MAX_MTU = 68, 1280, 65535
_IFNAME = re.compile(r"[^\s/\x00:]+")


def require_plausible(request: PlugRequest) -> None:
    """Raise `InvalidInput` for what the kernel would refuse, or worse, accept."""
    for name in (request.ifname, request.host_veth):
        require_ifname(name)
    if not request.addresses:
        raise InvalidInput(f"cannot plug {request.ifname}: the request has no address")
    if not (request.alias.isprintable() and 0 < len(request.alias.encode()) < 256):
        raise InvalidInput(f"interface alias {request.alias!r} is not 1 to 255 printable bytes")
    lowest = _MIN_MTU_V6 if has_version(request, 6) else _MIN_MTU
    if not lowest <= request.mtu <= _MAX_MTU:
        raise InvalidInput(f"MTU {request.mtu} is not between {lowest} and {_MAX_MTU}")


def require_ifname(name: str) -> None:
    """Raise `InvalidInput` unless the kernel takes the name for an interface."""
    if len(name.encode()) > _MAX_IFNAME or name in {".", ".."} or not _IFNAME.fullmatch(name):
        raise InvalidInput(
            f"interface name {name!r} is invalid: 1 to {_MAX_IFNAME} bytes "
            "without '/', ':' and blanks"
        )


def name_is_taken(request: PlugRequest, *, owner: str) -> AlreadyExists:
    """Return the refusal of a host interface whose name a stranger has; `owner` says whose."""
    return AlreadyExists(
        f"cannot make {request.host_veth}: an interface of that name {owner} is not this pod's;"
        " delete it, or give the pod another one (HOST_VETH in CNI_ARGS)"
    )


def interface_exists(request: PlugRequest) -> InvalidInput:
    """Return the refusal of an interface that the pod has already, by somebody else."""
    return InvalidInput(
        f"interface {request.ifname} exists already in the pod's network namespace, for another"
        " container or by another plugin; delete it there, or let the runtime name another"
    )


def second_default_route(request: PlugRequest) -> InvalidInput:
    """Return the refusal of a default route where another interface of the pod has it."""
    return InvalidInput(
        f"cannot give {request.ifname} the pod's default route: another interface has it;"
        ' say "isDefaultGateway": false in the network\'s configuration'
    )


def has_version(request: PlugRequest, version: int) -> bool:
    """Say whether the pod gets an address of that IP version."""
    return any(address.version == version for address in request.addresses)


def host_routes(request: PlugRequest) -> list[Route]:
    """Return the node's routes to the pod's addresses."""
    return [
        pod_route(address.ip, host_veth=request.host_veth, protocol=request.route_protocol)
        for address in request.addresses
    ]


def pod_addresses(request: PlugRequest) -> list[IPInterface]:
    """Return the pod's addresses: alone in their networks, whatever prefix was asked for."""
    return [ip_interface(address.ip) for address in request.addresses]


def pod_routes(request: PlugRequest) -> list[Route]:
    """Return the pod's own routes: to the gateway, then everything else by it."""
    return routes_inside(
        request.ifname,
        versions=tuple(address.version for address in request.addresses),
        wanted=request.routes,
        has_default_route=request.has_default_route,
    )


def routes_inside(
    ifname: str,
    *,
    versions: Collection[int],
    wanted: Collection[IPNetwork],
    has_default_route: bool,
) -> list[Route]:
    """Return the `pod_routes` of all pods with addresses of these IP versions."""
    routes: list[Route] = []
    for version, gateway in ((4, GATEWAY_V4), (6, GATEWAY_V6.ip)):
        if version not in versions:
            continue
        if version == GATEWAY_V4.version:
            # An IPv6 gateway is link-local and needs no route of its own.
            hop = frozenset((NextHop(ifname),))
            routes.append(Route(RouteKey(IPv4Network(GATEWAY_V4)), scope=Scope.LINK, next_hops=hop))
        default: IPNetwork = IPv4Network("0.0.0.0/0") if version == 4 else IPv6Network("::/0")
        dsts = {network for network in wanted if network.version == version}
        if has_default_route:
            dsts.add(default)
        routes += [
            _by_gateway(dst, gateway=gateway, ifname=ifname)
            for dst in sorted(dsts, key=lambda net: (int(net.network_address), net.prefixlen))
        ]
    return routes


def _by_gateway(dst: IPNetwork, *, gateway: IPAddress, ifname: str) -> Route:
    priority = IPV6_DEFAULT_PRIORITY if isinstance(gateway, IPv6Address) else 0
    hop = frozenset((NextHop(ifname, gateway),))
    return Route(RouteKey(dst, priority=priority), next_hops=hop)


def host_sysctls(request: PlugRequest) -> dict[str, str]:
    """Return the settings of the host end, to be made before it goes up."""
    versions = frozenset(address.version for address in request.addresses)
    return host_veth_sysctls(request.host_veth, versions=versions)


def checked_host_sysctls(request: PlugRequest) -> dict[str, str]:
    """Return the settings of the host end that a pod's health depends on.

    portmap, chained behind us, sets route_localnet until the agent takes it back: no reason to
    call the pod broken meanwhile.
    """
    wanted = host_sysctls(request)
    return {name: value for name, value in wanted.items() if not name.endswith(".route_localnet")}


def pod_sysctls(request: PlugRequest) -> dict[str, str]:
    """Return the settings of the pod's namespace and interface, to be made before it goes up.

    A further interface does not forbid what the first one's network has allowed the whole pod.
    """
    forwarding = "1" if request.allow_ip_forwarding else "0"
    decides = request.has_default_route or request.allow_ip_forwarding
    wanted = {"net.ipv4.ip_forward": forwarding} if decides else {}
    if has_version(request, 6):
        wanted |= {
            # Also for all: a runtime may have made the namespace without IPv6.
            "net.ipv6.conf.all.disable_ipv6": "0",
            "net.ipv6.conf.default.disable_ipv6": "0",
            "net.ipv6.conf.lo.disable_ipv6": "0",
            interface_sysctl("ipv6", ifname=request.ifname, key="disable_ipv6"): "0",
            interface_sysctl("ipv6", ifname=request.ifname, key="accept_dad"): "0",
        }
        if decides:
            wanted["net.ipv6.conf.all.forwarding"] = forwarding
    return wanted
