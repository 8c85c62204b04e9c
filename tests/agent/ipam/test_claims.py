"""Blocks are claimed, taken up half claimed, and given up again."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.errors import DatastoreUnusable
from pycni.ipam import block as arithmetic
from pycni.ipam.blocks import Blocks
from pycni.ipam.claims import Claims
from pycni.ipam.cooldown import Cooldown
from pycni.ipam.requests import AssignRequest, DatastoreView
from pycni.ipam.retries import Retries
from pycni.model.resources import AffinityState, Block, BlockAffinity, IPPool, cidr_name
from pycni.ports import Datastore
from tests.agent.death import Died
from tests.agent.ipam.allocators import (
    CIDR,
    SMALL,
    affinities,
    affinity,
    change_pool,
    new_block,
    no_sleep,
    node,
    take,
)
from tests.agent.ipam.conftest import Play

if TYPE_CHECKING:
    from pycni.model.endpoints import AssignedAddress
    from pycni.model.network import IPNetwork


def test_a_lost_race_for_a_block_drops_the_claim_and_tries_the_next(play: Play) -> None:
    async def story(store: Datastore) -> None:
        raced: list[IPNetwork] = []

        async def race(call: Call) -> None:
            if (call.verb, call.kind) == ("create", Block) and not raced:
                cidr = next(one.value.cidr for one in (await store.list(BlockAffinity)).items)
                raced.append(cidr)
                await store.create(arithmetic.new_block(cidr, affinity="rival", sequence_number=1))

        (address,) = await take(node(FaultyDatastore(store, before=race)), "x")

        assert IPv4Address(address) not in raced[0]
        assert [(owner, state) for owner, _, state in await affinities(store)] == [
            ("node-0", "confirmed")
        ]

    play([SMALL], story)


@pytest.mark.parametrize("state", [AffinityState.PENDING, AffinityState.PENDING_DELETION])
@pytest.mark.parametrize("has_block", [True, False])
def test_an_unfinished_claim_or_release_is_taken_up(
    play: Play, state: AffinityState, *, has_block: bool
) -> None:
    async def story(store: Datastore) -> None:
        assert await take(node(store), "x") == ["10.0.0.4"]
        assert await affinities(store) == [("node-0", "10.0.0.4/30", "confirmed")]

    play([SMALL, affinity(state), *([new_block()] if has_block else [])], story)


def test_an_affinity_for_a_block_of_another_node_is_dropped(play: Play) -> None:
    async def story(store: Datastore) -> None:
        (address,) = await take(node(store), "x")

        assert IPv4Address(address) not in CIDR
        assert "10.0.0.4/30" not in [block for _, block, _ in await affinities(store)]

    play([SMALL, affinity(AffinityState.PENDING), new_block(owner="node-9")], story)


def test_an_empty_block_is_deleted_when_released(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        await take(allocator, "x")
        cidr = (await store.list(Block)).items[0].value.cidr

        assert not await allocator.release_affinity(cidr, only_if_empty=True)
        await allocator.release_by_handle("x")
        assert await allocator.release_affinity(cidr, only_if_empty=True)
        assert await allocator.release_affinity(cidr)

        assert (await store.list(Block)).items == ()
        assert await affinities(store) == []

    play([SMALL], story)


def test_a_released_block_with_addresses_goes_with_the_last_of_them(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        await take(allocator, "x")
        await take(allocator, "y")
        cidr = (await store.list(Block)).items[0].value.cidr

        assert await allocator.release_affinity(cidr)

        (orphan,) = (await store.list(Block)).items
        assert orphan.value.affinity is None
        await allocator.release_by_handle("x")
        assert (await store.list(Block)).items != ()
        await allocator.release_by_handle("y")
        assert (await store.list(Block)).items == ()

    play([SMALL], story)


def test_empty_blocks_of_a_pool_that_turned_away_are_given_up(play: Play) -> None:
    async def story(store: Datastore) -> None:
        allocator = node(store)
        await take(allocator, "x")
        await allocator.release_by_handle("x")
        await change_pool(store, "small", node_selector="!all()")
        await store.create(IPPool("zz", IPv4Network("10.9.0.0/28"), block_size=30))

        await take(allocator, "y")

        assert [block[:5] for _, block, _ in await affinities(store)] == ["10.9."]

    play([SMALL], story)


def test_a_claim_stops_a_release_that_is_going_on(play: Play) -> None:
    async def story(store: Datastore) -> None:
        retries = Retries(sleep=no_sleep)
        claims = Claims(
            store,
            blocks=Blocks(store),
            node="node-0",
            retries=retries,
            clock_ns=lambda: 7,
            cooldown=Cooldown(DatastoreView(store), clock_ns=lambda: 7),
        )
        outcomes: list[bool] = []

        async def claim_meanwhile(call: Call) -> None:
            if (call.verb, call.kind) == ("delete", Block) and not outcomes:
                outcomes.append(await claims.claim(CIDR))
            elif (call.verb, call.kind) == ("update", BlockAffinity) and outcomes:
                # The release begins anew: what was confirmed had its block all the time.
                outcomes.append(await store.get(Block, cidr_name(CIDR)) is not None)

        releasing = node(FaultyDatastore(store, before=claim_meanwhile))
        assert await releasing.release_affinity(CIDR)
        assert outcomes == [True, True]

    play([SMALL, new_block(), affinity()], story)


@pytest.mark.parametrize("is_atomic", [True, False])
def test_a_block_of_which_an_address_is_given_while_it_is_released_stays_advertised(
    play: Play, *, is_atomic: bool
) -> None:
    async def story(store: Datastore) -> None:
        given: list[AssignedAddress | None] = []

        async def give_meanwhile(call: Call) -> None:
            is_last_write = call.verb == "write" or (call.verb, call.kind) == ("delete", Block)
            if is_last_write and not given:
                # It believed in the affinity before it began to go.
                given.append(await node(store).assign_in(CIDR, AssignRequest("y")))

        releasing = node(FaultyDatastore(store, before=give_meanwhile, is_atomic=is_atomic))
        assert not await releasing.release_affinity(CIDR, only_if_empty=True)

        assert given[0] is not None
        assert await affinities(store) == [("node-0", "10.0.0.4/30", "confirmed")]

    play([SMALL, new_block(), affinity()], story)


@pytest.mark.parametrize("state", [AffinityState.PENDING, AffinityState.PENDING_DELETION])
def test_a_block_in_use_is_taken_up_though_nobody_needs_a_block(
    play: Play, state: AffinityState
) -> None:
    in_use = arithmetic.assign(new_block(), CIDR[1], handle_id="x")

    async def story(store: Datastore) -> None:
        assert await node(store).take_up_lost() == [CIDR]

        assert await affinities(store) == [("node-0", "10.0.0.4/30", "confirmed")]
        assert await node(store).take_up_lost() == []

    play([SMALL, in_use, affinity(state)], story)


@pytest.mark.parametrize("state", [AffinityState.PENDING, AffinityState.PENDING_DELETION])
def test_an_unfinished_claim_on_a_block_that_nobody_uses_waits_for_a_request(
    play: Play, state: AffinityState
) -> None:
    async def story(store: Datastore) -> None:
        assert await node(store).take_up_lost() == []

        assert await affinities(store) == [("node-0", "10.0.0.4/30", state.value)]

    play([SMALL, new_block(), affinity(state)], story)


@pytest.mark.parametrize("is_atomic", [True, False])
def test_a_block_of_a_claim_that_died_beside_a_release_is_taken_up(
    play: Play, *, is_atomic: bool
) -> None:
    async def story(store: Datastore) -> None:
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def hold(call: Call) -> None:
            if call.kind is BlockAffinity and call.verb in {"delete", "write"}:
                reached.set()
                await go_on.wait()

        async def release_meanwhile_and_die(call: Call) -> None:
            if reached.is_set():
                raise Died
            if call.kind is Block and call.is_write:
                releasing.append(asyncio.create_task(other.release_affinity(CIDR)))
                await reached.wait()

        other = node(FaultyDatastore(store, before=hold, is_atomic=is_atomic))
        releasing: list[asyncio.Task[bool]] = []
        claiming = FaultyDatastore(store, before=release_meanwhile_and_die, is_atomic=is_atomic)
        with pytest.raises(Died):
            await take(node(claiming), "x")
        go_on.set()
        await asyncio.gather(*releasing)
        # Only without transactions the block came without the claim.
        assert len((await store.list(Block)).items) == (0 if is_atomic else 1)
        assert await affinities(store) == []

        assert await node(store).take_up_lost() == ([] if is_atomic else [CIDR])
        await take(node(store), "y")

        ((_, cidr, state),) = await affinities(store)
        (block,) = (await store.list(Block)).items
        assert (str(block.value.cidr), state) == (cidr, "confirmed")

    play([SMALL, affinity(AffinityState.PENDING)], story)


def test_a_request_that_needs_a_block_takes_up_one_without_affinity(play: Play) -> None:
    async def story(store: Datastore) -> None:
        assert await take(node(store), "x") == ["10.0.0.4"]
        assert await affinities(store) == [("node-0", "10.0.0.4/30", "confirmed")]

    play([SMALL, new_block()], story)


def test_a_corrupt_block_is_refused_and_left_alone(play: Play) -> None:
    broken = replace(new_block(), unallocated=(0, 0))

    async def story(store: Datastore) -> None:
        with pytest.raises(DatastoreUnusable, match=r"block 10\.0\.0\.4/30 is corrupt"):
            await take(node(store), "x")
        stored = await store.get(Block, cidr_name(CIDR))
        assert stored is not None
        assert stored.value == broken

    play([SMALL, broken, affinity()], story)


def test_a_view_that_lags_behind_costs_no_second_block(play: Play) -> None:
    class Stale(DatastoreView):
        async def affinities(self, node: str) -> Sequence[BlockAffinity]:
            del node
            return ()

    async def story(store: Datastore) -> None:
        await take(node(store), "x")

        await take(node(store, view=Stale(store)), "y")

        assert len(await affinities(store)) == 1

    play([SMALL], story)
