"""What the agent says of BGP: sessions, everything that came in and goes out, and what was last."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pycni.bgp.reasons import in_words
from pycni.model.bgp import Neighbour, Path
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.prefix import network_order
from pycni.plan.desired import rejected_paths
from pycni.plan.exports import wanted_adj_ribs_out, withheld
from pycni.plan.inputs import Inputs
from pycni.plan.peering import peering_with, wanted_neighbours
from pycni.plan.services import announced_services

if TYPE_CHECKING:
    from pycni.agent.daemon import Agent


def peers(agent: "Agent") -> dict[str, Any]:
    """Return the sessions that are wanted, and how each is."""
    inputs = agent.facts.inputs
    neighbours = wanted_neighbours(inputs)
    sent = wanted_adj_ribs_out(inputs, neighbours)
    rejected = Counter(one.path.peer for one in rejected_paths(inputs))
    rows = []
    for neighbour in neighbours:
        announced = [a for a in sent.to(neighbour.peer) if a.family in neighbour.families]
        rows.append(_peer(agent, neighbour, rejected[neighbour.peer], len(announced)))
    return {"peers": rows}


def _peer(agent: "Agent", neighbour: Neighbour, rejected: int, announced: int) -> dict[str, Any]:
    state = agent.facts.rib.peers.get(neighbour.peer)
    is_up = state is not None and state.is_up
    since = state.since if state is not None else None
    if since is None:
        since = agent.down_since.get(neighbour.peer)
    peering = peering_with(agent.facts.inputs, neighbour.peer)
    received = len(state.paths) if state is not None else 0
    return {
        "peer": str(neighbour.peer),
        "node": _node(agent.facts.inputs, neighbour.peer),
        "by": "mesh" if peering is None else f"BGPPeer {peering.name}",
        "as": neighbour.peer_as,
        "local_as": neighbour.local_as,
        "port": neighbour.port,
        "families": sorted(family.value for family in neighbour.families),
        "state": "up" if is_up else "down",
        "since_s": None if since is None else round(agent.clock() - since, 1),
        "received": received,
        "used": received - rejected,
        "announced": announced if is_up else 0,
        "stale": sum(p.is_stale for p in state.paths.values()) if state is not None else 0,
        "restart_time_s": state.restart_time_s if state is not None else None,
        "last_error": in_words(state.last_error) if state is not None else "",
    }


def _node(inputs: Inputs, address: IPAddress | None) -> str | None:
    node = inputs.nodes_by_address.get(address) if address is not None else None
    return node.name if node is not None else None


def routes(agent: "Agent") -> dict[str, Any]:
    """Return what came in, what became of it and why, and what goes out, to whom."""
    inputs = agent.facts.inputs
    reasons = {(one.path.nlri, one.path.peer): one.reason for one in rejected_paths(inputs)}
    ordered = sorted(inputs.paths, key=network_order)
    return {
        "learned": [
            _path(inputs, path, reasons.get((path.nlri, path.peer), ""))
            for nlri in ordered
            for path in inputs.paths[nlri]
        ],
        "announced": _announced(agent, wanted_neighbours(inputs)),
    }


def _path(inputs: Inputs, path: Path, reason: str) -> dict[str, Any]:
    return {
        "prefix": str(path.nlri),
        "peer": str(path.peer),
        "node": _node(inputs, path.peer),
        "next_hop": str(path.next_hop),
        "as_path": list(path.as_path),
        "local_pref": path.local_pref,
        "med": path.med,
        "origin": path.origin.name.lower(),
        "communities": sorted(path.communities),
        "is_stale": path.is_stale,
        "is_used": not reason,
        "reason": reason,
    }


def _announced(agent: "Agent", neighbours: Sequence[Neighbour]) -> list[dict[str, Any]]:
    """Return each way in which a prefix goes out, with those who hear it, and who does not."""
    inputs, known = agent.facts.inputs, agent.facts.rib.peers
    sent = wanted_adj_ribs_out(inputs, neighbours)
    hearers: dict[tuple[IPNetwork, str, tuple[str, ...]], list[str]] = {}
    for neighbour in neighbours:
        is_up = neighbour.peer in known and known[neighbour.peer].is_up
        for one in sent.to(neighbour.peer):
            if one.family in neighbour.families:
                way = (one.nlri, str(one.next_hop), tuple(sorted(one.communities)))
                heard = hearers.setdefault(way, [])
                heard.extend([str(neighbour.peer)] if is_up else [])
    kept: dict[IPNetwork, list[dict[str, str]]] = {}
    for back in withheld(inputs, neighbours):
        entry = {"peer": str(back.peer), "why": back.reason}
        kept.setdefault(back.nlri, []).append(entry)
    why = announced_services(inputs)
    rows: list[tuple[IPNetwork, dict[str, Any]]] = [
        (nlri, {"next_hop": hop, "communities": list(communities), "to": to})
        for (nlri, hop, communities), to in hearers.items()
    ]
    silent = kept.keys() - {nlri for nlri, _ in rows}
    rows += [(nlri, {"next_hop": None, "communities": [], "to": []}) for nlri in silent]
    rows.sort(
        key=lambda row: (network_order(row[0]), row[1]["next_hop"] or "", row[1]["communities"])
    )
    return [
        {"prefix": str(nlri)} | row | {"for": why.get(nlri, ""), "withheld": kept.get(nlri, [])}
        for nlri, row in rows
    ]


def news(agent: "Agent") -> dict[str, Any]:
    """Return what happened lately, oldest first; each `life` of an agent counts anew."""
    now, inputs = agent.clock(), agent.facts.inputs
    return {
        "life": agent.started,
        "items": [
            {
                "number": item.number,
                "age_s": round(now - item.at, 3),
                "peer": str(item.peer) if item.peer is not None else None,
                "node": _node(inputs, item.peer),
                "what": item.what,
            }
            for item in agent.facts.news.items()
        ],
    }


def answers(agent: "Agent") -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what answers questions about BGP."""
    return {
        "bgp_peers": lambda: peers(agent),
        "bgp_routes": lambda: routes(agent),
        "bgp_news": lambda: news(agent),
    }
