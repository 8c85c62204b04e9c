"""By which way out packets to another node's prefix leave: the underlay, or their pool's tunnel."""

from pycni.model.network import IPAddress, NextHop
from pycni.model.resources import IPPool, TunnelMode
from pycni.model.tunnels import TunnelKind, tunnel_mode, tunnel_of
from pycni.plan.ground import Ground
from pycni.plan.overlay import device_of


def way_out(ground: Ground, pool: IPPool, next_hop: IPAddress) -> NextHop | str:
    """Return how a pool's packets go to a next hop, or why they can't.

    That is by the underlay (to a next hop in our own subnet) or by the pool's tunnel.  While a new
    tunnel doesn't lead to every node yet, the one before it does.
    """
    # A node has several blocks, and with reflectors each is told of several times.
    known = ground.ways.get((pool.name, next_hop))
    if known is None:
        known = ground.ways[pool.name, next_hop] = _choose(ground, pool, next_hop)
    return known


def _choose(ground: Ground, pool: IPPool, next_hop: IPAddress) -> NextHop | str:
    way = _way_by(ground, ground.inputs.in_effect(pool), next_hop)
    former = ground.inputs.formers.get(pool.name)
    if former is None or not isinstance(way, str):
        return way
    other = _way_by(ground, former, next_hop)
    return way if isinstance(other, str) else other


def _way_by(ground: Ground, pool: IPPool, next_hop: IPAddress) -> NextHop | str:
    version = next_hop.version
    own = ground.underlay(version)
    if own is None:
        return f"this node has no IPv{version} address yet"
    if next_hop == own.address:
        return "its next hop is this node"
    if own.is_broken:
        return f"{own.ifname}, by which it would leave, has no link"
    is_near = next_hop in own.subnet
    kind, mode = tunnel_of(pool), tunnel_mode(pool)
    if kind is not None and (mode is TunnelMode.ALWAYS or not is_near):
        return _tunnelled(ground, pool, next_hop, kind=kind)
    if own.ifname is None:
        return f"no interface of this node carries {own.address}"
    if own.is_ignored:
        why = "by which it would leave, is one of the BGPConfiguration's ignoredInterfaces"
        return f"{own.ifname}, {why}"
    if not is_near:
        return f"next hop {next_hop} is outside {own.subnet} and pool {pool.name} has no tunnel"
    return NextHop(oif=own.ifname, gateway=next_hop)


def _tunnelled(
    ground: Ground, pool: IPPool, next_hop: IPAddress, *, kind: TunnelKind
) -> NextHop | str:
    """Send by a tunnel: of IP in IP to the node's own address, of VXLAN to the one inside."""
    inputs, version = ground.inputs, pool.cidr.version
    if next_hop.version != version:
        why = f"tunnels to IPv{version} addresses, and next hop {next_hop} is none"
        return f"pool {pool.name} {why}"
    behind = inputs.nodes_by_address.get(next_hop)
    if behind is None:
        return f"pool {pool.name} tunnels to nodes, and next hop {next_hop} is none"
    device = device_of(inputs.settings, kind)
    if not kind.is_vxlan:
        return NextHop(oif=device, gateway=next_hop, is_onlink=True)
    why_unusable = ground.why_unusable(kind)
    if why_unusable is not None:
        return f"{device}, by which it would leave, {why_unusable}"
    end = ground.far_ends(kind)[behind.name]
    if isinstance(end, str):
        return f"pool {pool.name} tunnels to {behind.name}, and {end}"
    return NextHop(oif=device, gateway=end.address, is_onlink=True)
