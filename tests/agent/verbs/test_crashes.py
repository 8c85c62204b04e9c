"""Whatever a crash or a reboot left half done, the next verb finishes or undoes."""

from pathlib import Path

import pytest

from pycni.ipam.block import release_by_handle
from pycni.model.resources import Block
from tests.agent.cluster import NETWORK, NodeAgent
from tests.agent.verbs.crashes import crash
from tests.agent.verbs.stories import (
    CONTAINER,
    KEY,
    POD,
    VETH,
    address_in,
    ask,
    collect,
    faulty,
    held,
    leftovers,
    play,
)


@pytest.mark.parametrize("step", ["intent", "assigned", "plugged", "recorded"])
@pytest.mark.parametrize("then", ["ADD", "DEL", "GC"])
def test_an_add_that_crashed_is_cleaned_up_by_whatever_comes_next(
    tmp_path: Path, step: str, then: str
) -> None:
    async def story(node: NodeAgent) -> None:
        await crash(node, "ADD", step)

        if then == "ADD":
            address = await node.add(POD, fd=7)
            assert await held(node) == [f"{address} {NETWORK}.{CONTAINER}"]
            assert await node.routes() == [f"{address} dev {VETH} scope link"]
        elif then == "DEL":
            await node.delete(POD)
        else:
            reply = await collect(node)
            assert reply.status == 0, reply.output

        if then != "ADD":
            assert await leftovers(node) == []

    play(tmp_path, story)


@pytest.mark.parametrize("step", ["unfinished", "unplugged", "released"])
@pytest.mark.parametrize("then", ["ADD", "DEL", "GC"])
def test_a_del_that_crashed_is_finished_by_whatever_comes_next(
    tmp_path: Path, step: str, then: str
) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD, fd=7)
        await crash(node, "DEL", step)

        if then == "ADD":
            await node.add(POD, fd=7)
            assert len(await held(node)) == 1
        elif then == "DEL":
            await node.delete(POD)
        else:
            reply = await collect(node)
            assert reply.status == 0

        if then != "ADD":
            assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_repeated_del_drops_what_a_crash_left_of_the_handle(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        datastore = faulty(node)
        (stored,) = (await datastore.inner.list(Block)).items
        record = node.endpoints.get(KEY)
        assert record is not None
        freed = release_by_handle(stored.value, record.handle_id)
        await datastore.inner.update(freed.block, if_revision=stored.revision)

        await node.delete(POD)

        assert await leftovers(node) == []

    play(tmp_path, story)


def test_an_add_whose_record_a_reboot_took_gives_the_old_address_back(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await ask(node, "ADD")
        node.endpoints.remove(KEY)  # /run is empty after a reboot, and the kernel new
        node.kernel.delete_link(VETH)

        reply = await ask(node, "ADD")

        address = address_in(reply)
        assert await held(node) == [f"{address} {NETWORK}.{CONTAINER}"]
        await ask(node, "DEL")
        assert await leftovers(node) == []

    play(tmp_path, story)
