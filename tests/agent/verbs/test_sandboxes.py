"""A pod's interface passes from an old sandbox to the new one, and to no other pod."""

import json
from pathlib import Path

import pytest

from pycni.model.endpoints import WorkloadEndpoint
from tests.agent.cluster import NETWORK, NodeAgent
from tests.agent.verbs.stories import POD, VETH, Proxy, address_in, ask, held, play, reason


def test_a_late_del_leaves_the_recreated_pod_alone(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.cni("ADD", "old", pod=POD)
        node.kernel.delete_link(VETH)  # its namespace is gone, and the pair with it
        reply = await node.cni("ADD", "new", pod=POD)
        address = address_in(reply)

        await node.cni("DEL", "old", pod=POD)

        assert await node.routes() == [f"{address} dev {VETH} scope link"]
        assert await held(node) == [f"{address} {NETWORK}.new"]

    play(tmp_path, story)


@pytest.mark.parametrize("fd", [7, 8], ids=["in its namespace", "in another one"])
def test_a_new_sandbox_of_a_pod_takes_the_interface_of_the_old(tmp_path: Path, fd: int) -> None:
    async def story(node: NodeAgent) -> None:
        former = address_in(await node.cni("ADD", "old", pod=POD, fd=7))

        reply = await node.cni("ADD", "new", pod=POD, fd=fd)

        assert reply.status == 0, reply.output
        address = address_in(reply)
        assert await node.routes() == [f"{address} dev {VETH} scope link"]
        assert sorted(await held(node)) == sorted(
            [f"{former} {NETWORK}.old", f"{address} {NETWORK}.new"]
        )
        await node.cni("DEL", "old", pod=POD)
        assert await node.routes() == [f"{address} dev {VETH} scope link"]
        assert await held(node) == [f"{address} {NETWORK}.new"]

    play(tmp_path, story)


def test_a_sandbox_whose_del_ends_meanwhile_stays_gone(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.cni("ADD", "old", pod=POD)
        (old,) = node.endpoints.list()

        def read_just_before_the_end() -> tuple[list[WorkloadEndpoint], list[str]]:
            node.endpoints.remove(old.key)
            return [old], []

        node.engine.endpoints = Proxy(node.endpoints, readable=read_just_before_the_end)
        reply = await node.cni("ADD", "new", pod=POD)

        assert reply.status == 0, reply.output
        assert node.endpoints.get(old.key) is None

    play(tmp_path, story)


def test_a_further_interface_leaves_the_first_one_alone(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        first = json.loads((await ask(node, "ADD", fd=7)).output)
        second = {"name": "other", "isDefaultGateway": False}

        reply = await ask(node, "ADD", fd=7, ifname="net1", config=second)

        assert reply.status == 0, reply.output
        assert (await ask(node, "CHECK", fd=7, config={"prevResult": first})).status == 0
        # Not even under the name of the first.
        veth = first["interfaces"][0]["name"]
        third = {"name": "third", "isDefaultGateway": False}
        taken = await ask(node, "ADD", fd=7, ifname="net2", config=third, args=f"HOST_VETH={veth}")
        assert taken.status == 1
        assert (await ask(node, "CHECK", fd=7, config={"prevResult": first})).status == 0

    play(tmp_path, story)


def test_another_pod_never_takes_an_interface(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.cni("ADD", "one", args=f"HOST_VETH={VETH}")

        reply = await node.cni("ADD", "two", pod=POD)

        assert reply.status == 1
        assert VETH in reason(reply)[1]
        assert len(await held(node)) == 1

    play(tmp_path, story)
