"""The verbs of a lab that is up, performed in the supervisor."""

import contextlib
import signal
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from pycni.ctl.output import documents_text
from pycni.ctl.usage import WrongUsage
from pycni.errors import PycniError
from pycni.lab import bringup, checks, commands, documents, interactive, nodetools, picture
from pycni.lab.cluster import Cluster
from pycni.lab.session import Session
from pycni.topology.model import TopologyPod, parse_pod

Statuses = dict[str, dict[str, Any]]
Verb = Callable[[Cluster, Session], Awaitable[int]]


async def show(cluster: Cluster, session: Session) -> int:
    """Draw the cluster, then every node's table, agent and sessions."""
    statuses: Statuses = {}
    for node in cluster.node_names:
        with contextlib.suppress(PycniError):
            statuses[node] = await cluster.agents.ask(node, "status")
    is_table = _output(session) == "table"
    are_equal = await (_draw if is_table else _show_documents)(cluster, session, statuses)
    is_steady = len(statuses) == len(cluster.node_names) and all(
        status["converged"] and all(p["state"] == "up" for p in status["peers"])
        for status in statuses.values()
    )
    return 0 if are_equal and is_steady else 1


async def _draw(cluster: Cluster, session: Session, statuses: Statuses) -> bool:
    facts = {
        node: picture.NodeFacts(status["tunnels"], tuple(status["blocks"]))
        for node, status in statuses.items()
    }
    await session.say(*picture.draw(cluster.topology, facts=facts, addresses=cluster.addresses))
    are_equal = await bringup.show_tables(cluster, session=session)
    for node in cluster.node_names:
        await session.say("")
        if node not in statuses:
            await session.say(f"{node}: no agent answers: {cluster.agents.way_on(node)}")
            continue
        await session.say(*picture.status_lines(node, statuses[node]))
    await bringup.show_degraded(cluster, session=session)
    return are_equal


async def _show_documents(cluster: Cluster, session: Session, statuses: Statuses) -> bool:
    comparisons = await cluster.compare_all()
    document = documents.show_document(
        cluster.topology,
        comparisons=comparisons,
        statuses=statuses,
        addresses=cluster.addresses,
    )
    await _say_document(session, document)
    return all(comparison.is_equal for comparison in comparisons)


async def _say_document(session: Session, document: dict[str, Any]) -> None:
    text = documents_text([document], form=_output(session))
    await session.say(text.removesuffix("\n"))


def _output(session: Session) -> str:
    return str(session.request.arguments.get("output", "table"))


async def test(cluster: Cluster, session: Session) -> int:
    """Make all checks."""
    run_all = partial(checks.run_all, cluster)
    show_more = partial(bringup.show_degraded, cluster)
    width = checks.title_width(cluster)
    return await tell(session, run_all, width=width, show_more=show_more)


async def _nothing_more(**_: object) -> None:
    pass


async def tell(
    session: Session,
    run_all: Callable[..., Awaitable[bool]],
    *,
    width: int,
    show_more: Callable[..., Awaitable[None]] = _nothing_more,
) -> int:
    """Make checks and print their rows and the sum of them; return the exit status."""
    rows: list[checks.Row] = []
    is_table = _output(session) == "table"

    async def print_row(row: checks.Row) -> None:
        rows.append(row)
        if is_table:
            await session.say(f"{row.verdict.value}  {row.what:{width}}  {row.seen}".rstrip())

    is_right = await run_all(show=print_row)
    if not is_table:
        await _say_document(session, documents.test_document(rows, is_right=is_right))
        return 0 if is_right else 1
    await show_more(session=session)
    numbers = ", ".join(f"{sum(r.verdict is v for r in rows)} {v.value}" for v in checks.Verdict)
    await session.say("", f"{'all is well' if is_right else 'NOT all is well'}: {numbers}")
    return 0 if is_right else 1


async def execute(cluster: Cluster, session: Session) -> int:
    """Run a program, or a shell, in a node, pod, host or the router."""
    place = cluster.find_place(str(session.request.arguments["place"]))
    words = [str(word) for word in session.request.arguments["command"]]
    env: dict[str, str] = {}
    if not words:
        words, env = interactive.shell_command(str(session.request.arguments["place"]))
    if place in cluster.node_names:
        env |= nodetools.environment(place, layout=cluster.layout)
    return await interactive.run(session, words=commands.inside(place, words), env=env)


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
    await session.say(*map(str, await cluster.make_pod(wanted)))
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
