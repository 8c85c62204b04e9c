"""What may come in by BGP: judge one learned path, and choose among several.

Nobody can inject a default route, capture a node's subnet or take over a pod: what is announced has
to be a node's block (as the datastore's affinities record them) or an address that it borrowed.
A mesh peer speaks for itself alone.  A reflector, or a router that a BGPPeer names, passes on what
other nodes have: by their next hop, or a router by its own.  Filters come last: they take away
from what the rest admits, and admit nothing themselves.  Judgement depends on the inputs of
this moment only; a path that comes before its affinity is judged again when that arrives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pycni.model.bgp import Path
from pycni.model.network import IPNetwork, NextHop, Route
from pycni.model.resources import IPPool, TunnelMode
from pycni.model.tunnels import TunnelKind, tunnel_mode, tunnel_of
from pycni.plan.filters import kept_out
from pycni.plan.ground import Ground
from pycni.plan.inputs import Inputs, is_confirmed, route_key
from pycni.plan.overlay import device_of
from pycni.plan.peering import Session, own_as


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


def judge_prefix(inputs: Inputs, nlri: IPNetwork, *, ground: Ground | None = None) -> Verdict:
    """Decide which of the paths to a prefix are used; equal ones make a multipath route.

    Whoever judges many hands over the `ground` on which all stand.
    """
    ground = ground or Ground(inputs)
    accepted: list[Accepted] = []
    rejected: list[Rejected] = []
    for path in inputs.paths.get(nlri, ()):
        verdict = judge(inputs, path, ground=ground)
        if isinstance(verdict, Accepted):
            accepted.append(verdict)
        else:
            rejected.append(verdict)
    if not accepted:
        return Verdict(route=None, rejected=tuple(rejected))
    best = accepted if len(accepted) == 1 else _best(ground, accepted)
    if len(best) < len(accepted):
        why = "another path is better (RFC 4271, 9.1.2.2)"
        rejected += [Rejected(a.path, why) for a in accepted if a not in best]
    route = Route(
        key=route_key(nlri),
        next_hops=frozenset(a.next_hop for a in best),
        protocol=inputs.settings.route_protocol,
    )
    return Verdict(route=route, used=tuple(a.path for a in best), rejected=tuple(rejected))


def _best(ground: Ground, accepted: Sequence[Accepted]) -> Sequence[Accepted]:
    ranks = [rank(ground, a.path) for a in accepted]
    lowest = min(ranks)
    return [a for a, its in zip(accepted, ranks, strict=True) if its == lowest]


def rank(ground: Ground, path: Path) -> tuple[int, int, int, int, bool]:
    """Order paths as RFC 4271 9.1.2.2 does, smaller is better; ties are equal-cost.

    Router id and peer address, which would break ties, are left out on purpose: equal paths are
    all used.
    """
    internal = ground.session(path.peer).is_internal
    return (-path.local_pref, len(path.as_path), path.origin.value, path.med, internal)


def judge(inputs: Inputs, path: Path, *, ground: Ground | None = None) -> Accepted | Rejected:
    """Decide whether one path may be used, and by which way out."""
    ground = ground or Ground(inputs)
    session = ground.session(path.peer)
    why = _conflict_with_own(ground, path.nlri)
    if why is not None:
        return Rejected(path, why)
    services = ground.service_range_of(path.nlri) if ground.has_services else None
    if services is not None:
        # kube-proxy answers for these on every node: nothing of them is to leave it.
        return Rejected(path, f"it lies in {services}, a range of Services, which no node learns")
    pool = inputs.pool_of(path.nlri)
    if pool is None:
        return Rejected(path, "it lies in no pool")
    why = (
        _of_another_version(inputs, path, session)
        or _misplaced(inputs, path, session)
        or _loop(inputs, path, session)
        or _wrong(inputs, path)
    )
    if why is not None:
        return Rejected(path, why)
    verdict = _way_out(ground, path, pool)
    # Last, so that a filter can only take away from what the rest admits.
    why = _filtered(inputs, verdict, session) if isinstance(verdict, Accepted) else None
    return verdict if why is None else Rejected(path, why)


def _filtered(inputs: Inputs, accepted: Accepted, session: Session) -> str | None:
    """Return why a filter of the sender's BGPPeer rejects a path, None when none does."""
    nlri, oif = accepted.path.nlri, accepted.next_hop.oif
    peering = session.peering
    return None if peering is None else kept_out(inputs, peering, nlri, interface=oif)


def _of_another_version(inputs: Inputs, path: Path, session: Session) -> str | None:
    """Return why the next hop may not be of another IP version than the prefix, None if it may."""
    if path.next_hop.version == path.nlri.version:
        return None
    is_agreed = inputs.settings.has_extended_next_hop and session.passes_on
    if is_agreed and path.peer.version == path.next_hop.version == 6:
        return None
    return f"next hop {path.next_hop} is of another IP version (RFC 8950; extended_next_hop)"


def _misplaced(inputs: Inputs, path: Path, session: Session) -> str | None:
    """Return why a peer may not name this next hop, None when it may."""
    sender = inputs.nodes_by_address.get(path.peer)
    behind = inputs.nodes_by_address.get(path.next_hop)
    if session.passes_on:
        if behind is None and path.next_hop != path.peer:
            return f"next hop {path.next_hop} is no node's address, and not the peer's own"
        return None
    if sender is None:
        return f"peer {path.peer} is no node, and no BGPPeer of this node names it"
    if behind is not sender:
        return f"next hop {path.next_hop} is not the address of {sender.name}"
    return None


def _loop(inputs: Inputs, path: Path, session: Session) -> str | None:
    """Return why a path is refused that has been in our own AS (RFC 4271, 9.1.2)."""
    if not path.as_path:
        return None
    own = {own_as(inputs), session.local_as}
    count = sum(number in own for number in path.as_path)
    if count <= (session.peering.allowed_own_as if session.peering is not None else 0):
        return None
    return f"its AS path holds our own AS {count} times (RFC 4271, 9.1.2; numAllowedLocalASNumbers)"


def _conflict_with_own(ground: Ground, nlri: IPNetwork) -> str | None:
    """Return why a prefix would take away something of this node's own, None if it doesn't."""
    inputs, ifname = ground.inputs, ground.interface_of(nlri)
    if ifname is not None:
        return f"{nlri} is an address or subnet of this node ({ifname})"
    if inputs.is_own_block(nlri):
        return f"{nlri} is a block of this node"
    if nlri in inputs.pods:
        return f"{nlri} is a pod of this node"
    return None


def _wrong(inputs: Inputs, path: Path) -> str | None:
    """Return why the prefix is not that node's who is said to have it, None when it is."""
    affinity = inputs.affinities.get(path.nlri)
    holder = affinity.node if affinity is not None else inputs.borrowed.get(path.nlri)
    # By a router's own next hop it may be anybody's: who has it has told the router.
    behind = inputs.nodes_by_address.get(path.next_hop)
    if holder is None:
        whose = f" of {behind.name}" if behind is not None else ""
        return f"no block affinity{whose} covers it (yet)"
    if behind is not None and holder != behind.name:
        what = "block belongs to" if affinity is not None else "address is held by"
        return f"the {what} {holder}, not {'to' if affinity is not None else 'by'} {behind.name}"
    if affinity is not None and not is_confirmed(affinity):
        return f"the block's affinity is {affinity.state.value}, not confirmed"
    return None


def _way_out(ground: Ground, path: Path, pool: IPPool) -> Accepted | Rejected:
    """Choose between the underlay (next hop in our own subnet) and the pool's tunnel.

    While a new tunnel doesn't lead to every node yet, the one before it does.
    """
    verdict = _way_by(ground, path, ground.inputs.in_effect(pool))
    former = ground.inputs.formers.get(pool.name)
    if isinstance(verdict, Accepted) or former is None:
        return verdict
    other = _way_by(ground, path, former)
    return other if isinstance(other, Accepted) else verdict


def _way_by(ground: Ground, path: Path, pool: IPPool) -> Accepted | Rejected:
    version = path.next_hop.version
    own = ground.underlay(version)
    if own is None:
        return Rejected(path, f"this node has no IPv{version} address yet")
    if path.next_hop == own.address:
        return Rejected(path, "its next hop is this node")
    if own.is_broken:
        return Rejected(path, f"{own.ifname}, by which it would leave, has no link")
    is_near = path.next_hop in own.subnet
    kind, mode = tunnel_of(pool), tunnel_mode(pool)
    if kind is not None and (mode is TunnelMode.ALWAYS or not is_near):
        return _tunnelled(ground, path, pool, kind=kind)
    if own.ifname is None:
        return Rejected(path, f"no interface of this node carries {own.address}")
    if not is_near:
        return Rejected(
            path,
            f"next hop {path.next_hop} is outside {own.subnet} and pool {pool.name} has no tunnel",
        )
    return Accepted(path, NextHop(oif=own.ifname, gateway=path.next_hop))


def _tunnelled(
    ground: Ground, path: Path, pool: IPPool, *, kind: TunnelKind
) -> Accepted | Rejected:
    """Send by a tunnel: of IP in IP to the node's own address, of VXLAN to the one inside."""
    inputs, version = ground.inputs, path.nlri.version
    if path.next_hop.version != version:
        why = f"tunnels to IPv{version} addresses, and next hop {path.next_hop} is none"
        return Rejected(path, f"pool {pool.name} {why}")
    behind = inputs.nodes_by_address.get(path.next_hop)
    if behind is None:
        why = f"pool {pool.name} tunnels to nodes, and next hop {path.next_hop} is none"
        return Rejected(path, why)
    device = device_of(inputs.settings, kind)
    if not kind.is_vxlan:
        return Accepted(path, NextHop(oif=device, gateway=path.next_hop, is_onlink=True))
    if ground.is_foreign(kind):
        return Rejected(path, f"{device}, by which it would leave, is another's: see the failures")
    end = ground.far_ends(kind)[behind.name]
    if isinstance(end, str):
        return Rejected(path, f"pool {pool.name} tunnels to {behind.name}, and {end}")
    return Accepted(path, NextHop(oif=device, gateway=end.address, is_onlink=True))
