"""The `up` verb inside the supervisor: bring the cluster about, then show that it works."""

import contextlib

from pycni.errors import TryAgain
from pycni.lab import checks, degraded, probes, tables, waiting
from pycni.lab.cluster import Cluster
from pycni.lab.expected import expected_source
from pycni.lab.session import Session
from pycni.model.network import IPAddress
from pycni.model.tunnels import TunnelKind, address_in
from pycni.topology.model import Topology, TopologyPod

TUNNEL_TEXT = {
    "ipip": "the kernel's own IP-in-IP",
    "bpf": "tunl0 by tc-bpf, a stand-in for IP-in-IP",
    "none": "no IP-in-IP",
}


async def come_up(cluster: Cluster, *, session: Session) -> bool:
    """Do all steps and show the result; True: everything is as it should be."""
    topology = cluster.topology
    await cluster.fill_datastore()
    await cluster.build_underlay()
    await session.step(
        f"underlay: {_members(topology)} behind a router; {TUNNEL_TEXT[cluster.plan.tunnel]}"
    )
    await cluster.prepare_nodes()
    await cluster.start_routers()
    await cluster.start_agents()
    await cluster.start_webs()
    await waiting.for_agents(cluster, session=session)
    await session.step(f"agents: {_count(cluster.node_names, 'agent')} serve")
    for pod in topology.pods:
        await session.progress(f"adding pod {pod.full_name} to {pod.node}")
        await cluster.add_pod(pod)
    await session.step(f"pods: {len(topology.pods)} added by {cluster.runtime.name}")
    await waiting.for_convergence(cluster, session=session)
    await session.step("converged: all BGP sessions up, all routes as predicted")
    return await _show(cluster, session=session)


def _members(topology: Topology) -> str:
    kinds = [_count(topology.nodes, "node")]
    kinds += [_count(topology.hosts, "host")] if topology.hosts else []
    kinds += [f"{_count(topology.routers, 'router')} of others"] if topology.routers else []
    return " and ".join(kinds)


def _count(things: object, noun: str) -> str:
    number = len(things)  # type: ignore[arg-type]  # any sized collection
    return f"{number} {noun}{'' if number == 1 else 's'}"


async def _show(cluster: Cluster, *, session: Session) -> bool:
    are_equal = await show_tables(cluster, session=session)
    await show_degraded(cluster, session=session)
    await session.say("")
    answering = await _ping_all(cluster, session=session)
    is_seen = await _ask_from_a_node(cluster, session=session)
    return are_equal and answering and is_seen


async def show_tables(cluster: Cluster, *, session: Session) -> bool:
    """Print every node's table beside its prediction; True: all are equal."""
    comparisons = await cluster.compare_all()
    for comparison in comparisons:
        await session.say("", f"{comparison.node}: {comparison.title} {comparison.verdict}")
        await session.say(*tables.side_by_side(comparison, width=session.width))
    return all(c.is_equal for c in comparisons)


async def show_degraded(cluster: Cluster, *, session: Session) -> None:
    """Say what this kernel keeps the nodes from doing, as far as their agents answer."""
    nats: dict[str, str] = {}
    for node in cluster.node_names:
        with contextlib.suppress(TryAgain):
            nats[node] = (await cluster.agents.ask(node, "status"))["nat"]
    for line in degraded.degraded_lines(nats, where=cluster.plan.where):
        await session.say("", line)


async def _ping_all(cluster: Cluster, *, session: Session) -> bool:
    are_answered = True
    for family in cluster.topology.pod_versions:
        count = len(checks.pairs_of(cluster, family=family))
        name = "ping" if family == 4 else "ping -6"
        await session.progress(f"{name}: {count} pairs of pods")
        silent = await checks.unanswered_pings(cluster, family=family)
        await session.say(f"{name}: {count - len(silent)} of {count} pairs of pods answer")
        for pair in silent:
            await session.say(f"  no answer: {pair.source.full_name} -> {pair.target.full_name}")
        are_answered &= not silent
    return are_answered


def choose_asker(cluster: Cluster) -> tuple[str, TopologyPod] | None:
    """Return a node (one without pods if there is one) and a pod on the last node with pods."""
    pods = cluster.topology.pods
    if not pods:
        return None
    busy = {pod.node for pod in pods}
    target = next(pod for node in reversed(cluster.node_names) for pod in pods if pod.node == node)
    idle = [name for name in cluster.node_names if name not in busy]
    others = [name for name in cluster.node_names if name != target.node]
    asker = next(iter([*idle, *others]), None)
    return (asker, target) if asker is not None else None


async def _ask_from_a_node(cluster: Cluster, *, session: Session) -> bool:
    chosen = choose_asker(cluster)
    if chosen is None:
        return True
    node, pod = chosen
    answers = [
        await _ask(cluster, node, pod=pod, address=address, session=session)
        for address in cluster.addresses[pod.full_name]
    ]
    return all(answers)


async def _ask(
    cluster: Cluster, node: str, *, pod: TopologyPod, address: IPAddress, session: Session
) -> bool:
    prediction = await cluster.prediction()
    expected = expected_source(prediction, node=node, target=address)
    url = probes.url(address)
    try:
        seen = await probes.seen_source(node, address=address)
    except TryAgain as exc:
        await session.say(f"curl: {exc}")
        return False
    is_right = expected is None or seen == str(expected)
    own = prediction.inputs[node].node
    # Without a tunnel a node asks by the address of its underlay.
    tunnels = [] if own is None else [str(address_in(own, kind)) for kind in TunnelKind]
    whose = "tunnel" if seen in tunnels else "own"
    known = f"{node}'s {whose} address" if is_right else f"expected was {expected}"
    await session.say(
        f"curl: {node} asks {url} ({pod.full_name} on {pod.node}),"
        f" which sees it come from {seen} ({known})"
    )
    return is_right


async def show_logs(cluster: Cluster, *, session: Session) -> None:
    """Show what the agents said last, after something has failed."""
    for node in cluster.node_names:
        for name, lines in cluster.agents.log_tails(node).items():
            if lines:
                await session.complain("", f"the end of {node}'s {name}:")
                await session.complain(*(f"  {line}" for line in lines))
