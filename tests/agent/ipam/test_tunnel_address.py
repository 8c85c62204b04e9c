"""The tunnel's address: the same at every start, while its pool may serve it."""

from ipaddress import IPv4Network

from pycni.ipam import block as arithmetic
from pycni.model.resources import Block, Handle
from pycni.ports import Datastore
from tests.agent.ipam.allocators import POOL, SMALL, change_pool, node, take, tunnel_of
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
