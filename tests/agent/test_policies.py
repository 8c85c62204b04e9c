"""NetworkPolicy objects that nobody enforces are told of, and once for each change."""

import asyncio
from collections.abc import Sequence

import pytest

from pycni.agent.policies import MOST, PERIOD_S, REASON, Policies
from pycni.errors import EventsLost, TryAgain
from tests.agent.told_cluster import Story, ToldCluster
from tests.virtual_time import run

NONE: frozenset[str] = frozenset()
ONE = frozenset({"default/one"})
TWO = frozenset({"default/one", "blue/two"})
LATER_S = 60.0


def told(
    stories: Sequence[Story], *, pause_s: float = LATER_S, refusals: Sequence[Exception] = ()
) -> tuple[list[str], list[str]]:
    """Return what `status` says after each story, and all Events."""
    said: list[str] = []

    async def main() -> ToldCluster:
        cluster = ToldCluster(refusals=list(refusals))
        troubles: dict[str, str] = {}
        agent = Policies(cluster, node="node-0", report=troubles.__setitem__)
        task = asyncio.create_task(agent.run())
        for story in stories:
            cluster.stories.put_nowait(story)
            await asyncio.sleep(pause_s)
            said.append(troubles.get("network policies", ""))
        await asyncio.sleep(LATER_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return cluster

    return said, run(main()).warned


def counts(warned: list[str]) -> list[str]:
    assert all(one.startswith(f"node-0 {REASON}: ") for one in warned)
    return [one.split(": ")[1].split(" ")[0] for one in warned]


def test_without_policies_nothing_is_said() -> None:
    assert told([NONE]) == ([""], [])


def test_policies_are_trouble_until_the_last_is_gone() -> None:
    said, warned = told([ONE, TWO, NONE])

    assert said[0].startswith("1 NetworkPolicy object is not enforced: pycni has no policies yet")
    assert said[1].startswith("2 NetworkPolicy objects are not enforced: ")
    assert said[2] == ""
    assert counts(warned) == ["1", "2"]


def test_changes_in_one_breath_are_one_event() -> None:
    assert counts(told([ONE, TWO], pause_s=0.1)[1]) == ["2"]


def test_a_listing_that_says_the_same_again_is_no_event() -> None:
    assert counts(told([ONE, EventsLost("x"), ONE])[1]) == ["1"]


def test_a_policy_that_comes_back_is_an_event_again() -> None:
    assert counts(told([ONE, NONE, ONE])[1]) == ["1", "1"]


def test_many_changes_are_a_few_events_and_the_last_is_told_in_the_end() -> None:
    changes = [frozenset(f"default/{n}" for n in range(count)) for count in range(1, 21)]
    first = [str(count) for count in range(1, MOST + 1)]

    assert counts(told(changes, pause_s=10)[1]) == first
    assert counts(told([*changes, changes[-1]], pause_s=PERIOD_S / 20)[1]) == [*first, "20"]


def test_who_may_not_look_says_so_and_looks_again() -> None:
    said, warned = told([TryAgain("the API server denies it"), ONE])

    assert said[0] == "the API server denies it"
    assert counts(warned) == ["1"]


def test_an_answer_that_cannot_be_read_is_not_the_last() -> None:
    said, warned = told([ONE, ValueError("no JSON"), TWO])

    assert said[1].endswith(
        "cannot make sense of what the source of network policies says: no JSON"
    )
    assert counts(warned) == ["1", "2"]


@pytest.mark.parametrize("times", [1, 3])
def test_an_event_that_is_refused_is_made_later(times: int) -> None:
    assert counts(told([ONE], refusals=[TryAgain("busy")] * times)[1]) == ["1"]
