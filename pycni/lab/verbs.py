"""The verbs of a lab that is up, performed in the supervisor."""

import signal
from collections.abc import Awaitable, Callable, Mapping

from pycni.ctl.usage import WrongUsage
from pycni.errors import PycniError
from pycni.lab import bringup, checks, degraded, interactive, nodetools, picture, tables
from pycni.lab.cluster import Cluster
from pycni.lab.session import Session
from pycni.topology.model import TopologyPod, parse_pod

Verb = Callable[[Cluster, Session], Awaitable[int]]


async def show(cluster: Cluster, session: Session) -> int:
    """Draw the cluster, then every node's table, agent and sessions."""
    statuses = {}
    for node in cluster.node_names:
        try:
            statuses[node] = await cluster.agents.ask(node, "status")
        except PycniError:
            continue
    facts = {
        node: picture.NodeFacts(status["tunnel_address"], tuple(status["blocks"]))
        for node, status in statuses.items()
    }
    await session.say(*picture.draw(cluster.topology, facts=facts, addresses=cluster.addresses))
    are_equal = await bringup.show_tables(cluster, session=session)
    for node in cluster.node_names:
        await session.say("")
        if node not in statuses:
            await session.say(f"{node}: no agent answers")
            continue
        await session.say(*_status_lines(node, statuses[node]))
    await bringup.show_degraded(cluster, session=session)
    is_steady = len(statuses) == len(cluster.node_names) and all(
        status["converged"] and all(p["state"] == "up" for p in status["peers"])
        for status in statuses.values()
    )
    return 0 if are_equal and is_steady else 1


def _status_lines(node: str, status: Mapping[str, object]) -> list[str]:
    state = "converged" if status["converged"] else "NOT converged"
    nat = degraded.nat_word(str(status["nat"]))
    lines = [f"{node}: agent {state}, up for {status['uptime_s']} s, NAT {nat}"]
    lines += [f"  problem: {problem}" for problem in status["problems"]]  # type: ignore[attr-defined]
    rows = [
        [f"  BGP {p['peer']}", p["node"] or "-", p["state"], f"{p['paths']} paths", p["last_error"]]
        for p in status["peers"]  # type: ignore[attr-defined]
    ]
    return lines + tables.columns(rows)


async def test(cluster: Cluster, session: Session) -> int:
    """Make all checks."""
    counts = dict.fromkeys(checks.Verdict, 0)

    async def print_row(row: checks.Row) -> None:
        counts[row.verdict] += 1
        await session.say(f"{row.verdict.value}  {row.what:64}  {row.seen}".rstrip())

    is_right = await checks.run_all(cluster, show=print_row)
    await bringup.show_degraded(cluster, session=session)
    numbers = ", ".join(f"{counts[v]} {v.value}" for v in checks.Verdict)
    await session.say("", f"{'all is well' if is_right else 'NOT all is well'}: {numbers}")
    return 0 if is_right else 1


async def execute(cluster: Cluster, session: Session) -> int:
    """Run a program, or a shell, in a node, pod, host or the router."""
    place = cluster.find_place(str(session.request.arguments["place"]))
    command = [str(word) for word in session.request.arguments["command"]]
    env: dict[str, str] = {}
    if not command:
        command, env = interactive.shell_command(str(session.request.arguments["place"]))
    if place in cluster.node_names:
        env |= nodetools.environment(place, layout=cluster.layout)
    return await interactive.run(session, place=place, command=command, env=env)


async def agent(cluster: Cluster, session: Session) -> int:
    """Start, stop or kill a node's agent."""
    action, node = _words(session, "action", "node")
    cluster.require_node(node)
    match action:
        case "start":
            await cluster.agents.start(node)
        case "stop":
            await cluster.agents.end(node)
        case "kill":
            await cluster.agents.end(node, number=signal.SIGKILL)
        case "log":
            path = cluster.layout.agent_log(node)
            await session.say(*path.read_text(encoding="utf-8").splitlines())
        case _:
            raise WrongUsage(f"an agent can't {action!r}: use start, stop, kill or log")
    return 0


async def node(cluster: Cluster, session: Session) -> int:
    """Plug a node's underlay cable in or out."""
    action, name = _words(session, "action", "node")
    await cluster.set_cable(name, is_up=action == "up")
    return 0


async def pod(cluster: Cluster, session: Session) -> int:
    """Add or delete a pod."""
    arguments = session.request.arguments
    if arguments.get("action") == "del":
        await cluster.remove_pod(str(arguments["name"]))
        return 0
    document = {k: v for k, v in arguments.items() if k != "action" and v is not None}
    wanted: TopologyPod = parse_pod(document)
    cluster.require_node(wanted.node)
    await session.say(str(await cluster.make_pod(wanted)))
    return 0


def _words(session: Session, *keys: str) -> list[str]:
    return [str(session.request.arguments.get(key, "")) for key in keys]


VERBS: Mapping[str, Verb] = {
    "show": show,
    "test": test,
    "exec": execute,
    "agent": agent,
    "node": node,
    "pod": pod,
}
