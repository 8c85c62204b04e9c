"""Gateways for other plugins' pods: held while anybody uses them, and no longer."""

from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

from pycni.cni.gateways import gateways_in, lock_key
from pycni.cni.janitor import Janitor
from pycni.endpoints import FileEndpoints
from pycni.model.endpoints import EndpointState
from pycni.model.network import Address
from pycni.model.resources import Block
from tests.agent.cluster import NETWORK, NodeAgent
from tests.agent.verbs.lending import (
    GATEWAY,
    gc,
    lend,
    watched,
)
from tests.agent.verbs.stories import (
    CONTAINER,
    KEY,
    collect,
    held,
    leftovers,
    play,
    reason,
)


def test_gc_takes_a_gateway_back_only_when_no_pod_and_no_interface_has_it(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await lend(node, subnet="block")
        bridge = Address("eth0", ip_interface("192.168.39.194/26"))
        node.kernel.add_address(bridge)

        assert (await gc(node, CONTAINER)).status == 0
        assert len(await held(node)) == 2
        assert (await gc(node)).status == 0
        assert await held(node) == [f"192.168.39.194 {GATEWAY}"]
        node.kernel.delete_address(bridge)
        assert (await node.cni("GC", "", config={"name": "other"})).status == 0
        assert await held(node) == [f"192.168.39.194 {GATEWAY}"]
        assert (await gc(node)).status == 0

        assert await leftovers(node) == []

    play(tmp_path, story)


def test_gc_of_our_own_pods_spares_gateways_in_use(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await lend(node, subnet="block")

        assert (await collect(node, CONTAINER)).status == 0

        assert len(await held(node)) == 2

    play(tmp_path, story)


def test_an_unfinished_add_may_use_the_gateway(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await lend(node, subnet="block")
        record = node.endpoints.get(KEY)
        assert record is not None
        node.endpoints.put(replace(record, state=EndpointState.INTENT, addresses=()))

        assert (await gc(node, CONTAINER)).status == 0

        assert f"192.168.39.194 {GATEWAY}" in await held(node)

    play(tmp_path, story)


def test_a_damaged_record_may_use_the_gateway(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await lend(node, subnet="block")
        (node.run_dir / "endpoints" / FileEndpoints.file_name(KEY)).write_text("{")

        await gc(node, CONTAINER)

        assert f"192.168.39.194 {GATEWAY}" in await held(node)

    play(tmp_path, story)


def test_a_gateway_that_cannot_be_released_is_told(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await lend(node, subnet="block")
        await lend(node, "DEL")
        async with node.endpoints.lock(lock_key(NETWORK), timeout_s=1):
            code, text = reason(await gc(node))

        assert code == 11
        assert f"192.168.39.194, the gateway of {NETWORK}: another request" in text

    play(tmp_path, story)


def test_the_janitor_takes_an_idle_gateway_back_at_the_second_look(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await lend(node, subnet="block")
        await lend(node, "DEL")

        await janitor.once()
        assert await held(node) == [f"192.168.39.194 {GATEWAY}"]
        await janitor.once()

        assert await leftovers(node) == []

    watched(tmp_path, story)


def test_the_janitor_spares_a_gateway_that_is_used_again(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await lend(node, subnet="block")
        await lend(node, "DEL")
        await janitor.once()
        blocks = [stored.value for stored in (await node.datastore.list(Block)).items]
        (idle,) = gateways_in(blocks, node=node.name)  # what the look before has seen
        await lend(node, subnet="block")

        assert not await janitor._take_back(idle)  # noqa: SLF001 - between look and lock.

    watched(tmp_path, story)
