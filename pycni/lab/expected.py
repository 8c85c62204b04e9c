"""What a prediction says of a packet's way: its source, and the tunnel that it takes."""

from collections.abc import Collection

from pycni.model.network import IPAddress, Route, RouteType
from pycni.model.tunnels import TunnelKind, address_in
from pycni.plan.inputs import Inputs
from pycni.plan.overlay import device_of
from pycni.topology.model import UNDERLAY
from pycni.topology.predict import Prediction


def expected_source(prediction: Prediction, *, node: str, target: IPAddress) -> IPAddress | None:
    """Return whose address a pod sees when a node itself asks; None: not predicted (own pods)."""
    inputs, route = prediction.inputs[node], _route_to(prediction, node, target)
    if route is None or route.type is not RouteType.UNICAST or inputs.node is None:
        return None
    exits = {hop.oif for hop in route.next_hops}
    if exits == {UNDERLAY}:
        own = inputs.own_interface(target.version)
        return own.ip if own is not None else None
    tunnel = _tunnel_by(inputs, exits)
    return None if tunnel is None else address_in(inputs.node, tunnel)


def _route_to(prediction: Prediction, node: str, target: IPAddress) -> Route | None:
    routes = prediction.states[node].routes
    matching = [r for key, several in routes.items() if target in key.dst for r in several]
    return max(matching, key=lambda r: r.key.dst.prefixlen, default=None)


def _tunnel_by(inputs: Inputs, exits: Collection[str]) -> TunnelKind | None:
    """Return the kind of tunnel whose device is the only one in a route."""
    kinds = (kind for kind in TunnelKind if set(exits) == {device_of(inputs.settings, kind)})
    return next(kinds, None)


def tunnel_to(prediction: Prediction, *, node: str, target: IPAddress) -> TunnelKind | None:
    """Return the kind of tunnel by which a node's packets to an address go, None without one."""
    route = _route_to(prediction, node, target)
    return None if route is None else _tunnel_by(prediction.inputs[node], route.oifs)
