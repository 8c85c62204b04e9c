"""A stored block that contradicts itself concerns the requests that need it, and nobody else."""

import asyncio
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pycni.cni.janitor import PERIOD_S, Janitor
from pycni.ipam import block as arithmetic
from pycni.ipam.requests import DatastoreView
from pycni.model.resources import AffinityState, Block, BlockAffinity, IPPool
from tests.agent.cluster import NodeAgent, cluster
from tests.agent.verbs.stories import POD, VETH, ask, collect, play, reason
from tests.agent.verbs.test_janitor import lost
from tests.unit.spoilt_blocks import SPOILS, Spoil, free_and_given, points_nowhere, too_long
from tests.virtual_time import run

if TYPE_CHECKING:
    from pycni.model.network import IPNetwork

SMALL = IPPool("pool", ip_network("10.1.0.0/30"), block_size=31)
ELSEWHERE = ip_network("192.168.7.0/30")
each_way = pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)


def block_of(owner: str, cidr: "IPNetwork" = ELSEWHERE, *, holder: str = "node-8") -> Block:
    """Return a full block, all of it held for a pod of a node."""
    said = {"network": "k8s-pod-network", "container": "c", "interface": "eth0", "node": holder}
    made = arithmetic.new_block(cidr, affinity=owner, sequence_number=1)
    full, _ = arithmetic.auto_assign(
        made, count=cidr.num_addresses, handle_id="theirs", attributes=said.items()
    )
    return full


async def spoil_own(node: NodeAgent, spoil: Spoil) -> None:
    (stored,) = (await node.datastore.list(Block)).items
    await node.datastore.update(spoil(stored.value), if_revision=stored.revision)


# --- the janitor --------------------------------------------------------------------------------


@each_way
@pytest.mark.parametrize("owner", ["node-0", "node-9"])
def test_the_janitor_goes_on_beside_it(tmp_path: Path, spoil: Spoil, owner: str) -> None:
    async def story(node: NodeAgent) -> None:
        janitor = Janitor(node.engine, view=DatastoreView(node.datastore))
        await node.allocator.assign(lost())
        spoilt = spoil(block_of(owner, holder="node-0"))
        before = await node.datastore.create(spoilt)
        if owner == "node-9":
            await node.datastore.create(BlockAffinity(owner, ELSEWHERE, AffinityState.CONFIRMED))

        for is_whole in (True, False, True, False):
            await janitor.once(is_whole=is_whole)

        assert [line for line in await sound_held(node) if "lost" in line] == []
        after = {stored.value.cidr: stored for stored in (await node.datastore.list(Block)).items}
        assert after[ELSEWHERE] == before

    play(tmp_path, story)


async def sound_held(node: NodeAgent) -> list[str]:
    """Return what is held in the blocks that don't contradict themselves."""
    return [
        f"{one.address} {one.attribute.handle_id}"
        for stored in (await node.datastore.list(Block)).items
        if stored.value.cidr != ELSEWHERE
        for one in arithmetic.given(stored.value)
    ]


@each_way
def test_the_janitor_lives_on_when_a_block_of_its_own_is_spoilt(
    tmp_path: Path, spoil: Spoil, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        await spoil_own(node, spoil)
        janitor = Janitor(node.engine, view=DatastoreView(node.datastore))

        task = asyncio.create_task(janitor.run())
        await asyncio.sleep(20 * PERIOD_S)

        assert not task.done()
        told = [one for one in caplog.records if one.message == "a block is left alone"]
        assert len(told) == 1
        assert "is corrupt" in vars(told[0])["reason"]
        task.cancel()

    play(tmp_path, story)


# --- requests -----------------------------------------------------------------------------------


@each_way
def test_gc_of_a_network_goes_on_beside_it(tmp_path: Path, spoil: Spoil) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        await node.datastore.create(spoil(block_of("node-9")))

        reply = await collect(node)

        assert reply.status == 0, reply.output
        assert await sound_held(node) == []

    play(tmp_path, story)


@each_way
def test_an_add_that_finds_nothing_free_beside_it_says_so(tmp_path: Path, spoil: Spoil) -> None:
    async def story(node: NodeAgent) -> None:
        for container in "ab":
            assert (await node.cni("ADD", container)).status == 0
        (own,) = [stored.value.cidr for stored in (await node.datastore.list(Block)).items]
        other = next(cidr for cidr in SMALL.cidr.subnets(new_prefix=31) if cidr != own)
        await node.datastore.create(spoil(block_of("node-9", other)))

        code, why = reason(await node.cni("ADD", "c"))

        assert code == 11
        assert "nothing is free in pool (10.1.0.0/30)" in why

    play(tmp_path, story, pools=(SMALL,))


def test_nothing_is_borrowed_of_it(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        for container in "ab":
            assert (await node.cni("ADD", container)).status == 0
        (own,) = [stored.value.cidr for stored in (await node.datastore.list(Block)).items]
        other = next(cidr for cidr in SMALL.cidr.subnets(new_prefix=31) if cidr != own)
        half = arithmetic.new_block(other, affinity="node-9", sequence_number=1)
        half, _ = arithmetic.auto_assign(half, count=1, handle_id="theirs")
        await node.datastore.create(free_and_given(half))

        assert reason(await node.cni("ADD", "c"))[0] == 11

    play(tmp_path, story, pools=(SMALL,))


@each_way
def test_requests_that_need_it_name_it(tmp_path: Path, spoil: Spoil) -> None:
    async def story(node: NodeAgent) -> None:
        added = await node.add(POD)
        (own,) = [stored.value.cidr for stored in (await node.datastore.list(Block)).items]
        await spoil_own(node, spoil)
        named = f"block {own} is corrupt: "

        node.kernel.delete_link(VETH)  # or a repeated ADD would not look
        for reply in (await ask(node, "ADD"), await node.cni("ADD", "other")):
            assert named in reason(reply)[1]

        assert (await ask(node, "DEL")).status == 0
        owed = [one.interface.ip for debt in node.endpoints.pending() for one in debt.addresses]
        assert list(map(str, owed)) == [added]
        assert named in reason(await collect(node))[1]

    play(tmp_path, story)


# --- the agent ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", [points_nowhere, too_long])
def test_the_agent_lives_on_beside_it(tmp_path: Path, spoil: Spoil) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as made:
            node = made.nodes["node-0"]
            await node.datastore.create(spoil(block_of("node-9")))
            await made.settle()

            node.check_alive()

    run(main())
