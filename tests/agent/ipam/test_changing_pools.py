"""Pools and settings that come, go and change while nodes have addresses of them."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from pycni.errors import Exhausted
from pycni.ipam.requests import AssignRequest
from pycni.model.resources import Block, IPAMConfig, IPPool, Node, PoolUse, TunnelMode
from pycni.ports import Datastore
from tests.agent.ipam.allocators import (
    POOL,
    SMALL,
    affinities,
    check_books,
    fill,
    held_by,
    node,
    take,
    tunnel_of,
)
from tests.agent.ipam.conftest import Play

OTHER = IPPool("other", IPv4Network("10.9.0.0/28"), block_size=30)


async def delete_pool(store: Datastore, name: str) -> None:
    stored = await store.get(IPPool, name)
    assert stored is not None
    await store.delete(IPPool, name, if_revision=stored.revision)


async def configure(store: Datastore, config: IPAMConfig) -> None:
    stored = await store.get(IPAMConfig, "default")
    if stored is None:
        await store.create(config)
    else:
        await store.update(config, if_revision=stored.revision)


async def label(store: Datastore, name: str, rack: str) -> None:
    stored = await store.get(Node, name)
    labelled = Node(name, labels=(("rack", rack),))
    if stored is None:
        await store.create(labelled)
    else:
        await store.update(labelled, if_revision=stored.revision)


@pytest.mark.parametrize("name", ["node-0", "node-1"], ids=["has a block", "is new"])
@pytest.mark.parametrize("is_same_allocator", [True, False])
def test_a_pool_that_replaces_another_serves_old_nodes_and_new_ones(
    play: Play, name: str, *, is_same_allocator: bool
) -> None:
    async def story(store: Datastore) -> None:
        former = node(store)
        (kept,) = await take(former, "x")
        await delete_pool(store, "small")
        await store.create(OTHER)

        remembers = is_same_allocator and name == "node-0"
        (given,) = await take(former if remembers else node(store, name), "y")

        assert IPv4Address(given) in OTHER.cidr
        assert await held_by(store, "x") == [kept]
        # What was given from the pool that is gone can be released nevertheless.
        assert await former.release_by_handle("x") == (IPv4Address(kept),)
        await check_books(store)

    play([SMALL], story)


def test_a_block_given_up_in_no_pool_goes_with_its_last_address(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        await take(allocator, "x")
        await take(allocator, "y")
        await delete_pool(store, "small")
        cidr = (await store.list(Block)).items[0].value.cidr

        assert await allocator.release_affinity(cidr)

        assert await affinities(store) == []
        await allocator.release_by_handle("x")
        assert [one.value.affinity for one in (await store.list(Block)).items] == [None]
        await allocator.release_by_handle("y")
        assert (await store.list(Block)).items == ()

    play([SMALL], story)


def test_strict_affinity_counts_from_when_it_is_switched_on_until_it_is_off(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await fill(node(store, "b"), 13)  # all four blocks are owned
        guest = node(store, "c")
        (borrowed,) = await take(guest, "before")

        await configure(store, IPAMConfig(is_strict_affinity=True))
        with pytest.raises(Exhausted, match="strictAffinity is on"):
            await take(guest, "meanwhile")
        assert await held_by(store, "before") == [borrowed]

        await configure(store, IPAMConfig(is_strict_affinity=False))
        assert (await guest.assign(AssignRequest("after"))).borrowed
        await check_books(store)

    play([SMALL], story)


def test_borrowed_addresses_are_released_and_their_owner_can_give_them(play: Play) -> None:
    async def story(store: Datastore) -> None:
        owner, guest = node(store, "b"), node(store, "c")
        await fill(owner, 13)
        borrowed = [(await take(guest, f"guest-{number}"))[0] for number in range(3)]
        with pytest.raises(Exhausted):
            await take(owner, "full")

        first = await node(store, "c").release_by_handle("guest-0")
        rest = [await guest.release_by_handle(f"guest-{number}") for number in (1, 2)]

        assert list(map(str, (*first, *rest[0], *rest[1]))) == borrowed
        again = [(await take(owner, f"again-{number}"))[0] for number in range(3)]
        assert sorted(again) == sorted(borrowed)
        assert {one for one, _, _ in await affinities(store)} == {"b"}
        await check_books(store)

    play([SMALL], story)


def test_the_limit_counts_though_another_node_has_room_and_can_be_raised(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store, "c"), "theirs")  # three of its block are free
        allocator = node(store, "b")
        await fill(allocator, 4)
        with pytest.raises(Exhausted, match="b owns 1 blocks, the limit is 1"):
            await take(allocator, "y")

        await configure(store, IPAMConfig(max_blocks_per_host=2))

        assignment = await allocator.assign(AssignRequest("y"))
        assert not assignment.borrowed
        assert [owner for owner, _, _ in await affinities(store)].count("b") == 2

    play([SMALL, IPAMConfig(max_blocks_per_host=1)], story)


def test_pools_named_by_turns_serve_from_the_block_that_the_node_has_in_each(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        given = {
            pool.name: [
                IPv4Address((await take(allocator, f"{pool.name}-{turn}", ipv4_pools=named))[0])
                for turn in range(2)
                for named in [(pool.name,)]
            ]
            for pool in (SMALL, OTHER)
        }
        for pool in (SMALL, OTHER):
            more = await take(allocator, f"{pool.name}-2", ipv4_pools=(pool.name,))
            given[pool.name].append(IPv4Address(more[0]))

        blocks = [IPv4Network(cidr) for _, cidr, _ in await affinities(store)]
        assert len(blocks) == 2
        for block, pool in zip(sorted(blocks), (SMALL, OTHER), strict=True):
            assert block.subnet_of(pool.cidr)  # type: ignore[arg-type]  # IPv4, both.
            assert [address in block for address in given[pool.name]] == [True] * 3
        await check_books(store)

    play([SMALL, OTHER], story)


def test_a_pool_that_means_the_node_serves_until_it_is_full_and_no_other_helps(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await label(store, "node-0", "a")
        given = await fill(node(store), 16)

        assert sorted(map(IPv4Address, given)) == list(SMALL.cidr)
        with pytest.raises(Exhausted, match=r"nothing is free in small \(10\.0\.0\.0/28\);"):
            await take(node(store), "y")
        assert await affinities(store) == [
            ("node-0", f"10.0.0.{start}/30", "confirmed") for start in (0, 12, 4, 8)
        ]

    elsewhere = replace(OTHER, node_selector="rack == 'b'")
    play([replace(SMALL, node_selector="rack == 'a'"), elsewhere], story)


def test_labels_that_move_to_another_node_let_it_borrow_of_the_first(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await label(store, "node-0", "a")
        await label(store, "node-1", "b")
        former = node(store)
        await fill(former, 13)  # nothing is unclaimed
        await label(store, "node-0", "b")
        await label(store, "node-1", "a")

        with pytest.raises(Exhausted, match="is for nodes with rack == 'a'"):
            await take(former, "x")
        assignment = await node(store, "node-1").assign(AssignRequest("y"))

        assert assignment.borrowed == {assignment.addresses[0].interface.ip}
        assert {owner for owner, _, _ in await affinities(store)} == {"node-0"}
        await check_books(store)

    play([replace(SMALL, node_selector="rack == 'a'")], story)


def test_an_empty_block_for_workloads_stays_when_the_tunnel_takes_its_address_elsewhere(
    play: Play,
) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        (former,) = await take(allocator, "x")
        await allocator.release_by_handle("x")

        tunnel = await tunnel_of(store, "node-0")

        assert tunnel is not None
        assert tunnel in OTHER.cidr
        assert [cidr[:5] for _, cidr, _ in await affinities(store)] == ["10.0.", "10.9."]
        # And its workloads go on with it, in the order of its queue.
        assert await take(node(store), "y") == [str(IPv4Address(former) + 1)]

    workloads = replace(SMALL, allowed_uses=frozenset({PoolUse.WORKLOAD}))
    tunnels = replace(OTHER, allowed_uses=frozenset({PoolUse.TUNNEL}), ipip_mode=TunnelMode.ALWAYS)
    play([workloads, tunnels], story)


def test_two_full_pools_are_both_named(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await fill(node(store), 32)

        complaint = r"free in (small|other) \(10\.[09]\.0\.0/28\), (small|other) \(10\.[09]\."
        with pytest.raises(Exhausted, match=complaint):
            await take(node(store), "y")
        await check_books(store)

    play([SMALL, OTHER], story)


def test_a_named_pool_that_is_full_is_followed_by_the_second_named_and_no_third(
    play: Play,
) -> None:
    async def story(store: Datastore) -> None:
        named = {"ipv4_pools": ("small", "other")}
        given = [(await take(node(store), f"x{number}", **named))[0] for number in range(32)]

        assert [IPv4Address(one) in SMALL.cidr for one in given] == [True] * 16 + [False] * 16
        with pytest.raises(Exhausted, match="nothing is free in small"):
            await take(node(store), "y", **named)

    play([SMALL, OTHER, POOL], story)
