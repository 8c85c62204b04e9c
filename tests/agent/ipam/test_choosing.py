"""Requests that choose: a pool by its name, or one particular address."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from pycni.errors import AlreadyExists, Exhausted, InvalidInput
from pycni.ipam.requests import AssignRequest
from pycni.model.resources import AssignmentMode, IPAMConfig, IPPool, PoolUse
from pycni.ports import Datastore
from tests.agent.ipam.allocators import POOL, SMALL, affinities, check_books, node, take
from tests.agent.ipam.conftest import Play


@pytest.mark.parametrize("name", ["small", "10.0.0.0/28"])
def test_a_manual_pool_serves_those_who_name_it(play: Play, name: str) -> None:
    async def story(store: Datastore) -> None:
        with pytest.raises(Exhausted, match="no enabled pool"):
            await take(node(store), "x")
        assert await take(node(store), "x", pools=(name,)) != []

    play([replace(SMALL, assignment_mode=AssignmentMode.MANUAL)], story)


def test_unknown_and_disabled_pools_are_refused_by_name(play: Play) -> None:
    async def story(store: Datastore) -> None:
        with pytest.raises(InvalidInput, match=r"pool small: .*enabled are default \("):
            await take(node(store), "x", pools=("small",))

    play([POOL, replace(SMALL, is_disabled=True)], story)


def test_a_pool_serves_only_its_uses(play: Play) -> None:
    async def story(store: Datastore) -> None:
        with pytest.raises(Exhausted, match="serves Workload"):
            await take(node(store), "x")

    play([replace(SMALL, allowed_uses=frozenset({PoolUse.TUNNEL}))], story)


def test_a_particular_address_claims_its_block(play: Play) -> None:
    async def story(store: Datastore) -> None:
        wanted = (IPv4Address("192.168.247.10"),)

        assert await take(node(store, "node-2"), "x", addresses=wanted) == ["192.168.247.10"]
        assert await affinities(store) == [("node-2", "192.168.247.0/26", "confirmed")]
        # Asking again is no error; the same address comes back.
        assert await take(node(store, "node-2"), "x", addresses=wanted) == ["192.168.247.10"]
        with pytest.raises(AlreadyExists, match="x holds it"):
            await take(node(store, "node-2"), "y", addresses=wanted)
        await check_books(store)

    play([POOL], story)


def test_a_particular_address_of_another_node_is_borrowed(play: Play) -> None:
    async def story(store: Datastore) -> None:
        (first,) = await take(node(store, "node-1"), "x")
        wanted = IPv4Address(first) + 5

        assignment = await node(store).assign(AssignRequest("y", addresses=(wanted,)))

        assert assignment.borrowed == {wanted}
        again = await node(store).assign(AssignRequest("y", addresses=(wanted,)))
        assert again == assignment

    play([POOL], story)


def test_strict_affinity_keeps_particular_addresses_at_home(play: Play) -> None:
    async def story(store: Datastore) -> None:
        (first,) = await take(node(store, "node-1"), "x")

        with pytest.raises(InvalidInput, match="belongs to node-1, not to node-0"):
            await take(node(store), "y", addresses=(IPv4Address(first) + 5,))

    play([POOL, IPAMConfig(is_strict_affinity=True)], story)


@pytest.mark.parametrize(
    ("address", "pools"), [("172.16.0.1", ()), ("10.0.0.1", ("default",)), ("10.8.0.1", ())]
)
def test_an_address_outside_the_pools_is_refused(
    play: Play, address: str, pools: tuple[str, ...]
) -> None:
    async def story(store: Datastore) -> None:
        with pytest.raises(InvalidInput, match=f"cannot assign {address} to x"):
            await take(node(store), "x", addresses=(IPv4Address(address),), pools=pools)

    off = IPPool("off", IPv4Network("10.8.0.0/16"), is_disabled=True)
    play([POOL, SMALL, off], story)
