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
from pycni.model.resources import IPPool, Node
from pycni.plan.filters import kept_out
from pycni.plan.ground import Ground
from pycni.plan.inputs import Inputs, is_confirmed
from pycni.plan.peering import Session, own_as
from pycni.plan.prefixes import route_key
from pycni.plan.ways import way_out


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


_NO_PATHS = Verdict(route=None)


def judge_prefix(inputs: Inputs, nlri: IPNetwork, *, ground: Ground | None = None) -> Verdict:
    """Decide which of the paths to a prefix are used; equal ones make a multipath route.

    Whoever judges many hands over the `ground` on which all stand.
    """
    paths = inputs.paths.get(nlri, ())
    if not paths:
        return _NO_PATHS
    ground = ground or Ground(inputs)
    pool = _pool_for(ground, nlri)
    accepted: list[Accepted] = []
    rejected: list[Rejected] = []
    for path in paths:
        verdict = Rejected(path, pool) if isinstance(pool, str) else _judge(ground, path, pool)
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
        next_hops=frozenset([a.next_hop for a in best]),
        protocol=inputs.settings.route_protocol,
    )
    return Verdict(route=route, used=tuple([a.path for a in best]), rejected=tuple(rejected))


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
    pool = _pool_for(ground, path.nlri)
    return Rejected(path, pool) if isinstance(pool, str) else _judge(ground, path, pool)


def _pool_for(ground: Ground, nlri: IPNetwork) -> IPPool | str:
    """Return the pool that a prefix lies in, or why no path to it is used, whoever tells of it."""
    why = _conflict_with_own(ground, nlri)
    if why is not None:
        return why
    services = ground.service_range_of(nlri) if ground.has_services else None
    if services is not None:
        # kube-proxy answers for these on every node: nothing of them is to leave it.
        return f"it lies in {services}, a range of Services, which no node learns"
    return ground.inputs.pool_of(nlri) or "it lies in no pool"


def _judge(ground: Ground, path: Path, pool: IPPool) -> Accepted | Rejected:
    inputs, session = ground.inputs, ground.session(path.peer)
    behind = inputs.nodes_by_address.get(path.next_hop)
    why = (
        _of_another_version(inputs, path, session)
        or _misplaced(inputs, path, session, behind)
        or _loop(inputs, path, session)
        or _wrong(inputs, path, behind)
    )
    if why is not None:
        return Rejected(path, why)
    way = way_out(ground, pool, path.next_hop)
    if isinstance(way, str):
        return Rejected(path, way)
    # Last, so that a filter can only take away from what the rest admits.
    peering = session.peering
    why = kept_out(inputs, peering, path.nlri, interface=way.oif) if peering is not None else None
    return Accepted(path, way) if why is None else Rejected(path, why)


def _of_another_version(inputs: Inputs, path: Path, session: Session) -> str | None:
    """Return why the next hop may not be of another IP version than the prefix, None if it may."""
    if path.next_hop.version == path.nlri.version:
        return None
    is_agreed = inputs.settings.has_extended_next_hop and session.passes_on
    if is_agreed and path.peer.version == path.next_hop.version == 6:
        return None
    return f"next hop {path.next_hop} is of another IP version (RFC 8950; extended_next_hop)"


def _misplaced(inputs: Inputs, path: Path, session: Session, behind: Node | None) -> str | None:
    """Return why a peer may not name this next hop, None when it may."""
    if session.passes_on:
        if behind is None and path.next_hop != path.peer:
            return f"next hop {path.next_hop} is no node's address, and not the peer's own"
        return None
    sender = inputs.nodes_by_address.get(path.peer)
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


def _wrong(inputs: Inputs, path: Path, behind: Node | None) -> str | None:
    """Return why the prefix is not that node's who is said to have it, None when it is."""
    affinity = inputs.affinities.get(path.nlri)
    holder = affinity.node if affinity is not None else inputs.borrowed.get(path.nlri)
    # By a router's own next hop it may be anybody's: who has it has told the router.
    if holder is None:
        whose = f" of {behind.name}" if behind is not None else ""
        return f"no block affinity{whose} covers it (yet)"
    if behind is not None and holder != behind.name:
        what = "block belongs to" if affinity is not None else "address is held by"
        return f"the {what} {holder}, not {'to' if affinity is not None else 'by'} {behind.name}"
    if affinity is not None and not is_confirmed(affinity):
        return f"the block's affinity is {affinity.state.value}, not confirmed"
    return None
