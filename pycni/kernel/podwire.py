"""The requests that put on both ends of a pair what `podplan` wants there.

An ADD is one of many alike: what doesn't depend on the pod's address is encoded once.
"""

from functools import lru_cache

from pycni.kernel import podplan, wire_conf, wire_link, wire_route
from pycni.kernel.wire import Request
from pycni.model.endpoints import GATEWAY_V6
from pycni.model.network import IPNetwork, Route, Scope
from pycni.ports import PlugRequest

_LOOPBACK_INDEX = 1


def pod_end(request: PlugRequest, *, index: int) -> list[Request]:
    """Return what the pod's end gets, in the order in which the kernel needs it."""
    versions = tuple(address.version for address in request.addresses)
    routes = _pod_routes(index, versions, request.routes, request.has_default_route)
    addresses = (
        wire_link.add_host_address(address.packed, index=index) for address in request.addresses
    )
    return [*_up(index), *addresses, *routes]


@lru_cache(maxsize=64)
def without_link_local(index: int) -> Request:
    """Return what spares an IPv4 pod's end an IPv6 address; refused where there is no IPv6."""
    return wire_link.set_link(index=index, settings=wire_conf.NO_LINK_LOCAL)


@lru_cache(maxsize=64)
def _up(index: int) -> tuple[Request, ...]:
    return (
        wire_link.set_link(index=_LOOPBACK_INDEX, is_up=True),
        wire_link.set_link(index=index, is_up=True),
    )


@lru_cache(maxsize=64)
def _pod_routes(
    index: int,
    versions: tuple[int, ...],
    wanted: tuple[IPNetwork, ...],
    has_default_route: bool,  # noqa: FBT001 - by position, as the cache wants it
) -> tuple[Request, ...]:
    routes = podplan.routes_inside(
        "", versions=versions, wanted=wanted, has_default_route=has_default_route
    )
    return tuple(_inside(route, index) for route in routes)


def _inside(route: Route, index: int) -> Request:
    if route.scope is Scope.LINK:
        # Each interface of a pod has the way to the gateway, the same address for all of them.
        return wire_route.append_request(route, index_of=lambda _: index)
    return wire_route.add_request(route, index_of=lambda _: index)


def host_end(request: PlugRequest, *, index: int) -> list[Request]:
    """Return what sets the host's end up; the routes to the pod's addresses come last."""
    requests = [wire_link.set_link(index=index, is_up=True)]
    if podplan.has_version(request, 6):
        requests.insert(0, wire_link.add_address(GATEWAY_V6, index=index))
    protocol = request.route_protocol
    requests += [
        wire_route.add_host_request(address.packed, index=index, protocol=protocol)
        for address in request.addresses
    ]
    return requests
