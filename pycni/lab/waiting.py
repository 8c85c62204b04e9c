"""Wait for the cluster by asking it, within a bounded time that ends with what is missing."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

from pycni.agent.report import tunnels
from pycni.errors import TryAgain
from pycni.lab.cluster import Cluster
from pycni.lab.session import Session

POLL_S = 0.1
DIRECT_S = 60.0
# User-mode Linux has one CPU and slow processes.
UML_S = 120.0


def patience_s() -> float:
    """Return how long to wait for the cluster at most."""
    return UML_S if os.environ.get("PYCNI_IN_UML") else DIRECT_S


async def until_nothing_is_missing(
    missing: Callable[[], Awaitable[list[str]]],
    *,
    what: str,
    session: Session,
    within_s: float | None = None,
) -> None:
    """Ask until the answer is empty, showing it meanwhile."""
    within_s = within_s or patience_s()
    deadline = time.monotonic() + within_s
    while found := await missing():
        if time.monotonic() > deadline:
            raise TryAgain(
                f"{what} took longer than {within_s:g} s; still missing: {'; '.join(found)}"
            )
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        await session.progress(f"{what}: waiting for {found[0]}{more}")
        await asyncio.sleep(POLL_S)


async def for_agents(cluster: Cluster, *, session: Session) -> None:
    """Wait until every agent serves and has taken the address that pods must not get."""
    prediction = await cluster.prediction()

    async def missing() -> list[str]:
        found = []
        for name in cluster.node_names:
            if not cluster.agents.is_running(name):
                raise TryAgain(f"the agent of {name} ended by itself")
            expected = tunnels(prediction.inputs[name])
            try:
                status = await cluster.agents.ask(name, "status")
            except TryAgain:
                found.append(f"{name}'s agent")
                continue
            if status["tunnels"] != expected:
                found.append(f"{name}'s tunnel address")
        return found

    await until_nothing_is_missing(missing, what="agents", session=session)


async def for_convergence(cluster: Cluster, *, session: Session) -> None:
    """Wait until all sessions are up and every table is as predicted."""

    async def missing() -> list[str]:
        if found := await cluster.shortcomings():
            return found
        return [
            f"{comparison.node}: {len(comparison.missing)} of"
            f" {len(comparison.predicted)} predicted routes"
            if comparison.missing
            else f"{comparison.node}: the end of {len(comparison.surplus)} unexpected routes"
            for comparison in await cluster.compare_all()
            if not comparison.is_equal
        ]

    await until_nothing_is_missing(missing, what="convergence", session=session)
