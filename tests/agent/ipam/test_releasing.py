"""Releasing frees what was meant, and nothing newer."""

from ipaddress import IPv4Address, IPv4Interface

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.errors import AlreadyExists
from pycni.ipam import block as arithmetic
from pycni.ipam.books import attachment_of
from pycni.ipam.requests import AssignRequest
from pycni.model.endpoints import AssignedAddress, EndpointKey
from pycni.model.resources import Block, Handle
from pycni.ports import Datastore
from tests.agent.ipam.allocators import (
    POOL,
    SMALL,
    affinities,
    check_books,
    held_by,
    lose_handle,
    node,
    take,
)
from tests.agent.ipam.conftest import Play


async def counts(store: Datastore) -> list[int]:
    """Return what all handles count, in all blocks."""
    handles = [stored.value for stored in (await store.list(Handle)).items]
    return [count for handle in handles for _, count in handle.blocks]


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


@pytest.mark.parametrize("names", [("net.ABC", "net.abc"), ("net.abc", "net.ABC")])
@pytest.mark.parametrize("is_warm", [True, False])
def test_handles_that_differ_in_capitals_are_released_each_for_itself(
    play: Play, names: tuple[str, str], *, is_warm: bool
) -> None:
    first, second = names

    async def story(store: Datastore) -> None:
        warm = node(store)
        await take(warm, first, is_first=True)
        (kept,) = await take(warm, second, is_first=True)
        allocator = warm if is_warm else node(store)

        assert len(await allocator.release_by_handle(first)) == 1
        assert await allocator.release_by_handle(first) == ()
        assert await held_by(store, second) == [kept]
        assert await counts(store) == [1]

        assert len(await allocator.release_by_handle(second)) == 1
        assert await counts(store) == []

    play([SMALL], story)


@pytest.mark.parametrize("is_warm", [True, False])
def test_attachments_whose_handles_read_alike_are_released_each_for_itself(
    play: Play, *, is_warm: bool
) -> None:
    one, other = EndpointKey("a.b", "c", "eth0"), EndpointKey("a", "b.c", "eth0")

    async def story(store: Datastore) -> None:
        warm = node(store)
        (kept,) = await take(warm, "a.b.c", attributes=attachment_of(one), is_first=True)
        (given,) = await take(warm, "a.b.c", attributes=attachment_of(other), is_first=True)
        allocator = warm if is_warm else node(store)
        assert given != kept
        assert await counts(store) == [2]

        released = await allocator.release_by_handle("a.b.c", key=other)

        assert list(map(str, released)) == [given]
        assert await held_by(store, "a.b.c") == [kept]
        assert await counts(store) == [1]
        assert await allocator.release_by_handle("a.b.c", key=other) == ()
        assert len(await allocator.release_by_handle("a.b.c", key=one)) == 1
        assert await counts(store) == []

    play([SMALL], story)


def test_an_address_of_an_attachment_whose_handle_reads_alike_is_in_use(play: Play) -> None:
    one, other = EndpointKey("a.b", "c", "eth0"), EndpointKey("a", "b.c", "eth0")

    async def story(store: Datastore) -> None:
        wanted = (IPv4Address("10.0.0.4"),)
        fields = {"addresses": wanted, "is_first": True}
        await take(node(store), "a.b.c", attributes=attachment_of(one), **fields)

        with pytest.raises(AlreadyExists, match=r"cannot assign 10\.0\.0\.4 to a\.b\.c"):
            await take(node(store), "a.b.c", attributes=attachment_of(other), **fields)

        assert await held_by(store, "a.b.c") == ["10.0.0.4"]
        await check_books(store)

    play([SMALL], story)


def test_what_nobody_named_as_an_attachments_goes_with_the_handle(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "net.c")

        key = EndpointKey("net", "c", "eth0")
        assert len(await node(store).release_by_handle("net.c", key=key)) == 1
        await check_books(store)

    play([SMALL], story)


def test_what_another_is_about_to_get_stays_counted(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "x")
        await take(node(store), "X")
        handle = await store.get(Handle, "x")
        assert handle is not None
        ((cidr, count),) = handle.value.blocks
        raised = Handle("x", ((cidr, count + 1),))
        await store.update(raised, if_revision=handle.revision)

        await node(store).release_by_handle("x")

        assert await counts(store) == [2]

    play([SMALL], story)


def test_a_shared_handle_that_changes_while_it_is_lowered_keeps_all_counts(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "x")
        await take(node(store), "X")

        async def give_meanwhile(call: Call) -> None:
            if (call.verb, call.kind) == ("update", Handle) and not given:
                given.append(call)
                await take(node(store), "X")

        given: list[Call] = []
        releasing = node(FaultyDatastore(store, before=give_meanwhile))
        assert len(await releasing.release_by_handle("x")) == 1

        assert len(await held_by(store, "X")) == 2
        assert await counts(store) == [2]

    play([SMALL], story)


def test_two_addresses_under_one_handle_are_released_one_by_one(play: Play) -> None:
    async def story(store: Datastore) -> None:
        first = await node(store).assign(AssignRequest("x"))
        second = await node(store).assign(AssignRequest("x"))

        for assignment in (first, second):
            await check_books(store)
            await node(store).release(assignment.addresses, handle_id="x")

        assert await store.get(Handle, "x") is None

    play([SMALL], story)
