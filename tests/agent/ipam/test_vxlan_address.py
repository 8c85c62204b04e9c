"""A node's address inside a VXLAN tunnel: others send to it, so it stays as long as they may."""

import asyncio
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

import pytest

from pycni.agent.messages import Listed
from pycni.agent.registration import Registration
from pycni.agent.tunnel_change import LINGER_S
from pycni.agent.tunnel_ends import GRACE_S
from pycni.datastore.memory import MemoryDatastore
from pycni.errors import Exhausted, TryAgain
from pycni.ipam import block as arithmetic
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.ipam.tunnel import tunnel_handle
from pycni.model.network import IPAddress
from pycni.model.resources import Block, IPPool, Node, Resource, TunnelMode
from pycni.model.tunnels import TunnelKind, address_in
from pycni.ports import Listing
from tests.agent.ipam.allocators import change_pool, held_by, node
from tests.virtual_time import run

T = TypeVar("T", bound=Resource)

FOUR = IPPool("four", IPv4Network("10.0.0.0/24"), vxlan_mode=TunnelMode.ALWAYS)
SIX = IPPool("six", IPv6Network("fd10::/64"), 122, vxlan_mode=TunnelMode.CROSS_SUBNET)
POOLS = {TunnelKind.VXLAN: FOUR, TunnelKind.VXLAN_V6: SIX}


def registration(store: MemoryDatastore) -> Registration:
    made = Registration(
        store, node(store), node="node-0", addresses=(), report=lambda _what, _why: None
    )
    made.look_at_devices(dict.fromkeys(POOLS, True))
    return made


def reporting(store: MemoryDatastore) -> tuple[Registration, dict[str, str]]:
    """Return a registration whose VXLAN device is away, and what it reports."""
    troubles: dict[str, str] = {}
    made = Registration(
        store, node(store), node="node-0", addresses=(), report=troubles.__setitem__
    )
    made.look_at_devices({TunnelKind.VXLAN: False})
    return made, troubles


class WithoutPools(MemoryDatastore):
    """A datastore whose pools can't be listed any more once it `has_lost_them`."""

    has_lost_them = False

    async def list(self, kind: type[T]) -> Listing[T]:
        if self.has_lost_them and kind is IPPool:
            raise TryAgain("no pools")
        return await super().list(kind)


async def said(store: MemoryDatastore, kind: TunnelKind) -> IPAddress | None:
    stored = await store.get(Node, "node-0")
    assert stored is not None
    return address_in(stored.value, kind)


async def attributes(store: MemoryDatastore) -> list[tuple[tuple[str, str], ...]]:
    blocks = [one.value for one in (await store.list(Block)).items]
    return [given.attribute.secondary for one in blocks for given in arithmetic.given(one)]


@pytest.mark.parametrize(
    ("kind", "handle", "details"),
    [
        (TunnelKind.VXLAN, "vxlan-tunnel-addr-node-0", "vxlanTunnelAddress"),
        (TunnelKind.VXLAN_V6, "vxlan-v6-tunnel-addr-node-0", "vxlanV6TunnelAddress"),
    ],
)
def test_a_pool_with_vxlan_gives_each_node_an_address(
    kind: TunnelKind, handle: str, details: str
) -> None:
    async def story() -> None:
        store = MemoryDatastore()
        await store.create(POOLS[kind])

        await registration(store).once()
        await registration(store).once()

        assert await held_by(store, handle) == [str(await said(store, kind))]
        assert await attributes(store) == [(("node", "node-0"), ("type", details))]

    asyncio.run(story())


def test_pools_of_all_kinds_give_an_address_each() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        third = IPPool("third", IPv4Network("10.1.0.0/24"), ipip_mode=TunnelMode.ALWAYS)
        for pool in (FOUR, SIX, third):
            await store.create(pool)

        await registration(store).once()

        for kind in TunnelKind:
            assert await held_by(store, tunnel_handle("node-0", kind)) == [
                str(await said(store, kind))
            ]

    asyncio.run(story())


def test_the_address_stays_in_a_disabled_pool_whose_pods_are_reached_by_it() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        await store.create(FOUR)
        await store.create(replace(FOUR, name="another", cidr=IPv4Network("10.9.0.0/24")))
        await registration(store).once()
        before = await said(store, TunnelKind.VXLAN)
        assert before is not None

        await change_pool(store, "another", is_disabled=True)
        await registration(store).once()

        assert await said(store, TunnelKind.VXLAN) == before

    asyncio.run(story())


def test_the_address_is_given_back_when_nobody_can_send_to_it_any_more() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        await store.create(FOUR)
        agent = registration(store)
        running = asyncio.create_task(agent.run())
        await asyncio.sleep(1)
        address = await said(store, TunnelKind.VXLAN)
        assert address is not None

        await change_pool(store, "four", vxlan_mode=TunnelMode.NEVER)
        agent.heed(Listed(IPPool, ()))
        await asyncio.sleep(LINGER_S / 2)
        agent.heed(Listed(IPPool, ()))  # another look doesn't put it off
        await asyncio.sleep(LINGER_S / 2 - 1)
        assert await said(store, TunnelKind.VXLAN) == address
        await asyncio.sleep(2)

        assert await said(store, TunnelKind.VXLAN) is None
        assert await held_by(store, tunnel_handle("node-0", TunnelKind.VXLAN)) == []
        running.cancel()

    run(story())


def test_the_address_stays_when_the_pool_wants_it_again() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        await store.create(FOUR)
        agent = registration(store)
        running = asyncio.create_task(agent.run())
        await asyncio.sleep(1)
        address = await said(store, TunnelKind.VXLAN)
        for mode in (TunnelMode.NEVER, TunnelMode.ALWAYS):
            await change_pool(store, "four", vxlan_mode=mode)
            agent.heed(Listed(IPPool, ()))
            await asyncio.sleep(LINGER_S / 2)

        await asyncio.sleep(2 * LINGER_S)

        assert await said(store, TunnelKind.VXLAN) == address
        running.cancel()

    run(story())


def test_a_device_that_is_away_is_told_though_a_pool_of_another_tunnel_is_full() -> None:
    kind = TunnelKind.VXLAN

    async def story() -> None:
        store = MemoryDatastore()
        full = IPPool("full", IPv4Network("10.7.0.0/26"), ipip_mode=TunnelMode.ALWAYS)
        await store.create(full)
        await store.create(FOUR)
        request = AssignRequest(
            handle_id="pods", attributes=(("node", "node-9"),), versions=(4,), ipv4_pools=("full",)
        )
        for _ in range(64):
            await Allocator(store, node="node-9").assign(request)
        made, troubles = reporting(store)
        running = asyncio.create_task(made.run())

        await asyncio.sleep(GRACE_S + 2)

        assert "full" in troubles["registration"]
        assert "vxlan.calico can't be used" in troubles["vxlan"]
        assert await said(store, kind) is None
        running.cancel()

    run(story())


def test_an_end_without_device_is_taken_back_though_no_address_can_be_given() -> None:
    kind = TunnelKind.VXLAN

    async def story() -> None:
        store = WithoutPools()
        await store.create(FOUR)
        await registration(store).once()
        assert await said(store, kind) is not None
        store.has_lost_them = True
        made, troubles = reporting(store)
        running = asyncio.create_task(made.run())

        await asyncio.sleep(GRACE_S + 2)

        assert troubles["registration"] == "no pools"
        assert "vxlan.calico can't be used" in troubles["vxlan"]
        assert await said(store, kind) is None
        running.cancel()

    run(story())


def test_a_full_pool_of_one_kind_costs_no_other_kind_its_address() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        await store.create(replace(FOUR, vxlan_mode=TunnelMode.NEVER, ipip_mode=TunnelMode.ALWAYS))
        await store.create(replace(SIX, cidr=IPv6Network("fd10::/122")))
        request = AssignRequest(handle_id="pods", attributes=(("node", "node-9"),), versions=(6,))
        for _ in range(64):
            await Allocator(store, node="node-9").assign(request)

        with pytest.raises(Exhausted):
            await registration(store).once()

        address = await said(store, TunnelKind.IPIP)
        assert address is not None
        assert await held_by(store, tunnel_handle("node-0")) == [str(address)]
        assert await said(store, TunnelKind.VXLAN_V6) is None

    run(story())


def test_others_are_told_of_an_address_once_its_device_serves() -> None:
    kind = TunnelKind.VXLAN

    async def story() -> None:
        store = MemoryDatastore()
        await store.create(FOUR)
        made = registration(store)
        made.look_at_devices({kind: False})
        await made.once()
        assert await said(store, kind) is None
        held = await held_by(store, tunnel_handle("node-0", kind))

        made.look_at_devices({kind: True})
        await made.once()

        assert held == [str(await said(store, kind))]

    run(story())


def test_an_address_is_taken_back_when_its_device_has_been_away_for_long() -> None:
    kind = TunnelKind.VXLAN

    async def story() -> None:
        store = MemoryDatastore()
        await store.create(FOUR)
        await registration(store).once()
        told = await said(store, kind)
        troubles: dict[str, str] = {}
        made = Registration(
            store, node(store), node="node-0", addresses=(), report=troubles.__setitem__
        )
        running = asyncio.create_task(made.run())
        await asyncio.sleep(3600)
        assert await said(store, kind) == told

        made.look_at_devices({kind: False})
        await asyncio.sleep(GRACE_S - 1)
        assert (await said(store, kind), troubles["vxlan"]) == (told, "")
        await asyncio.sleep(2)
        assert await said(store, kind) is None
        assert "vxlan.calico can't be used" in troubles["vxlan"]
        made.look_at_devices({kind: True})
        await asyncio.sleep(1)

        assert (await said(store, kind), troubles["vxlan"]) == (told, "")
        running.cancel()

    run(story())
