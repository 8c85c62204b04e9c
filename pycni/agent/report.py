"""What the agent says of itself: status, routes, readiness, metrics; and what it can be asked."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pycni.agent import bgp_report
from pycni.agent.http import Page
from pycni.bgp.reasons import in_words
from pycni.bgp.rib import MAX_PATHS, Rib
from pycni.errors import TryAgain
from pycni.kernel.netns import is_gone
from pycni.model.endpoints import HOST_VETH_PREFIX, EndpointState, pod_of
from pycni.model.network import IPAddress, IPNetwork, KernelState, Route
from pycni.model.prefix import network_order
from pycni.model.records import endpoint_document, pending_document
from pycni.model.resources import Node
from pycni.model.tunnels import TunnelKind, address_in
from pycni.plan.desired import rejected_paths
from pycni.plan.exports import wanted_advertisements, withheld
from pycni.plan.filters import missing_filters
from pycni.plan.inputs import Inputs
from pycni.plan.iproute import route_text
from pycni.plan.overlay import device_of
from pycni.plan.peering import unanswered, wanted_neighbours
from pycni.plan.services import colliding

if TYPE_CHECKING:
    from pycni.agent.daemon import Agent

SESSION_GRACE_S = 30.0
"""How long a session may be down before `status` calls it a problem."""
NAMED = 5
"""How many of one kind of problem are named."""


def tunnels(inputs: Inputs) -> dict[str, str]:
    """Return this node's address inside each tunnel, by the name of its device."""
    node = inputs.node
    if node is None:
        return {}
    named = {device_of(inputs.settings, kind): address_in(node, kind) for kind in TunnelKind}
    return {device: str(address) for device, address in named.items() if address is not None}


def status(agent: "Agent") -> dict[str, Any]:
    """Return the agent's state for `pycnictl status`."""
    facts, health = agent.facts, agent.reconciler.health
    node = facts.inputs.node
    have = facts.have
    return {
        "node": agent.node,
        "version": agent.version,
        "uptime_s": round(agent.clock() - agent.started, 1),
        "address": str(node.ipv4) if node is not None and node.ipv4 is not None else None,
        # Only where there is one: the status of nodes without IPv6 says nothing of it.
        **({"address6": str(node.ipv6)} if node is not None and node.ipv6 is not None else {}),
        "tunnel_address": str(node.ipip_tunnel_address)
        if node is not None and node.ipip_tunnel_address is not None
        else None,
        "tunnels": tunnels(facts.inputs),
        **_autodetection(agent),
        "converged": is_ready(agent),
        "problems": problems(agent),
        "blocks": list(map(str, sorted(facts.inputs.own_blocks(), key=network_order))),
        "endpoints": len(facts.inputs.endpoints),
        "nat": _nat(agent),
        "peers": _peers(agent),
        "advertised": [
            str(nlri)
            for nlri in sorted(
                {a.nlri for a in wanted_advertisements(facts.inputs)}, key=network_order
            )
        ],
        "passes": health.passes,
        "full_passes": health.full_passes,
        "operations": health.operations,
        "kernel_routes": sum(map(len, have.routes.values())) if have is not None else 0,
        "bgp_pid": agent.speaker.pid,
        "cni_pid": agent.cni.pid,
        "cni_starts": agent.cni.starts,
        "drops": agent.drop_counters(),
    }


def _autodetection(agent: "Agent") -> dict[str, Any]:
    """Explain the choice of the node's addresses, where one is made."""
    explained = agent.autodetection.explain(agent.facts.inputs)
    return {"autodetection": explained} if explained else {}


def _nat(agent: "Agent") -> str:
    have = agent.facts.have
    if have is None:
        return "unknown"
    if have.nat_unavailable is not None:
        return f"unavailable: {have.nat_unavailable.reason}"
    return "in place" if have.ruleset is not None else "absent"


def _peers(agent: "Agent") -> list[dict[str, Any]]:
    rib = agent.facts.rib
    rows = []
    for neighbour in wanted_neighbours(agent.facts.inputs):
        state = rib.peers.get(neighbour.peer)
        node = agent.facts.inputs.nodes_by_address.get(neighbour.peer)
        rows.append(
            {
                "peer": str(neighbour.peer),
                "node": node.name if node is not None else None,
                "as": neighbour.peer_as,
                "state": "up" if state is not None and state.is_up else "down",
                "paths": len(state.paths) if state is not None else 0,
                "stale": sum(p.is_stale for p in state.paths.values()) if state else 0,
                "restart_time_s": state.restart_time_s if state is not None else None,
                "last_error": state.last_error if state is not None else "",
            }
        )
    return rows


def routes(agent: "Agent") -> dict[str, Any]:
    """Return wanted and actual routes, why a learned path wasn't used, or one of ours not told."""
    have, inputs = agent.facts.have, agent.facts.inputs
    want = agent.reconciler.want.routes
    actual = have.routes if have is not None else {}
    used = [
        {"prefix": str(path.nlri), "peer": str(path.peer), "next_hop": str(path.next_hop)}
        for paths in inputs.paths.values()
        for path in paths
    ]
    reasons = {(str(r.path.nlri), str(r.path.peer)): r.reason for r in rejected_paths(inputs)}
    for row in used:
        row["used"] = reasons.get((row["prefix"], row["peer"]), "yes")
    return {
        "wanted": _texts(want.values()),
        "missing": _texts(r for k, r in want.items() if r not in actual.get(k, ())),
        "conflicts": [
            {"wanted": _text(c.wanted), "foreign": _text(c.foreign)}
            for c in agent.reconciler.health.conflicts.values()
        ],
        "paths": used,
        "withheld": [
            {"prefix": str(one.nlri), "peer": str(one.peer), "why": one.reason}
            for one in withheld(inputs, wanted_neighbours(inputs))
        ],
    }


def endpoints(agent: "Agent") -> dict[str, Any]:
    """Return this node's records and journalled releases, read anew from their files.

    What the facts remember may be behind, and who compares addresses with records must not take a
    pod that is being added for a leak.  `datastore` tells which file the agent works on;
    `aliases` and `routed` show which pods live on though their record is lost, `gone` those of
    other plugins' pods that don't, though they have one.
    """
    have = agent.facts.have
    if have is None:
        raise TryAgain("the agent has not read the kernel yet: ask again in a second")
    records, complaints = agent.endpoints.readable()
    return {
        "node": agent.node,
        "datastore": list(agent.datastore.identity),
        "stateDir": agent.config.state_dir,
        "records": [endpoint_document(one) for one in records],
        "gone": [str(one.key) for one in records if is_gone(one)],
        "damaged": list(complaints),
        "debts": [pending_document(one) for one in agent.endpoints.pending()],
        "aliases": sorted(link.alias for link in have.links.values() if link.alias),
        "routed": sorted(str(dst.network_address) for dst in _pod_routes(have)),
    }


def membership(agent: "Agent") -> dict[str, Any]:
    """Return whether this node is a member of the network, or leaving, and what hinders it."""
    return agent.departure.said() | {"trouble": agent.troubles.get("registration", "")}


def _text(route: Route) -> str:
    return route_text(route)


def _texts(routes: Iterable[Route]) -> list[str]:
    return [_text(r) for r in sorted(routes, key=lambda r: network_order(r.key.dst))]


def problems(agent: "Agent") -> list[str]:
    """Return everything that is wrong, each as a sentence."""
    health = agent.reconciler.health
    found = [f"{what}: {why}" for what, why in sorted(agent.troubles.items()) if why]
    found += [failure.message for failure in health.failures]
    found += [agent.speaker.trouble] if agent.speaker.trouble else []
    found += [f"BGP peer {peer}: {why}" for peer, why in agent.speaker.refused.items()]
    found += unread_annotations(agent.facts.inputs.nodes.values())
    found += [missing_filter_text(*one) for one in missing_filters(agent.facts.inputs)]
    found += service_collisions(agent.facts.inputs)
    found += _broken_underlays(agent.facts.inputs)
    found += _down_sessions(agent)
    found += full_peers(agent.facts.rib)
    found += _lost_interfaces(agent)
    found += [
        f"{_text(c.wanted)!r} is wanted, but somebody else's {_text(c.foreign)!r} is there"
        for c in health.conflicts.values()
    ]
    found += [
        f"somebody keeps undoing {thing}: look for another routing daemon"
        f" (a BIRD with 'metric 0' deletes routes of protocol {agent.route_protocol})"
        for thing in health.fights
    ]
    return found


def unread_annotations(nodes: Iterable[Node]) -> list[str]:
    """Name a few of the nodes' annotations that can't be read, for whoever wrote them."""
    unread = [(node.name, annotation) for node in nodes for annotation in node.unread]
    found = [
        f"Node {node}: its annotation {annotation} can't be read and counts as absent: correct it"
        f" (kubectl annotate --overwrite node {node} {annotation}=VALUE, or {annotation}-)"
        for node, annotation in sorted(unread)[:NAMED]
    ]
    more = len(unread) - NAMED
    return [*found, f"and {more} more annotations of Nodes can't be read"] if more > 0 else found


def service_collisions(inputs: Inputs) -> list[str]:
    """Name the ranges of Services that are pods': they are neither announced nor guarded."""
    return [
        f"{cidr}, a range of Services in the BGPConfiguration, overlaps pool {pool.name}"
        f" ({pool.cidr}), and is left out: name the Services' own addresses"
        for cidr, pool in colliding(inputs)
    ]


def full_peers(rib: Rib) -> list[str]:
    """Name the peers that announce more than is kept: which of it counts is a matter of chance."""
    return [
        f"BGP peer {peer} announces over {MAX_PATHS:,} prefixes, and what came after those is not"
        " used: let it announce the nodes' blocks alone, then restart its session"
        for peer, state in rib.peers.items()
        if state.is_full
    ]


def _broken_underlays(inputs: Inputs) -> list[str]:
    """Name the interfaces that carry this node's address and lead nowhere."""
    names = {name for version in (4, 6) if (name := inputs.broken_underlay(version))}
    return [
        f"{name}, which carries this node's address, has no link, so no other node can be reached:"
        f" look at its cable and at the switch, or whether somebody has set it down"
        for name in sorted(names)
    ]


def _down_sessions(agent: "Agent") -> list[str]:
    """Name the sessions that have been down for longer than a restart of the peer takes."""
    now = agent.clock()
    names = agent.facts.inputs.nodes_by_address
    known = agent.facts.rib.peers
    ports = {one.peer: one.port for one in wanted_neighbours(agent.facts.inputs)}
    return [
        down_session_text(
            str(peer),
            node=names[peer].name if peer in names else "",
            port=ports[peer],
            down_s=now - since,
            last_error=known[peer].last_error if peer in known else "",
            one_way=peering.name if (peering := unanswered(agent.facts.inputs, peer)) else "",
        )
        for peer, since in sorted(agent.down_since.items(), key=lambda item: str(item[0]))
        if peer in ports and now - since >= SESSION_GRACE_S
    ]


def down_session_text(
    peer: str, *, node: str, port: int, down_s: float, one_way: str = "", last_error: str = ""
) -> str:
    """Say that a session is down, and where to look: at a node's agent or at a router ("").

    `one_way` names the BGPPeer of a session that the other node does not have.
    """
    who = f"{node} ({peer})" if node else peer
    if one_way:
        return (
            f"the BGP session with {who} is down for {down_s:.0f} s: BGPPeer {one_way} has"
            f" reversePeering Manual, and none of {node} leads back: make one, or write Auto"
        )
    runs = (
        "that agent runs"
        if node
        else "that router runs and has this node as its neighbour, with the same AS numbers,"
        " password and ttlSecurity"
    )
    why = f" ({in_words(last_error)})" if last_error else ""
    return (
        f"the BGP session with {who} is down for {down_s:.0f} s{why}: look whether {runs}, and"
        f" whether TCP port {port} gets there"
    )


def missing_filter_text(peer: IPAddress, peering: str, name: str) -> str:
    """Say that nothing is exchanged with a peer, and how to change that."""
    return (
        f"BGP peer {peer}: nothing is announced to it or taken from it, because BGPFilter {name},"
        f" which BGPPeer {peering} names, is not there: apply it, or take its name out of the peer"
    )


def _lost_interfaces(agent: "Agent") -> list[str]:
    """Name the pods whose interface is gone: no agent can give it back."""
    have = agent.facts.have
    if have is None:
        return []
    return [
        f"pod {pod_of(endpoint)} has lost its interface {endpoint.host_veth}:"
        " delete the pod, so that its runtime makes another"
        for endpoint in agent.facts.inputs.endpoints.values()
        if endpoint.has_interface
        and endpoint.state is EndpointState.READY
        and endpoint.host_veth not in have.links
    ]


def is_ready(agent: "Agent") -> bool:
    """Tell whether requests can be served and the kernel is as wanted."""
    health = agent.reconciler.health
    return agent.cni.is_serving and health.has_converged and not health.failures


def _pod_routes(have: KernelState) -> set[IPNetwork]:
    """Return the single addresses to which a route leads by a pod's interface."""
    return {
        key.dst
        for key, routes in have.routes.items()
        if key.dst.prefixlen == key.dst.max_prefixlen
        if any(oif.startswith(HOST_VETH_PREFIX) for route in routes for oif in route.oifs)
    }


def answers(agent: "Agent") -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what answers each question of the control socket."""
    return {
        "status": lambda: status(agent),
        "routes": lambda: routes(agent),
        "endpoints": lambda: endpoints(agent),
        "membership": lambda: membership(agent),
    } | bgp_report.answers(agent)


def wishes(agent: "Agent") -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what fulfils each wish of the control socket, and says how things stand then."""

    def fulfil(wish: Callable[[], None]) -> dict[str, Any]:
        wish()
        return membership(agent)

    return {
        "leave": lambda: fulfil(agent.departure.leave),
        "join": lambda: fulfil(agent.departure.join),
    }


def pages(agent: "Agent") -> dict[str, Callable[[], Page]]:
    """Return the HTTP pages."""

    def healthz() -> Page:
        return Page(200, b"ok\n")

    def readyz() -> Page:
        if is_ready(agent):
            return Page(200, b"ready\n")
        text = "\n".join(problems(agent)) or "not converged yet"
        return Page(503, text.encode() + b"\n")

    def metrics() -> Page:
        return Page(200, agent.metrics.render(agent), "text/plain; version=0.0.4; charset=utf-8")

    return {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
