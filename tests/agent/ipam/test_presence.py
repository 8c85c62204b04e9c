"""A node shows that it is there in each block in which it has something, and in no other."""

from dataclasses import replace

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.ipam.estates import show_presence
from pycni.model.resources import Block, cidr_name
from pycni.ports import Datastore
from tests.agent.ipam.allocators import TUNNELLED, leave, no_sleep, node, take
from tests.agent.ipam.conftest import Play


def test_presence_is_shown_in_each_block_that_concerns_the_node(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await leave(store)
        await take(node(store, "node-2"), "stranger")
        before = {one.value.cidr: one.revision for one in (await store.list(Block)).items}

        await show_presence(store, node="node-0", sleep=no_sleep)

        after = {one.value.cidr: one.revision for one in (await store.list(Block)).items}
        changed = [str(cidr) for cidr in before if before[cidr] != after[cidr]]
        assert sorted(changed) == ["10.0.0.12/30", "10.0.0.8/30"]

    play([TUNNELLED], story)


@pytest.mark.parametrize("fate", ["changes", "goes"])
def test_presence_is_shown_beside_other_writers(play: Play, fate: str) -> None:
    async def story(store: Datastore) -> None:
        await leave(store)
        writes = 0

        async def be_faster(call: Call) -> None:
            nonlocal writes
            if not call.is_write or writes:
                return
            writes += 1
            stored = next(
                one
                for one in (await store.list(Block)).items
                if cidr_name(one.value.cidr) == call.name
            )
            if fate == "goes":
                await store.delete(Block, call.name, if_revision=stored.revision)
            else:
                await store.update(
                    replace(stored.value, sequence_number=stored.value.sequence_number + 9),
                    if_revision=stored.revision,
                )

        await show_presence(FaultyDatastore(store, before=be_faster), node="node-0", sleep=no_sleep)

        assert len((await store.list(Block)).items) == (1 if fate == "goes" else 2)

    play([TUNNELLED], story)
