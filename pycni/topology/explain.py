"""Why a prefix is, or isn't, in each node's table: who announces it to whom, and what comes of it.

Pure.  On paper, from what the datastore says: whether a session is up, only its two ends know.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from pycni.model.bgp import Neighbour
from pycni.model.network import IPAddress, IPNetwork, Route
from pycni.plan.exports import wanted_adj_ribs_out, wanted_advertisements, withheld
from pycni.plan.imports import judge_prefix
from pycni.plan.inputs import Inputs, is_confirmed
from pycni.plan.peering import passes_on, peering_with, wanted_neighbours
from pycni.topology.paper import Sessions, is_answered, wanted_sessions

UNDERLAY = "underlay"
"""How a node's interface is called on paper: its name is known on that node alone."""
NAMED = 3
"""How many routers are named, of those that may tell a node."""


class Part(Enum):
    """What a node has to do with a prefix."""

    ANNOUNCES = "announces it"
    KEEPS = "keeps it"
    ROUTES = "has a route"
    DEPENDS = "may have a route"
    LACKS = "has no route"


@dataclass(frozen=True, slots=True)
class Standing:
    """One node's part, and why, in words: whom it tells, by whom it goes, or what is in the way."""

    node: str
    part: Part
    why: str


def standings(prefix: IPNetwork, inputs: Mapping[str, Inputs]) -> list[Standing]:
    """Return every node's part in a prefix, holders first; `inputs` have had their exchange."""
    sessions = wanted_sessions(inputs)
    holders = [name for name, one in inputs.items() if _holds(one, prefix)]
    found = [_holding(prefix, inputs[name], sessions) for name in holders]
    for name, one in inputs.items():
        if name not in holders:
            telling = [inputs[holder] for holder in holders]
            found.append(_hearing(prefix, one, telling, sessions))
    return found


def _holds(inputs: Inputs, prefix: IPNetwork) -> bool:
    affinity = inputs.affinities.get(prefix)
    if affinity is not None:
        return affinity.node == inputs.settings.node
    return inputs.borrowed.get(prefix) == inputs.settings.node


# --- who has it ---------------------------------------------------------------------------------


def _holding(prefix: IPNetwork, inputs: Inputs, sessions: Sessions) -> Standing:
    name = inputs.settings.node
    if all(one.nlri != prefix for one in wanted_advertisements(inputs)):
        return Standing(name, Part.KEEPS, _why_kept(prefix, inputs))
    neighbours = wanted_neighbours(inputs)
    sent = wanted_adj_ribs_out(inputs, neighbours)
    told = [
        peer_name(inputs, neighbour)
        for neighbour in neighbours
        if is_answered(sessions, neighbour) or neighbour.peer not in inputs.nodes_by_address
        for one in sent.to(neighbour.peer)
        if one.nlri == prefix and one.family in neighbour.families
    ]
    why = [f"to {', '.join(told)}" if told else "to nobody: it has no session that carries it"]
    why += [
        f"not to {back.peer}: {back.reason}"
        for back in withheld(inputs, neighbours)
        if back.nlri == prefix
    ]
    return Standing(name, Part.ANNOUNCES, "; ".join(why))


def _why_kept(prefix: IPNetwork, inputs: Inputs) -> str:
    affinity, pool = inputs.affinities.get(prefix), inputs.pool_of(prefix)
    if affinity is not None and not is_confirmed(affinity):
        state = "being given up" if affinity.is_deleted else affinity.state.value
        return f"the block's affinity is {state}, not confirmed"
    if pool is None:
        return "it lies in no pool"
    if pool.disable_bgp_export:
        return f"pool {pool.name} has disableBGPExport"
    return f"the node has no IPv{prefix.version} address"


def peer_name(inputs: Inputs, neighbour: Neighbour) -> str:
    """Return how a peer is called: the node that it is, or its address and its BGPPeer."""
    node = inputs.nodes_by_address.get(neighbour.peer)
    if node is not None:
        return node.name
    peering = peering_with(inputs, neighbour.peer)
    by = "" if peering is None else f" (BGPPeer {peering.name})"
    return f"{neighbour.peer}{by}"


# --- who is to hear of it -----------------------------------------------------------------------


def _hearing(
    prefix: IPNetwork, inputs: Inputs, telling: list[Inputs], sessions: Sessions
) -> Standing:
    name = inputs.settings.node
    verdict = judge_prefix(inputs, prefix)
    if verdict.route is not None:
        return Standing(name, Part.ROUTES, _way(verdict.route))
    holders = {one.settings.node for one in telling}
    relays = [
        called
        for one in wanted_neighbours(inputs)
        if _relays(inputs, one) and (called := peer_name(inputs, one)) not in holders
    ]
    if verdict.rejected:
        why = "; ".join(f"from {one.path.peer}: {one.reason}" for one in verdict.rejected)
        reasons = [f"rejected {why}"]
    else:
        reasons = [*_silences(prefix, inputs, telling, sessions)]
    if telling and relays:
        return Standing(name, Part.DEPENDS, "; ".join([_depends(relays), *reasons]))
    return Standing(name, Part.LACKS, "; ".join(reasons) or "no node has it")


def _way(route: Route) -> str:
    hops = sorted(
        f"by {hop.gateway}" + (f" dev {hop.oif}" if hop.oif != UNDERLAY else "")
        for hop in route.next_hops
    )
    return " and ".join(hops)


def _silences(
    prefix: IPNetwork, inputs: Inputs, telling: list[Inputs], sessions: Sessions
) -> Iterator[str]:
    """Yield why each node that has a prefix tells this one nothing of it."""
    for one in telling:
        own, theirs = (i.own_interface(prefix.version) for i in (inputs, one))
        if own is None or theirs is None:
            lacking = (inputs if own is None else one).settings.node
            yield f"{lacking} has no IPv{prefix.version} address for a session"
        else:
            kept = f"{one.settings.node} keeps it from here, as its own line says"
            yield _no_session(inputs, one, own.ip, theirs.ip, sessions) or kept


def _no_session(
    inputs: Inputs, other: Inputs, own: IPAddress, theirs: IPAddress, sessions: Sessions
) -> str:
    """Return why two nodes have no session, "" if they have one."""
    here, there = inputs.settings.node, other.settings.node
    ours, back = sessions.get((own, theirs)), sessions.get((theirs, own))
    if ours is None and back is None:
        return f"no session with {there}: neither the mesh nor a BGPPeer joins them"
    if ours is None or back is None:
        caller, silent = (here, there) if back is None else (there, here)
        return f"no session with {there}: {caller} calls, and nothing leads back from {silent}"
    if back.password != ours.password:
        return f"no session with {there}: the two ends have different passwords"
    if (back.local_as, back.peer_as) != (ours.peer_as, ours.local_as):
        return (
            f"no session with {there}: it is AS {back.local_as} and expects AS {back.peer_as},"
            f" {here} is AS {ours.local_as} and expects AS {ours.peer_as}"
        )
    return ""


def _relays(inputs: Inputs, neighbour: Neighbour) -> bool:
    """Tell whether a peer may pass on what others announce."""
    return neighbour.peer not in inputs.nodes_by_address or passes_on(inputs, neighbour.peer)


def _depends(relays: list[str]) -> str:
    """Say on whom a route hangs: what routers and reflectors pass on, the datastore doesn't say."""
    more = f" and {len(relays) - NAMED} more" if len(relays) > NAMED else ""
    verb = "pass" if len(relays) > 1 else "passes"
    return f"if {', '.join(relays[:NAMED])}{more} {verb} it on: see  pycnictl bgp routes  there"
