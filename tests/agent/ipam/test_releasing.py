"""Releasing frees what was meant, and nothing newer."""

from ipaddress import IPv4Address, IPv4Interface

from pycni.ipam import block as arithmetic
from pycni.ipam.requests import AssignRequest
from pycni.model.endpoints import AssignedAddress
from pycni.model.resources import Block, Handle
from pycni.ports import Datastore
from tests.agent.ipam.allocators import (
    POOL,
    SMALL,
    affinities,
    check_books,
    lose_handle,
    node,
    take,
)
from tests.agent.ipam.conftest import Play


def test_a_late_release_does_not_free_a_newer_assignment(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        wanted = (IPv4Address("192.168.39.200"),)
        old = await allocator.assign(AssignRequest("x", addresses=wanted))
        await allocator.release_by_handle("x")
        new = await allocator.assign(AssignRequest("x", addresses=wanted))

        outcome = await allocator.release(old.addresses, handle_id="x")

        assert (outcome.released, outcome.refused) == ((), wanted)
        assert (await allocator.release(new.addresses, handle_id="x")).released == wanted
        await check_books(store)

    play([POOL], story)


def test_an_empty_block_stays_with_its_node(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "x")
        await node(store).release_by_handle("x")

        (block,) = (await store.list(Block)).items
        assert (block.value.affinity, arithmetic.is_empty(block.value)) == ("node-0", True)
        assert len(await affinities(store)) == 1

    play([SMALL], story)


def test_releasing_what_is_gone_is_success(play: Play) -> None:
    async def story(store: Datastore) -> None:
        address = AssignedAddress(IPv4Interface("192.168.1.1/32"), 5)

        assert await node(store).release_by_handle("nobody") == ()
        assert (await node(store).release([address], handle_id="nobody")).refused == ()

    play([POOL], story)


def test_addresses_are_found_without_their_handle(play: Play) -> None:
    async def story(store: Datastore) -> None:
        assignment = await node(store).assign(AssignRequest("x"))
        await lose_handle(store, "x")

        outcome = await node(store).release(assignment.addresses, handle_id="x")

        assert outcome.released == (assignment.addresses[0].interface.ip,)
        await check_books(store)

    play([POOL], story)


def test_a_handle_is_found_whatever_its_case(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "Net.ABC")

        assert len(await node(store).release_by_handle("net.abc")) == 1
        await check_books(store)

    play([POOL], story)


def test_two_addresses_under_one_handle_are_released_one_by_one(play: Play) -> None:
    async def story(store: Datastore) -> None:
        first = await node(store).assign(AssignRequest("x"))
        second = await node(store).assign(AssignRequest("x"))

        for assignment in (first, second):
            await check_books(store)
            await node(store).release(assignment.addresses, handle_id="x")

        assert await store.get(Handle, "x") is None

    play([SMALL], story)
