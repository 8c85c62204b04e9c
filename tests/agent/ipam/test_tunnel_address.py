"""The tunnel's address: the same at every start, while its pool may serve it."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from pycni.agent.registration import Registration
from pycni.ipam import block as arithmetic
from pycni.ipam.tunnel import tunnel_handle
from pycni.model.resources import Block, Handle, Node, PoolUse, TunnelMode
from pycni.ports import Datastore
from tests.agent.ipam.allocators import POOL, SMALL, change_pool, held_by, node, take, tunnel_of
from tests.agent.ipam.conftest import Play


def test_the_tunnel_address_stays_the_same(play: Play) -> None:
    async def story(store: Datastore) -> None:
        first = await tunnel_of(store, "node-0")

        assert await tunnel_of(store, "node-0") == first
        handle = await store.get(Handle, "ipip-tunnel-addr-node-0")
        assert handle is not None
        assert handle.value.blocks == ((IPv4Network("192.168.39.192/26"), 1),)

    play([POOL, SMALL], story)


def test_the_tunnel_address_leaves_a_disabled_pool(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await tunnel_of(store, "node-0")
        await change_pool(store, "default", is_disabled=True)

        assert await tunnel_of(store, "node-0") is None
        assert (await store.list(Handle)).items == ()

    play([POOL, SMALL], story)


def test_a_tunnel_address_with_foreign_details_is_replaced(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "ipip-tunnel-addr-node-0", attributes=(("node", "other"),))

        tunnel = await tunnel_of(store, "node-0")

        assert tunnel is not None
        (block,) = (await store.list(Block)).items
        (held,) = arithmetic.given(block.value)
        assert held.attribute.secondary == (("node", "node-0"), ("type", "ipipTunnelAddress"))

    play([POOL], story)


def test_the_tunnel_address_moves_with_the_pools(play: Play) -> None:
    async def story(store: Datastore) -> None:
        assert str(await tunnel_of(store, "node-0")).startswith("192.168.")
        await change_pool(store, "default", is_disabled=True)
        await change_pool(store, "small", ipip_mode=TunnelMode.CROSS_SUBNET)

        moved = await tunnel_of(store, "node-0")

        assert str(moved).startswith("10.0.0.")
        assert await held_by(store, tunnel_handle("node-0")) == [str(moved)]

    play([POOL, SMALL], story)


UNFIT = [
    {"ipip_mode": TunnelMode.NEVER},
    {"node_selector": "rack == 'b'"},
    {"allowed_uses": frozenset({PoolUse.WORKLOAD})},
    {"is_disabled": True},
]


@pytest.mark.parametrize("changes", UNFIT)
def test_a_pool_that_may_not_serve_tunnels_gives_none(play: Play, changes: dict[str, Any]) -> None:
    async def story(store: Datastore) -> None:
        assert str(await tunnel_of(store, "node-0")).startswith("10.0.0.")

    # By its order and size the other pool would come first.
    play([replace(POOL, name="a", **changes), replace(SMALL, ipip_mode=TunnelMode.ALWAYS)], story)


@pytest.mark.parametrize("changes", UNFIT)
def test_a_pool_that_may_serve_tunnels_no_more_gets_the_address_back(
    play: Play, changes: dict[str, Any]
) -> None:
    async def story(store: Datastore) -> None:
        agent = registration(store)
        await agent.once()
        assert (await own_node(store)).ipip_tunnel_address is not None

        await change_pool(store, "default", **changes)
        await agent.once()

        assert (await own_node(store)).ipip_tunnel_address is None
        assert await held_by(store, tunnel_handle("node-0")) == []

    play([POOL], story)


def test_what_the_node_object_says_and_its_tunnel_does_not_hold_is_left_alone(play: Play) -> None:
    async def story(store: Datastore) -> None:
        (pods,) = await take(node(store), "net.c1")
        await store.create(Node("node-0", ipip_tunnel_address=IPv4Address(pods)))

        await registration(store).once()

        tunnel = (await own_node(store)).ipip_tunnel_address
        assert await held_by(store, "net.c1") == [pods]
        assert await held_by(store, tunnel_handle("node-0")) == [str(tunnel)] != [pods]

    play([POOL], story)


@pytest.mark.parametrize("stale", [None, IPv4Address("192.168.0.5")])
def test_the_node_object_is_made_to_say_what_the_tunnel_holds(
    play: Play, stale: IPv4Address | None
) -> None:
    async def story(store: Datastore) -> None:
        first = await tunnel_of(store, "node-0")
        await store.create(Node("node-0", ipip_tunnel_address=stale))

        await registration(store).once()

        assert (await own_node(store)).ipip_tunnel_address == first

    play([POOL], story)


def registration(store: Datastore) -> Registration:
    return Registration(
        store, node(store), node="node-0", addresses=(), report=lambda _what, _why: None
    )


async def own_node(store: Datastore) -> Node:
    stored = await store.get(Node, "node-0")
    assert stored is not None
    return stored.value
