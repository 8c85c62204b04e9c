"""Requests that choose: a pool by its name, or one particular address."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.errors import AlreadyExists, Exhausted, InvalidInput
from pycni.ipam.requests import AssignRequest, DatastoreView
from pycni.model.resources import AssignmentMode, IPAMConfig, IPPool, Node, PoolUse
from pycni.ports import Datastore
from tests.agent.ipam.allocators import (
    CIDR,
    POOL,
    SIX,
    SMALL,
    affinities,
    change_pool,
    check_books,
    fill,
    held_by,
    node,
    take,
)
from tests.agent.ipam.conftest import Play


@pytest.mark.parametrize("name", ["small", "10.0.0.0/28"])
def test_a_manual_pool_serves_those_who_name_it(play: Play, name: str) -> None:
    async def story(store: Datastore) -> None:
        with pytest.raises(Exhausted, match="no enabled pool"):
            await take(node(store), "x")
        assert await take(node(store), "x", ipv4_pools=(name,)) != []

    play([replace(SMALL, assignment_mode=AssignmentMode.MANUAL)], story)


def test_two_named_pools_serve_one_after_the_other(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        given = [
            (await take(allocator, f"x{number}", ipv4_pools=("zz", "small")))[0]
            for number in range(4)
        ]

        assert [address[:5] for address in given] == ["10.9.", "10.9.", "10.0.", "10.0."]

    play([POOL, SMALL, IPPool("zz", IPv4Network("10.9.0.0/31"), block_size=31)], story)


@pytest.mark.parametrize("block_size", [30, 26, 20], ids=["small", "usual", "large"])
def test_pools_named_for_one_family_leave_the_other_one_free(play: Play, block_size: int) -> None:
    async def story(store: Datastore) -> None:
        four, six = await take(node(store), "x", versions=(4, 6), ipv4_pools=("named",))

        assert four.startswith("10.7.")
        assert six.startswith("fd00:")
        four, six = await take(node(store), "y", versions=(4, 6), ipv6_pools=("six",))
        assert four.startswith("192.168.")
        assert six.startswith("fd00:")
        await check_books(store)

    named = IPPool(
        "named",
        IPv4Network("10.7.0.0/16"),
        block_size=block_size,
        assignment_mode=AssignmentMode.MANUAL,
    )
    play([POOL, named, replace(SIX, block_size=block_size + 96)], story)


@pytest.mark.parametrize("fields", [{}, {"ipv4_pools": ("small",)}, {"addresses": (CIDR[1],)}])
def test_nobody_is_refused_on_a_view_that_is_behind(play: Play, fields: dict[str, Any]) -> None:
    class Behind(DatastoreView):
        async def pools(self) -> Sequence[IPPool]:
            return ()

    async def story(store: Datastore) -> None:
        assert await take(node(store, view=Behind(store)), "x", **fields) != []

    play([SMALL], story)


def test_unknown_and_disabled_pools_are_refused_by_name(play: Play) -> None:
    async def story(store: Datastore) -> None:
        with pytest.raises(InvalidInput, match=r"pool small: .*enabled are default \("):
            await take(node(store), "x", ipv4_pools=("small",))

    play([POOL, replace(SMALL, is_disabled=True)], story)


@pytest.mark.parametrize(
    "fields",
    [
        {"ipv4_pools": ("six",)},
        {"ipv4_pools": ("default", "six")},
        {"ipv6_pools": ("default",)},
        {"ipv6_pools": ("default",), "versions": (4, 6)},
        {"ipv6_pools": ("default",), "addresses": (IPv4Address("192.168.0.9"),)},
    ],
)
def test_a_pool_of_the_wrong_family_is_refused_before_anything_is_given(
    play: Play, fields: dict[str, Any]
) -> None:
    async def story(store: Datastore) -> None:
        with pytest.raises(InvalidInput, match="name it in ipv"):
            await take(node(store), "x", **fields)
        assert await affinities(store) == []

    play([POOL, SIX], story)


def test_a_pool_serves_the_nodes_that_its_selector_means(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await store.create(Node("node-0", labels=(("rack", "a"),)))
        await store.create(Node("node-1", labels=(("rack", "b"),)))

        assert (await take(node(store), "x"))[0].startswith("10.0.0.")
        assert (await take(node(store, "node-1"), "y"))[0].startswith("192.168.")
        # One that is not known has no labels; and who names the pool needs none.
        assert (await take(node(store, "node-2"), "z"))[0].startswith("192.168.")
        assert (await take(node(store, "node-1"), "w", ipv4_pools=("small",)))[0].startswith(
            "10.0.0."
        )
        await check_books(store)

    in_rack_a = replace(SMALL, node_selector="rack == 'a'")
    play([in_rack_a, replace(POOL, node_selector="rack != 'a'")], story)


def test_a_node_that_no_pool_means_hears_which_there_are(play: Play) -> None:
    async def story(store: Datastore) -> None:
        complaint = r"on node-0 \(small \(10.0.0.0/28\) is for nodes with has\(rack\)\); add one"
        with pytest.raises(Exhausted, match=complaint):
            await take(node(store), "x")

    other = replace(POOL, is_disabled=True, node_selector="has(zone)")
    play([replace(SMALL, node_selector="has(rack)"), other], story)


def test_labels_are_read_only_where_a_pool_asks_for_them(play: Play) -> None:
    async def story(store: Datastore) -> None:
        asked: list[str] = []

        async def note(call: Call) -> None:
            asked.append(call.kind.__name__)

        allocator = node(FaultyDatastore(store, before=note))
        await take(allocator, "x")
        assert "Node" not in asked

        await change_pool(store, "small", node_selector="has(rack)")
        with pytest.raises(Exhausted, match="no enabled pool"):
            await take(allocator, "y")
        assert "Node" in asked

    play([SMALL], story)


def test_a_node_whose_labels_change_gives_up_its_empty_blocks(play: Play) -> None:
    async def story(store: Datastore) -> None:
        stored = await store.create(Node("node-0", labels=(("rack", "a"),)))
        allocator = node(store)
        await take(allocator, "x")
        await allocator.release_by_handle("x")
        moved = replace(stored.value, labels=(("rack", "b"),))
        await store.update(moved, if_revision=stored.revision)

        assert (await take(allocator, "y"))[0].startswith("192.168.")
        assert [block[:8] for _, block, _ in await affinities(store)] == ["192.168."]

    in_rack_a = replace(SMALL, node_selector="rack == 'a'")
    play([in_rack_a, replace(POOL, name="zz", node_selector="rack == 'b'")], story)


def test_a_node_that_no_pool_means_any_more_gives_up_its_empty_blocks(play: Play) -> None:
    async def story(store: Datastore) -> None:
        stored = await store.create(Node("node-0", labels=(("rack", "a"),)))
        allocator = node(store)
        await fill(allocator, 5)  # one block full, one begun
        for number in range(4):
            await allocator.release_by_handle(f"fill-{number}")
        await store.update(replace(stored.value, labels=()), if_revision=stored.revision)

        for is_first in (True, False):
            with pytest.raises(Exhausted, match="is for nodes with rack == 'a'"):
                await take(allocator, "x", is_first=is_first)
            # What is in use stays with its block.
            assert len(await affinities(store)) == 1
        assert await held_by(store, "fill-4") != []
        await allocator.release_by_handle("fill-4")
        # Who names another pool leaves it alone.
        assert (await take(allocator, "y", ipv4_pools=("default",)))[0].startswith("192.168.")
        assert len(await affinities(store)) == 2
        with pytest.raises(Exhausted):
            await take(allocator, "x", is_first=True)
        assert [block[:8] for _, block, _ in await affinities(store)] == ["192.168."]

    by_name = replace(POOL, assignment_mode=AssignmentMode.MANUAL)
    play([replace(SMALL, node_selector="rack == 'a'"), by_name], story)


def test_a_pool_serves_only_its_uses(play: Play) -> None:
    async def story(store: Datastore) -> None:
        for named in ((), ("small",)):
            with pytest.raises(Exhausted, match="serves Workload"):
                await take(node(store), "x", ipv4_pools=named)

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
            await take(node(store), "x", addresses=(IPv4Address(address),), ipv4_pools=pools)

    off = IPPool("off", IPv4Network("10.8.0.0/16"), is_disabled=True)
    play([POOL, SMALL, off], story)
