"""DEL: everything goes, however often it is asked and whatever is known."""

from pathlib import Path

from pycni.model.network import SetLink
from tests.agent.cluster import NodeAgent
from tests.agent.verbs.stories import KEY, POD, leftovers, play


def test_a_del_takes_everything_back(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)

        await node.delete(POD)

        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_del_of_anything_is_success_again_and_again(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.delete(POD)
        await node.add(POD)
        for _ in range(3):
            await node.delete(POD)

        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_del_without_record_releases_by_what_the_request_says(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        node.endpoints.remove(KEY)

        await node.delete(POD)

        assert await leftovers(node) == []

    play(tmp_path, story)


def test_links_are_never_set_by_the_verbs_themselves(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        await node.delete(POD)

        assert [op for op in node.kernel.applied if isinstance(op, SetLink)] == []

    play(tmp_path, story)
