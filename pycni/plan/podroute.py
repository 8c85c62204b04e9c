"""The node's route to one of its pods, as both the plug of a pod and the reconciler want it."""

from ipaddress import IPv4Network, IPv6Network

from pycni.model.network import (
    IPV6_DEFAULT_PRIORITY,
    PROTOCOL_BOOT,
    IPAddress,
    NextHop,
    Route,
    RouteKey,
    Scope,
)


def pod_route(address: IPAddress, *, host_veth: str, protocol: int = PROTOCOL_BOOT) -> Route:
    """Return `ADDRESS/32 dev HOST_VETH scope link` (IPv6 routes have no scope)."""
    hop = frozenset((NextHop(host_veth),))
    if address.version == 4:
        return Route(
            RouteKey(IPv4Network(address)), scope=Scope.LINK, next_hops=hop, protocol=protocol
        )
    key = RouteKey(IPv6Network(address), priority=IPV6_DEFAULT_PRIORITY)
    return Route(key, next_hops=hop, protocol=protocol)
