"""A node's object is there as long as its agent runs, whatever else is amiss."""

import asyncio
import contextlib
from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_interface

import pytest

from pycni.agent.registration import Registration
from pycni.datastore.memory import MemoryDatastore
from pycni.errors import DatastoreUnusable, Exhausted, TryAgain
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.model.resources import IPPool, Node, TunnelMode
from pycni.ports import Datastore
from tests.agent.ipam.faults import Failing

POOL = IPPool("small", IPv4Network("10.0.0.0/31"), block_size=31, ipip_mode=TunnelMode.ALWAYS)
ADDRESS = ip_interface("10.10.7.20/20")


def registration(store: Datastore) -> Registration:
    return Registration(
        store,
        Allocator(store, node="node-0"),
        node="node-0",
        addresses=(ADDRESS,),
        report=lambda _what, _why: None,
    )


async def fill(store: Datastore) -> None:
    for number in range(2):
        await Allocator(store, node="node-1").assign(AssignRequest(f"h{number}"))


async def written(store: Datastore) -> Node | None:
    stored = await store.get(Node, "node-0")
    return None if stored is None else stored.value


def test_node_without_an_address_for_its_tunnel_has_its_object_nevertheless() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        await store.create(POOL)
        await fill(store)

        with pytest.raises(Exhausted, match="nothing is free in small"):
            await registration(store).once()

        assert await written(store) == Node("node-0", ipv4=ADDRESS)

    asyncio.run(story())


def test_object_keeps_its_tunnel_while_no_other_address_can_be_had() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        await store.create(POOL)
        await fill(store)
        before = Node("node-0", ipip_tunnel_address=ip_address("10.0.0.9"))
        await store.create(before)

        with pytest.raises(Exhausted):
            await registration(store).once()

        assert await written(store) == before

    asyncio.run(story())


def test_object_has_the_tunnels_address_as_soon_as_there_is_one() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        await store.create(POOL)
        await fill(store)
        registering = registration(store)
        with pytest.raises(Exhausted):
            await registering.once()

        await Allocator(store, node="node-1").release_by_handle("h1")
        await registering.once()

        tunnel = ip_address("10.0.0.1")
        assert await written(store) == Node("node-0", ipv4=ADDRESS, ipip_tunnel_address=tunnel)

    asyncio.run(story())


@pytest.mark.parametrize("error", [TryAgain, DatastoreUnusable])
def test_an_error_of_the_datastore_is_told_and_the_next_attempt_does_the_rest(
    error: type[Exception],
) -> None:
    """Whichever call it is that fails."""

    async def story() -> None:
        for at in range(1, 40):
            store = MemoryDatastore()
            await store.create(POOL)
            failing = Failing(store, at=at, error=error, late=False)
            registering = registration(failing.datastore)

            with contextlib.suppress(error):
                await registering.once()
                assert not failing.is_over  # or it was swallowed
                break
            await registering.once()
            node = await written(store)
            assert node == Node("node-0", ipv4=ADDRESS, ipip_tunnel_address=ip_address("10.0.0.0"))
        assert at > 5

    asyncio.run(story())


def test_pool_without_tunnel_needs_no_address() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        await store.create(replace(POOL, ipip_mode=TunnelMode.NEVER))

        await registration(store).once()

        assert await written(store) == Node("node-0", ipv4=ADDRESS)

    asyncio.run(story())
