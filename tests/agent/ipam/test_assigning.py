"""What a request gets: from the node's own block, from a new one, or borrowed."""

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.errors import Exhausted, InvalidInput
from pycni.ipam.requests import AssignRequest
from pycni.model.resources import Block, BlockAffinity, Handle, IPAMConfig, IPPool, IPReservation
from pycni.ports import Datastore
from tests.agent.ipam.allocators import (
    POOL,
    SIX,
    SMALL,
    affinities,
    change_pool,
    check_books,
    fill,
    node,
    take,
    tunnel_of,
)
from tests.agent.ipam.conftest import Play


def test_the_exercise_gets_its_addresses(play: Play) -> None:
    async def story(store: Datastore) -> None:
        tunnel = await tunnel_of(store, "node-1")

        assert tunnel is not None
        assert tunnel == IPv4Address("192.168.84.128")
        assert await take(node(store, "node-1"), "pod") == ["192.168.84.129"]
        assert await take(node(store, "node-0"), "other") == ["192.168.39.192"]
        assert await affinities(store) == [
            ("node-0", "192.168.39.192/26", "confirmed"),
            ("node-1", "192.168.84.128/26", "confirmed"),
        ]

    play([POOL], story)


def test_the_common_path_costs_five_reads_and_two_writes(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "first")
        calls: list[Call] = []

        async def note(call: Call) -> None:
            calls.append(call)

        assignment = await node(FaultyDatastore(store, before=note)).assign(AssignRequest("x"))

        assert [(call.verb, call.kind) for call in calls] == [
            ("list", IPPool),
            ("list", BlockAffinity),
            ("list", IPReservation),
            ("get", IPAMConfig),
            ("get", Block),
            ("create", Handle),
            ("update", Block),
        ]
        calls.clear()
        allocator = node(FaultyDatastore(store, before=note))
        await allocator.release(assignment.addresses, handle_id="x")
        assert [call.verb for call in calls] == ["get", "get", "update", "get", "delete"]

    play([POOL], story)


def test_a_full_block_claims_the_next_candidate(play: Play) -> None:
    async def story(store: Datastore) -> None:
        addresses = await fill(node(store, "b"), 6)

        assert len(set(addresses)) == 6
        assert [state for _, _, state in await affinities(store)] == ["confirmed"] * 2
        await check_books(store)

    play([SMALL], story)


def test_when_all_blocks_are_owned_the_node_borrows(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await fill(node(store, "b"), 13)

        assignment = await node(store, "c").assign(AssignRequest("guest"))

        assert assignment.borrowed == {assignment.addresses[0].interface.ip}
        assert {owner for owner, _, _ in await affinities(store)} == {"b"}

    play([SMALL], story)


def test_strict_affinity_forbids_borrowing(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await fill(node(store, "b"), 13)

        with pytest.raises(Exhausted, match=r"small \(10\.0\.0\.0/28\).*strictAffinity is on"):
            await take(node(store, "c"), "guest")
        await check_books(store)

    play([SMALL, IPAMConfig(is_strict_affinity=True)], story)


def test_an_exhausted_pool_says_where_to_look(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await fill(node(store, "b"), 16)

        with pytest.raises(Exhausted, match="pycnictl ipam show"):
            await take(node(store, "b"), "one-more")
        await check_books(store)

    play([SMALL], story)


def test_the_limit_of_blocks_holds_and_forbids_borrowing(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await fill(node(store, "c"), 1)
        await fill(node(store, "b"), 4)

        with pytest.raises(Exhausted, match="b owns 1 blocks, the limit"):
            await take(node(store, "b"), "one-more")

    play([SMALL, IPAMConfig(max_blocks_per_host=1)], story)


def test_the_limit_forbids_borrowing_where_nothing_is_left_to_claim_too(play: Play) -> None:
    async def story(store: Datastore) -> None:
        for name in "cde":
            await take(node(store, name), name)
        await fill(node(store, "b"), 4)

        with pytest.raises(Exhausted, match="b owns 1 blocks, the limit"):
            await take(node(store, "b"), "one-more")
        # Raised, it counts at once.
        stored = await store.get(IPAMConfig, "default")
        assert stored is not None
        await store.update(IPAMConfig(max_blocks_per_host=2), if_revision=stored.revision)
        assignment = await node(store, "b").assign(AssignRequest("one-more"))
        assert assignment.borrowed == {assignment.addresses[0].interface.ip}

    play([SMALL, IPAMConfig(max_blocks_per_host=1)], story)


def test_without_auto_allocation_no_block_is_claimed(play: Play) -> None:
    async def story(store: Datastore) -> None:
        with pytest.raises(Exhausted, match="autoAllocateBlocks is off"):
            await take(node(store), "x")
        assert await affinities(store) == []

    play([SMALL, IPAMConfig(is_auto_allocating_blocks=False)], story)


def test_a_second_pool_serves_when_the_first_is_full(play: Play) -> None:
    async def story(store: Datastore) -> None:
        addresses = await fill(node(store, "b"), 17)

        assert addresses[-1].startswith("10.9.")

    second = IPPool("zz", IPv4Network("10.9.0.0/28"), block_size=30)
    play([SMALL, second], story)


def test_blocks_of_one_address_work(play: Play) -> None:
    async def story(store: Datastore) -> None:
        seeds = iter(range(1, 1000))
        allocator = node(store, clock_ns=lambda: next(seeds))

        assert len(set(await fill(allocator, 4))) == 4

    play([IPPool("single", IPv4Network("10.0.0.0/30"), block_size=32)], story)


def test_both_families_come_together_or_not_at_all(play: Play) -> None:
    async def story(store: Datastore) -> None:
        four, six = await take(node(store), "x", versions=(4, 6))
        assert (":" in four, ":" in six) == (False, True)

        await change_pool(store, "six", is_disabled=True)
        with pytest.raises(Exhausted, match="IPv6"):
            await take(node(store), "y", versions=(4, 6))
        assert await store.get(Handle, "y") is None
        await check_books(store)

    play([SMALL, SIX], story)


@pytest.mark.parametrize(
    "fields", [{"handle_id": ""}, {"versions": ()}, {"versions": (5,)}], ids=str
)
def test_senseless_requests_cannot_be_made(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        AssignRequest(**{"handle_id": "h", **fields})
