"""Empty blocks that the janitor gives up: what is spare, and what no pool means any more."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

from pycni.cni.janitor import Janitor
from pycni.ipam.requests import AssignRequest, DatastoreView
from pycni.model.resources import Block, BlockAffinity, IPAMConfig, IPPool, Node
from tests.agent.cluster import POOL, NodeAgent
from tests.agent.verbs.stories import POD, held, play

Story = Callable[[NodeAgent, Janitor], Awaitable[None]]


def watched(directory: Path, story: Story, **options: tuple[IPPool, ...]) -> None:
    async def main(node: NodeAgent) -> None:
        await story(node, Janitor(node.engine, view=DatastoreView(node.datastore)))

    play(directory, main, **options)


def test_empty_blocks_are_given_up_but_for_one_of_each_pool(tmp_path: Path) -> None:
    pools = (
        IPPool("a", ip_network("10.0.0.0/28"), block_size=30),
        IPPool("b", ip_network("10.1.0.0/28"), block_size=30),
    )

    async def blocks(node: NodeAgent) -> list[str]:
        return [str(stored.value.cidr) for stored in (await node.datastore.list(Block)).items]

    async def story(node: NodeAgent, janitor: Janitor) -> None:
        for number in range(9):
            await node.allocator.assign(AssignRequest(f"h{number}", ipv4_pools=("a",)))
        await node.allocator.assign(AssignRequest("other", ipv4_pools=("b",)))
        await node.allocator.release_by_handle("other")
        for number in range(9):
            if number != 4:  # in the second block
                await node.allocator.release_by_handle(f"h{number}")
        assert len(await blocks(node)) == 4

        await janitor.once()
        await janitor.once()

        # Of a's three the one in use, of b's the only one.
        left = await blocks(node)
        assert len(left) == 2
        assert sum(one.startswith("10.1.") for one in left) == 1
        assert len(await held(node)) == 1

    watched(tmp_path, story, pools=pools)


def test_an_empty_block_of_a_pool_that_no_longer_means_the_node_is_given_up(tmp_path: Path) -> None:
    pool = IPPool("a", ip_network("10.0.0.0/28"), block_size=30, node_selector="rack == 'a'")

    async def story(node: NodeAgent, janitor: Janitor) -> None:
        stored = await node.datastore.create(Node("node-0", labels=(("rack", "a"),)))
        await node.add(POD)
        moved = replace(stored.value, labels=(("rack", "b"),))
        await node.datastore.update(moved, if_revision=stored.revision)
        for _ in range(3):
            await janitor.once()
        assert len(await held(node)) == 1  # what is in use stays

        await node.delete(POD)
        for _ in range(2):
            await janitor.once()

        assert not (await node.datastore.list(Block)).items
        assert not (await node.datastore.list(BlockAffinity)).items

    watched(tmp_path, story, pools=(pool,))


def test_an_empty_block_of_a_pool_that_is_no_more_is_given_up(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await node.add(POD)
        await node.delete(POD)
        stored = await node.datastore.get(IPPool, POOL.name)
        assert stored is not None
        await node.datastore.delete(IPPool, POOL.name, if_revision=stored.revision)

        await janitor.once()
        assert len((await node.datastore.list(Block)).items) == 1
        await janitor.once()

        assert not (await node.datastore.list(Block)).items

    watched(tmp_path, story)


def test_a_spare_block_is_given_up_once_its_addresses_have_rested(tmp_path: Path) -> None:
    pool = IPPool("a", ip_network("10.0.0.0/28"), block_size=30)

    async def story(node: NodeAgent, janitor: Janitor) -> None:
        config = await node.datastore.create(IPAMConfig(cooldown_s=600))
        for number in range(8):
            await node.allocator.assign(AssignRequest(f"h{number}"))
        for number in range(8):
            await node.allocator.release_by_handle(f"h{number}", was_used=True)
        for _ in range(2):
            await janitor.once()
        assert len((await node.datastore.list(Block)).items) == 2  # somebody may still mean a pod

        shorter = replace(config.value, cooldown_s=0)
        await node.datastore.update(shorter, if_revision=config.revision)
        for _ in range(2):
            await janitor.once()

        assert len((await node.datastore.list(Block)).items) == 1

    watched(tmp_path, story, pools=(pool,))
