"""A living node's janitor takes back what others have left, in time and with good reason."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pycni.cni.janitor import PERIOD_S, WHOLE_EVERY, Janitor
from pycni.cni.view import WatchedView
from pycni.datastore.faulty import Call, do_nothing
from pycni.errors import TryAgain
from pycni.ipam.gone import GONE_AFTER_S
from pycni.ipam.requests import DatastoreView
from pycni.model.resources import Block, BlockAffinity, Node
from tests.agent.cluster import POOL, Cluster
from tests.agent.verbs.stories import faulty
from tests.unit.spoilt_blocks import points_nowhere
from tests.virtual_time import run

LOOK_S = PERIOD_S * WHOLE_EVERY
MARGIN_S = PERIOD_S / 2


async def owners(made: Cluster) -> set[str]:
    """Return who has blocks."""
    datastore = made.nodes["node-0"].datastore
    return {stored.value.node for stored in (await datastore.list(BlockAffinity)).items}


@contextlib.asynccontextmanager
async def janitor_of(made: Cluster, name: str, events: list[str]) -> AsyncIterator[None]:
    """Let a node's janitor look around."""
    node = made.nodes[name]
    janitor = Janitor(node.engine, view=DatastoreView(node.datastore), observe=events.append)
    task = asyncio.create_task(janitor.run())
    try:
        yield
    finally:
        task.cancel()


def play(
    directory: Path, story: Callable[[Cluster, list[str]], Awaitable[None]], *, agents: bool = True
) -> None:
    """Play a story of node-0, which looks around, and node-1, which has a pod."""

    async def main() -> None:
        made, events = Cluster(directory), list[str]()
        await made.create(POOL)
        for number, address in enumerate(("10.0.0.1/24", "10.0.0.2/24")):
            node = made.node(f"node-{number}", address)
            if agents or number == 0:
                await node.register()
        await made.nodes["node-1"].add("default/web")
        async with janitor_of(made, "node-0", events):
            await asyncio.sleep(MARGIN_S)
            await story(made, events)

    run(main())


def test_block_of_a_gone_node_that_contradicts_itself_keeps_its_affinity(tmp_path: Path) -> None:
    async def story(made: Cluster, events: list[str]) -> None:
        datastore = made.nodes["node-0"].datastore
        listed = (await datastore.list(Block)).items
        (theirs,) = [stored for stored in listed if stored.value.affinity == "node-1"]
        await datastore.update(points_nowhere(theirs.value), if_revision=theirs.revision)
        await made.remove(Node, "node-1")

        await asyncio.sleep(2 * LOOK_S + GONE_AFTER_S)

        assert await owners(made) == {"node-0", "node-1"}
        assert events == []

    play(tmp_path, story)


def test_node_without_object_is_taken_back_at_the_second_look_at_everything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(made: Cluster, events: list[str]) -> None:
        await made.remove(Node, "node-1")
        await asyncio.sleep(LOOK_S)  # the first look that misses it
        await asyncio.sleep(GONE_AFTER_S - PERIOD_S)
        assert await owners(made) == {"node-0", "node-1"}

        with caplog.at_level(logging.WARNING):
            await asyncio.sleep(PERIOD_S)

        assert await owners(made) == {"node-0"}
        assert events == ["collected"]
        (told,) = [vars(record)["what"] for record in caplog.records]
        assert told == "block 192.168.84.128/26 of node node-1, which is gone"

    play(tmp_path, story)


def test_node_that_is_there_stays_for_ever(tmp_path: Path) -> None:
    async def story(made: Cluster, events: list[str]) -> None:
        await asyncio.sleep(5 * LOOK_S)

        assert await owners(made) == {"node-0", "node-1"}
        assert events == []

    play(tmp_path, story)


def test_node_that_comes_back_between_two_looks_stays(tmp_path: Path) -> None:
    async def story(made: Cluster, events: list[str]) -> None:
        for _ in range(4):
            await made.remove(Node, "node-1")
            await asyncio.sleep(LOOK_S)
            await made.nodes["node-1"].register()
            await asyncio.sleep(2 * PERIOD_S)

        assert await owners(made) == {"node-0", "node-1"}
        assert events == []

    play(tmp_path, story)


def test_host_on_which_no_agent_ever_ran_keeps_its_pods(tmp_path: Path) -> None:
    async def story(made: Cluster, events: list[str]) -> None:
        await asyncio.sleep(5 * LOOK_S)

        assert await owners(made) == {"node-0", "node-1"}
        assert events == []

    play(tmp_path, story, agents=False)


def test_host_that_serves_pods_without_object_keeps_them(tmp_path: Path) -> None:
    async def story(made: Cluster, events: list[str]) -> None:
        await made.remove(Node, "node-1")
        await asyncio.sleep(LOOK_S)
        await made.nodes["node-1"].add("default/later")

        await asyncio.sleep(5 * LOOK_S)

        assert await owners(made) == {"node-0", "node-1"}
        assert events == []

    play(tmp_path, story)


def test_janitor_of_a_node_that_has_no_object_itself_takes_nothing(tmp_path: Path) -> None:
    async def story(made: Cluster, events: list[str]) -> None:
        await made.remove(Node, "node-1")
        await made.remove(Node, "node-0")

        await asyncio.sleep(5 * LOOK_S)

        assert await owners(made) == {"node-0", "node-1"}
        assert events == []

    play(tmp_path, story)


def test_node_that_returns_later_begins_anew(tmp_path: Path) -> None:
    async def story(made: Cluster, events: list[str]) -> None:
        await made.remove(Node, "node-1")
        await asyncio.sleep(3 * LOOK_S)
        assert await owners(made) == {"node-0"}

        await made.nodes["node-1"].register()
        await made.nodes["node-1"].delete("default/web")  # of which it still has the record
        address = await made.nodes["node-1"].add("default/again")

        await asyncio.sleep(3 * LOOK_S)
        assert await owners(made) == {"node-0", "node-1"}
        assert address == "192.168.84.129"
        assert events == ["collected"]

    play(tmp_path, story)


def test_two_janitors_take_back_once(tmp_path: Path) -> None:
    async def story(made: Cluster, events: list[str]) -> None:
        await made.node("node-2", "10.0.0.3/24").register()
        async with janitor_of(made, "node-2", events):
            await made.remove(Node, "node-1")
            await asyncio.sleep(3 * LOOK_S)

        assert await owners(made) == {"node-0", "node-2"}
        assert events == ["collected"]

    play(tmp_path, story)


def test_node_that_is_back_when_its_block_is_looked_at_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(made: Cluster, events: list[str]) -> None:
        store = faulty(made.nodes["node-0"])

        async def come_back(call: Call) -> None:
            if call == Call("get", Node, "node-1"):
                await made.create(Node("node-1"))

        await made.remove(Node, "node-1")
        await asyncio.sleep(LOOK_S)
        store.before = come_back
        with caplog.at_level(logging.INFO):
            await asyncio.sleep(LOOK_S)

        assert await owners(made) == {"node-0", "node-1"}
        assert events == []
        (told,) = [vars(record)["reason"] for record in caplog.records]
        assert told == "node node-1 is back"

    play(tmp_path, story)


def test_where_one_node_cannot_be_cleaned_up_the_others_are_and_that_one_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(made: Cluster, events: list[str]) -> None:
        for number in (2, 3):
            await made.node(f"node-{number}", f"10.0.0.{number + 1}/24").register()
            await made.nodes[f"node-{number}"].add(f"default/web-{number}")
        store = faulty(made.nodes["node-0"])

        async def refuse(call: Call) -> None:
            if call == Call("get", Node, "node-2"):
                raise TryAgain("the disk is full")

        store.before = refuse
        for number in (1, 2, 3):
            await made.remove(Node, f"node-{number}")
        with caplog.at_level(logging.INFO):
            await asyncio.sleep(2 * LOOK_S + PERIOD_S)
        # Neither the one before it nor the one behind it waits.
        assert await owners(made) == {"node-0", "node-2"}
        assert events == ["collected"] * 2
        failures = [vars(one) for one in caplog.records if one.levelno == logging.INFO]
        assert {(one["what"], one["reason"]) for one in failures} == {
            ("what node node-2 has left", "the disk is full")
        }

        store.before = do_nothing
        await asyncio.sleep(LOOK_S)
        assert await owners(made) == {"node-0"}
        assert events == ["collected"] * 3

    play(tmp_path, story)


def test_looks_in_between_do_not_list_all_nodes(tmp_path: Path) -> None:
    listed = []

    async def note(call: Call) -> None:
        if (call.verb, call.kind) == ("list", Node):
            listed.append(asyncio.get_running_loop().time())

    async def main() -> None:
        made = Cluster(tmp_path)
        node = made.node("node-0", "10.0.0.1/24")
        await node.register()
        view = WatchedView(node.datastore)
        task = asyncio.create_task(view.run())
        await asyncio.sleep(MARGIN_S)
        faulty(node).before = note

        janitor = Janitor(node.engine, view=view)
        await janitor.once(is_whole=False)
        assert listed == []
        await janitor.once(is_whole=True)
        assert len(listed) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main())
