"""What may come in by BGP: judge one learned path, and choose among several.

Nobody can inject a default route, capture a node's subnet or take over a pod: a mesh peer may
announce just its own blocks (as the datastore's affinities record them) and addresses that it
borrowed.  Judgement depends on the inputs of this moment only; a path that comes before its
affinity is judged again when that arrives.
"""

from dataclasses import dataclass

from pycni.model.bgp import Path
from pycni.model.network import IPNetwork, NextHop, Route
from pycni.model.resources import IPPool, Node, TunnelMode
from pycni.plan.inputs import Inputs, host_prefix, is_confirmed, route_key


@dataclass(frozen=True, slots=True)
class Rejected:
    """A path that is not used, and why, in words for `pycnictl routes`."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A path that may be used, with the way out that it gives."""

    path: Path
    next_hop: NextHop


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of all paths to one prefix: the route (or None), and each path's fate."""

    route: Route | None
    used: tuple[Path, ...] = ()
    rejected: tuple[Rejected, ...] = ()


def judge_prefix(inputs: Inputs, nlri: IPNetwork) -> Verdict:
    """Decide which of the paths to a prefix are used; equal ones make a multipath route."""
    accepted: list[Accepted] = []
    rejected: list[Rejected] = []
    for path in inputs.paths.get(nlri, ()):
        verdict = judge(inputs, path)
        if isinstance(verdict, Accepted):
            accepted.append(verdict)
        else:
            rejected.append(verdict)
    if not accepted:
        return Verdict(route=None, rejected=tuple(rejected))
    best_rank = min(rank(inputs, a.path) for a in accepted)
    best = [a for a in accepted if rank(inputs, a.path) == best_rank]
    rejected += [
        Rejected(a.path, "another path is better (RFC 4271, 9.1.2.2)")
        for a in accepted
        if a not in best
    ]
    route = Route(
        key=route_key(nlri),
        next_hops=frozenset(a.next_hop for a in best),
        protocol=inputs.settings.route_protocol,
    )
    return Verdict(route=route, used=tuple(a.path for a in best), rejected=tuple(rejected))


def rank(inputs: Inputs, path: Path) -> tuple[int, int, int, int, bool]:
    """Order paths as RFC 4271 9.1.2.2 does, smaller is better; ties are equal-cost.

    Router id and peer address, which would break ties, are left out on purpose: equal paths are
    all used.
    """
    is_internal = not path.as_path or path.as_path[0] == inputs.bgp.as_number
    return (-path.local_pref, len(path.as_path), path.origin.value, path.med, is_internal)


def judge(inputs: Inputs, path: Path) -> Accepted | Rejected:
    """Decide whether one path may be used, and by which way out."""
    own_reason = _conflict_with_own(inputs, path.nlri)
    if own_reason is not None:
        return Rejected(path, own_reason)
    pool = inputs.pool_of(path.nlri)
    if pool is None:
        return Rejected(path, "it lies in no pool, and no filter admits it")
    sender = inputs.nodes_by_address.get(path.peer)
    if sender is None:
        return Rejected(path, f"peer {path.peer} is no node, and no filter admits it")
    if path.next_hop.version != path.nlri.version:
        return Rejected(path, f"next hop {path.next_hop} is of another IP version (RFC 8950)")
    if inputs.nodes_by_address.get(path.next_hop) is not sender:
        return Rejected(path, f"next hop {path.next_hop} is not the address of {sender.name}")
    right = _right_to_announce(inputs, path, sender)
    if right is not None:
        return Rejected(path, right)
    return _way_out(inputs, path, pool)


def _conflict_with_own(inputs: Inputs, nlri: IPNetwork) -> str | None:
    """Return why a prefix would take away something of this node's own, None if it doesn't."""
    for address in inputs.addresses:
        local = host_prefix(address.interface.ip)
        if nlri in (local, address.interface.network):
            return f"{nlri} is an address or subnet of this node ({address.ifname})"
    if inputs.is_own_block(nlri):
        return f"{nlri} is a block of this node"
    if nlri in inputs.pods:
        return f"{nlri} is a pod of this node"
    return None


def _right_to_announce(inputs: Inputs, path: Path, sender: Node) -> str | None:
    """Return why the sender may not announce this prefix, None when it may."""
    affinity = inputs.affinities.get(path.nlri)
    if affinity is not None:
        if affinity.node != sender.name:
            return f"the block belongs to {affinity.node}, not to {sender.name}"
        if not is_confirmed(affinity):
            return f"the block's affinity is {affinity.state.value}, not confirmed"
        return None
    holder = inputs.borrowed.get(path.nlri)
    if holder == sender.name:
        return None
    if holder is not None:
        return f"the address is held by {holder}, not by {sender.name}"
    return f"no block affinity of {sender.name} covers it (yet)"


def _way_out(inputs: Inputs, path: Path, pool: IPPool) -> Accepted | Rejected:
    """Choose between the underlay (next hop in our own subnet) and the pool's tunnel."""
    version = path.nlri.version
    own = inputs.own_interface(version)
    if own is None:
        return Rejected(path, f"this node has no IPv{version} address yet")
    if path.next_hop == own.ip:
        return Rejected(path, "its next hop is this node")
    is_near = path.next_hop in own.network
    if pool.ipip_mode is TunnelMode.ALWAYS or (
        pool.ipip_mode is TunnelMode.CROSS_SUBNET and not is_near
    ):
        hop = NextHop(oif=inputs.settings.tunnel_name, gateway=path.next_hop, is_onlink=True)
        return Accepted(path, hop)
    underlay = inputs.underlay(version)
    if underlay is None:
        return Rejected(path, f"no interface of this node carries {own.ip}")
    if not is_near:
        return Rejected(
            path,
            f"next hop {path.next_hop} is outside {own.network} and pool {pool.name} has no tunnel",
        )
    return Accepted(path, NextHop(oif=underlay, gateway=path.next_hop))
