"""What the agent finds is published when it is new."""

import asyncio
from collections.abc import Sequence

from pycni.agent.checks import FIRST_S, PERIOD_S, Checks
from pycni.check.findings import Report
from pycni.errors import TryAgain
from tests.agent.told_cluster import ToldCluster
from tests.virtual_time import run

GOOD, BAD = Report(), Report(unchecked=("dns: no file",))


def published(
    looks: Sequence[Report | Exception | None], *, refusals: Sequence[Exception] = ()
) -> list[Report | None]:
    """Return what an agent published that saw these, one after another."""

    async def main() -> list[tuple[str, Report | None]]:
        cluster = ToldCluster(refusals=list(refusals))
        due = list(looks)

        async def look() -> Report | None:
            seen = due.pop(0)
            if isinstance(seen, Exception):
                raise seen
            return seen

        task = asyncio.create_task(Checks(cluster, node="node-0", look=look).run())
        await asyncio.sleep(FIRST_S + PERIOD_S * (len(looks) - 0.5))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert due == []
        return cluster.published

    found = run(main())
    assert {node for node, _ in found} == {"node-0"}
    return [report for _, report in found]


def test_what_is_found_is_published_whatever_was_before() -> None:
    assert published([GOOD, GOOD, BAD, BAD, GOOD]) == [GOOD, GOOD, BAD, BAD, GOOD]


def test_a_node_that_has_left_takes_its_report_back() -> None:
    assert published([GOOD, None, GOOD]) == [GOOD, None, GOOD]


def test_what_could_not_be_published_is_published_next_time() -> None:
    assert published([GOOD, GOOD], refusals=[TryAgain("away")]) == [GOOD]


def test_a_look_that_fails_leaves_what_was_published() -> None:
    assert published([GOOD, OSError(12, "no memory"), BAD]) == [GOOD, BAD]


def test_what_was_seen_before_the_node_left_is_not_published_after() -> None:
    async def main() -> None:
        cluster = ToldCluster()

        async def look() -> Report:
            await checks.retract()
            return BAD

        checks = Checks(cluster, node="node-0", look=look)
        await checks.once()

        assert cluster.published == [("node-0", None)]

    run(main())
