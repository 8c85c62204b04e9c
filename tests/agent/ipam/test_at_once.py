"""Many requests at once, on blocks that nobody or somebody owns: who has what is never in doubt."""

import asyncio
from ipaddress import IPv4Address, IPv4Network

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.model.resources import AffinityState, Block, BlockAffinity
from pycni.ports import Datastore
from tests.agent.death import Died
from tests.agent.ipam.allocators import (
    CIDR,
    SMALL,
    affinities,
    affinity,
    check_books,
    held_by,
    new_block,
    node,
    take,
)
from tests.agent.ipam.conftest import Play


def yielding(store: Datastore, *, is_atomic: bool = True) -> Datastore:
    """Return a datastore before each call of which everybody else has a turn."""

    async def let_others(_: Call) -> None:
        await asyncio.sleep(0)

    return FaultyDatastore(store, before=let_others, is_atomic=is_atomic)


def patient(store: Datastore, name: str = "node-0") -> Allocator:
    """Return an allocator that waits before it repeats, or all would do so in step for ever."""
    return Allocator(store, node=name)


async def owners(store: Datastore) -> dict[str, str | None]:
    return {str(s.value.cidr): s.value.affinity for s in (await store.list(Block)).items}


@pytest.mark.parametrize("is_atomic", [True, False])
def test_twice_as_many_nodes_as_blocks_each_get_an_address_and_each_block_one_owner(
    play: Play, *, is_atomic: bool
) -> None:
    async def story(store: Datastore) -> None:
        shared = yielding(store, is_atomic=is_atomic)
        given = await asyncio.gather(
            *(take(patient(shared, f"n{number}"), f"h{number}") for number in range(8))
        )

        assert len({address for (address,) in given}) == 8
        found = await affinities(store)
        assert [state for _, _, state in found] == ["confirmed"] * 4
        assert {cidr: owner for owner, cidr, _ in found} == await owners(store)
        assert len({owner for owner, _, _ in found}) == 4
        await check_books(store)

    play([SMALL], story)


@pytest.mark.parametrize("is_atomic", [True, False])
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("is_one_process", [True, False], ids=["one process", "several"])
def test_the_first_requests_of_a_node_at_once_share_one_block(
    play: Play, *, is_atomic: bool, is_first: bool, is_one_process: bool
) -> None:
    async def story(store: Datastore) -> None:
        shared = yielding(store, is_atomic=is_atomic)
        same = patient(shared)
        allocators = [same if is_one_process else patient(shared) for _ in range(4)]

        given = await asyncio.gather(
            *(take(one, f"h{at}", is_first=is_first) for at, one in enumerate(allocators))
        )

        block = IPv4Network("10.0.0.12/30")
        assert sorted(IPv4Address(address) for (address,) in given) == list(block)
        assert await affinities(store) == [("node-0", str(block), "confirmed")]
        assert await owners(store) == {str(block): "node-0"}
        await check_books(store)

    play([SMALL], story)


@pytest.mark.parametrize("is_atomic", [True, False])
def test_claims_and_then_releases_of_the_same_blocks_at_once_leave_nothing(
    play: Play, *, is_atomic: bool
) -> None:
    async def story(store: Datastore) -> None:
        shared = yielding(store, is_atomic=is_atomic)
        wanted = [IPv4Address("10.0.0.0"), IPv4Address("10.0.0.4"), IPv4Address("10.0.0.8")]
        # Each of the three is wanted by three of the node's processes at once.
        handles = [f"h{at}-{turn}" for turn in range(3) for at in range(3)]
        await asyncio.gather(
            *(
                take(patient(shared), handle, addresses=(wanted[number % 3] + number // 3,))
                for number, handle in enumerate(handles)
            )
        )
        assert set((await owners(store)).values()) == {"node-0"}
        assert [state for _, _, state in await affinities(store)] == ["confirmed"] * 3
        for handle in handles:
            await node(store).release_by_handle(handle)

        blocks = [IPv4Network((address, 30)) for address in wanted]
        gone = await asyncio.gather(
            *(
                patient(shared).release_affinity(b, only_if_empty=True)
                for b in blocks
                for _ in "123"
            )
        )

        assert gone == [True] * 9
        assert await affinities(store) == []
        assert (await store.list(Block)).items == ()

    play([SMALL], story)


@pytest.mark.parametrize("is_atomic", [True, False])
def test_a_release_in_the_middle_of_a_claim_leaves_no_confirmed_claim_without_block(
    play: Play, *, is_atomic: bool
) -> None:
    async def story(store: Datastore) -> None:
        released: list[bool] = []

        async def release_meanwhile(call: Call) -> None:
            if call.kind is Block and call.is_write and not released:
                # Announced, and neither made nor confirmed.
                assert [state for _, _, state in await affinities(store)] == ["pending"]
                released.append(await node(store).release_affinity(CIDR))
                assert await affinities(store) == []

        claiming = FaultyDatastore(store, before=release_meanwhile, is_atomic=is_atomic)
        wanted = (CIDR[1],)
        assert await take(node(claiming), "x", addresses=wanted) == [str(CIDR[1])]

        # The claim noticed, and began anew.
        assert released == [True]
        assert await affinities(store) == [("node-0", str(CIDR), "confirmed")]
        assert await owners(store) == {str(CIDR): "node-0"}
        await check_books(store)

    play([SMALL], story)


@pytest.mark.parametrize("is_atomic", [True, False])
@pytest.mark.parametrize("at", ["before", "after"])
def test_an_empty_block_of_which_an_address_is_given_while_it_is_given_up_stays_confirmed(
    play: Play, at: str, *, is_atomic: bool
) -> None:
    async def story(store: Datastore) -> None:
        given: list[str] = []
        giving = node(store)
        await take(giving, "warm")
        await giving.release_by_handle("warm")

        async def give_meanwhile(call: Call) -> None:
            # Around the announcement: who has looked at the affinities before it, still gives.
            if (call.verb, call.kind) == ("update", BlockAffinity) and not given:
                request = AssignRequest("x")
                assignment = await giving.assign_in(CIDR, request)
                assert assignment is not None
                given.append(str(assignment.interface.ip))

        faulty = FaultyDatastore(store, is_atomic=is_atomic)
        setattr(faulty, at, give_meanwhile)

        assert not await node(faulty).release_affinity(CIDR, only_if_empty=True)

        assert await held_by(store, "x") == given != []
        # Or its pod would be without a route on every other node.
        assert await affinities(store) == [("node-0", str(CIDR), "confirmed")]
        await check_books(store)

    play([SMALL, new_block(), affinity()], story)


@pytest.mark.parametrize("is_atomic", [True, False])
def test_a_block_that_is_used_and_whose_release_died_is_taken_up(
    play: Play, *, is_atomic: bool
) -> None:
    async def story(store: Datastore) -> None:
        async def give_and_die(call: Call) -> None:
            if (call.verb, call.kind) == ("update", BlockAffinity):
                assert await node(store).assign_in(CIDR, AssignRequest("x")) is not None
                raise Died

        faulty = FaultyDatastore(store, after=give_and_die, is_atomic=is_atomic)
        with pytest.raises(Died):
            await node(faulty).release_affinity(CIDR, only_if_empty=True)
        assert await affinities(store) == [("node-0", str(CIDR), "pendingDeletion")]

        assert await node(store).take_up_lost() == [CIDR]

        assert await affinities(store) == [("node-0", str(CIDR), "confirmed")]
        assert await node(store).take_up_lost() == []
        # One that nobody uses is left to whoever began.
        await node(store).release_by_handle("x")
        await set_state(store, AffinityState.PENDING_DELETION)
        assert await node(store).take_up_lost() == []

    play([SMALL, new_block(), affinity()], story)


async def set_state(store: Datastore, state: AffinityState) -> None:
    (stored,) = (await store.list(BlockAffinity)).items
    await store.update(affinity(state), if_revision=stored.revision)
