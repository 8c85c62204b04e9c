"""A Node that was deleted and made anew under its name doesn't inherit what its predecessor had."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from pycni.cni.identity import NodeIdentity
from pycni.cni.janitor import Janitor
from pycni.ipam.requests import AssignRequest, DatastoreView
from pycni.model.resources import Block, IPPool, Node
from tests.agent.cluster import NETWORK, NodeAgent
from tests.agent.verbs.stories import POD, held, play

POOL = IPPool("a", ip_network("10.0.0.0/28"), block_size=30)


async def earlier_pods(node: NodeAgent) -> None:
    """Fill two blocks as the predecessor's pods did."""
    for number in range(7):
        said = {"network": NETWORK, "container": f"c{number}", "interface": "eth0"}
        attributes = tuple({**said, "node": "node-0"}.items())
        await node.allocator.assign(AssignRequest(f"{NETWORK}.c{number}", attributes=attributes))


async def look(node: NodeAgent, uid: str, identity: NodeIdentity) -> tuple[int, int]:
    """Have the janitor look once at a Node of this identity; return addresses and blocks left."""
    stored = await node.datastore.get(Node, "node-0")
    if stored is None:
        await node.datastore.create(Node("node-0", uid=uid))
    else:
        await node.datastore.update(replace(stored.value, uid=uid), if_revision=stored.revision)
    await Janitor(node.engine, view=DatastoreView(node.datastore), identity=identity).once()
    blocks = [one.value for one in (await node.datastore.list(Block)).items]
    return len(await held(node)), len(blocks)


def played(directory: Path, story: Callable[[NodeAgent, NodeIdentity], Awaitable[None]]) -> None:
    async def main(node: NodeAgent) -> None:
        await story(node, NodeIdentity(directory))

    play(directory, main, pools=(POOL,))


def test_a_new_machine_gives_back_at_once_what_the_earlier_node_had(tmp_path: Path) -> None:
    async def story(node: NodeAgent, identity: NodeIdentity) -> None:
        await earlier_pods(node)

        assert await look(node, "two", identity) == (0, 1)

    played(tmp_path, story)


def test_a_machine_whose_node_was_made_anew_keeps_its_pods_only(tmp_path: Path) -> None:
    async def story(node: NodeAgent, identity: NodeIdentity) -> None:
        await node.add(POD)
        assert await look(node, "one", identity) == (1, 1)
        await earlier_pods(node)

        assert await look(node, "two", identity) == (1, 1)

    played(tmp_path, story)


@pytest.mark.parametrize("uid", ["one", ""])
def test_under_the_same_identity_a_second_look_is_needed(tmp_path: Path, uid: str) -> None:
    async def story(node: NodeAgent, identity: NodeIdentity) -> None:
        await look(node, uid, identity)
        await earlier_pods(node)

        assert await look(node, uid, identity) == (7, 2)

    played(tmp_path, story)


def test_a_machine_with_pods_that_knows_no_identity_yet_is_careful(tmp_path: Path) -> None:
    """As after an upgrade."""

    async def story(node: NodeAgent, identity: NodeIdentity) -> None:
        await node.add(POD)
        await earlier_pods(node)

        assert await look(node, "one", identity) == (8, 2)

    played(tmp_path, story)


def test_an_identity_is_another_once(tmp_path: Path) -> None:
    identity = NodeIdentity(tmp_path)

    assert identity.is_another("one", has_pods=False)
    assert not identity.is_another("one", has_pods=False)
    assert not identity.is_another("", has_pods=False)
    assert identity.is_another("two", has_pods=True)
    (tmp_path / "node-uid").write_bytes(b"\xff")
    assert not identity.is_another("two", has_pods=True)


def test_what_can_not_be_noted_is_told_once_it_can(tmp_path: Path) -> None:
    state_dir = tmp_path / "full"
    identity = NodeIdentity(state_dir)

    assert not identity.is_another("one", has_pods=False)
    state_dir.mkdir()
    assert identity.is_another("one", has_pods=False)
    assert not identity.is_another("one", has_pods=False)
