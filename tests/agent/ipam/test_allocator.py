"""The allocator's stories: what a request gets, and what the datastore holds afterwards."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.errors import (
    AlreadyExists,
    Conflict,
    DatastoreUnusable,
    Exhausted,
    InvalidInput,
    PycniError,
    TryAgain,
)
from pycni.ipam import block as arithmetic
from pycni.ipam.allocator import Allocator
from pycni.ipam.blocks import Blocks
from pycni.ipam.claims import Claims
from pycni.ipam.requests import AssignRequest, DatastoreView
from pycni.ipam.retries import Retries
from pycni.model.endpoints import AssignedAddress
from pycni.model.resources import (
    AffinityState,
    AssignmentMode,
    Block,
    BlockAffinity,
    Handle,
    IPAMConfig,
    IPPool,
    PoolUse,
    Resource,
    TunnelMode,
    cidr_name,
)
from pycni.ports import Datastore

if TYPE_CHECKING:
    from pycni.model.network import IPNetwork

Play = Callable[[Sequence[Resource], Callable[[Datastore], Awaitable[None]]], None]

POOL = IPPool("default", IPv4Network("192.168.0.0/16"), ipip_mode=TunnelMode.ALWAYS)
SMALL = IPPool("small", IPv4Network("10.0.0.0/28"), block_size=30)
SIX = IPPool("six", IPv6Network("fd00::/64"), block_size=126)


async def no_sleep(_: float) -> None:
    """Stand in for a pause."""


def node(datastore: Datastore, name: str = "node-0", **options: object) -> Allocator:
    return Allocator(datastore, node=name, sleep=no_sleep, **options)  # type: ignore[arg-type]


async def take(allocator: Allocator, handle: str, **fields: object) -> list[str]:
    assignment = await allocator.assign(AssignRequest(handle, **fields))  # type: ignore[arg-type]
    return [str(one.interface.ip) for one in assignment.addresses]


async def fill(allocator: Allocator, count: int) -> list[str]:
    return [(await take(allocator, f"fill-{number}"))[0] for number in range(count)]


async def affinities(datastore: Datastore) -> list[tuple[str, str, str]]:
    items = (await datastore.list(BlockAffinity)).items
    return [(one.value.node, str(one.value.cidr), one.value.state.value) for one in items]


async def check_books(datastore: Datastore) -> None:
    """Compare what handles count with what blocks record."""
    counted = {
        (stored.value.id, cidr): count
        for stored in (await datastore.list(Handle)).items
        for cidr, count in stored.value.blocks
    }
    recorded: Counter[tuple[str | None, IPNetwork]] = Counter()
    for stored in (await datastore.list(Block)).items:
        arithmetic.verify(stored.value)
        recorded.update(
            (one.attribute.handle_id, stored.value.cidr) for one in arithmetic.given(stored.value)
        )
    assert counted == recorded


# --- the three stages ---------------------------------------------------------------------------


def test_the_exercise_gets_its_addresses(play: Play) -> None:
    async def story(store: Datastore) -> None:
        tunnel = await node(store, "node-1").ensure_tunnel_address()

        assert tunnel is not None
        assert tunnel.interface == IPv4Interface("192.168.84.128/32")
        assert await take(node(store, "node-1"), "pod") == ["192.168.84.129"]
        assert await take(node(store, "node-0"), "other") == ["192.168.39.192"]
        assert await affinities(store) == [
            ("node-0", "192.168.39.192/26", "confirmed"),
            ("node-1", "192.168.84.128/26", "confirmed"),
        ]

    play([POOL], story)


def test_the_common_path_costs_three_reads_and_two_writes(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "first")
        calls: list[Call] = []

        async def note(call: Call) -> None:
            calls.append(call)

        assignment = await node(FaultyDatastore(store, before=note)).assign(AssignRequest("x"))

        assert [(call.verb, call.kind) for call in calls] == [
            ("list", IPPool),
            ("list", BlockAffinity),
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


# --- claims -------------------------------------------------------------------------------------


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
    cidr = IPv4Network("10.0.0.4/30")
    block = arithmetic.new_block(cidr, affinity="node-0", sequence_number=1)

    async def story(store: Datastore) -> None:
        assert await take(node(store), "x") == ["10.0.0.4"]
        assert await affinities(store) == [("node-0", "10.0.0.4/30", "confirmed")]

    play([SMALL, BlockAffinity("node-0", cidr, state), *([block] if has_block else [])], story)


def test_an_affinity_for_a_block_of_another_node_is_dropped(play: Play) -> None:
    cidr = IPv4Network("10.0.0.4/30")
    stale = BlockAffinity("node-0", cidr, AffinityState.PENDING)
    block = arithmetic.new_block(cidr, affinity="node-9", sequence_number=1)

    async def story(store: Datastore) -> None:
        (address,) = await take(node(store), "x")

        assert IPv4Address(address) not in cidr
        assert "10.0.0.4/30" not in [block for _, block, _ in await affinities(store)]

    play([SMALL, stale, block], story)


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
        pool = await store.get(IPPool, "small")
        assert pool is not None
        await store.update(replace(pool.value, node_selector="!all()"), if_revision=pool.revision)
        await store.create(IPPool("zz", IPv4Network("10.9.0.0/28"), block_size=30))

        await take(allocator, "y")

        assert [block[:5] for _, block, _ in await affinities(store)] == ["10.9."]

    play([SMALL], story)


# --- pools and particular addresses -------------------------------------------------------------


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


def test_both_families_come_together_or_not_at_all(play: Play) -> None:
    async def story(store: Datastore) -> None:
        four, six = await take(node(store), "x", versions=(4, 6))
        assert (":" in four, ":" in six) == (False, True)

        pool = await store.get(IPPool, "six")
        assert pool is not None
        await store.update(replace(pool.value, is_disabled=True), if_revision=pool.revision)
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


# --- releasing ----------------------------------------------------------------------------------


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
        handle = await store.get(Handle, "x")
        assert handle is not None
        await store.delete(Handle, "x", if_revision=handle.revision)

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


# --- the tunnel's address -----------------------------------------------------------------------


def test_the_tunnel_address_stays_the_same(play: Play) -> None:
    async def story(store: Datastore) -> None:
        first = await node(store).ensure_tunnel_address()

        assert await node(store).ensure_tunnel_address() == first
        handle = await store.get(Handle, "ipip-tunnel-addr-node-0")
        assert handle is not None
        assert handle.value.blocks == ((IPv4Network("192.168.39.192/26"), 1),)

    play([POOL, SMALL], story)


def test_the_tunnel_address_leaves_a_disabled_pool(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await node(store).ensure_tunnel_address()
        pool = await store.get(IPPool, "default")
        assert pool is not None
        await store.update(replace(pool.value, is_disabled=True), if_revision=pool.revision)

        assert await node(store).ensure_tunnel_address() is None
        assert (await store.list(Handle)).items == ()

    play([POOL, SMALL], story)


def test_a_tunnel_address_with_foreign_details_is_replaced(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "ipip-tunnel-addr-node-0", attributes=(("node", "other"),))

        tunnel = await node(store).ensure_tunnel_address()

        assert tunnel is not None
        (block,) = (await store.list(Block)).items
        (held,) = arithmetic.given(block.value)
        assert held.attribute.secondary == (("node", "node-0"), ("type", "ipipTunnelAddress"))

    play([POOL], story)


# --- failures at every call ---------------------------------------------------------------------


class Died(BaseException):
    """The process is gone; every later call raises it again."""


class Failing:
    """Raises once at the n-th call (for ever when the process died), before or after it."""

    def __init__(
        self,
        store: Datastore,
        *,
        at: int,
        error: type[BaseException],
        late: bool,
        is_atomic: bool = False,
    ) -> None:
        self.left = at
        self.error = error
        self.is_over = False
        name = "after" if late else "before"
        self.datastore = FaultyDatastore(store, is_atomic=is_atomic)
        setattr(self.datastore, name, self.hook)

    async def hook(self, call: Call) -> None:
        if self.is_over and self.error is Died:
            raise Died
        # A conflict is an answer to a write only.
        if self.error is Conflict and not call.is_write:
            return
        self.left -= 1
        if self.left == 0:
            self.is_over = True
            raise self.error("injected")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [TryAgain, asyncio.CancelledError, Died])
@pytest.mark.parametrize("is_first", [True, False])
def test_whatever_fails_wherever_nothing_leaks(
    play: Play, error: type[BaseException], *, late: bool, is_first: bool
) -> None:
    async def story(store: Datastore) -> None:
        if not is_first:
            await take(node(store), "resident")
        for at in range(1, 40):
            failing = Failing(store, at=at, error=error, late=late)
            try:
                await node(failing.datastore).assign(AssignRequest("x", versions=(4, 6)))
            except (PycniError, asyncio.CancelledError, Died):
                await check_books_unless(store, is_dead=error is Died)
            await node(store).release_by_handle("x")
            await check_books(store)
            # The next request is served, from one block, whatever was left half done.
            await take(node(store), "y")
            assert len({cidr for _, cidr, _ in await affinities(store) if "." in cidr}) == 1
            await node(store).release_by_handle("y")
            if is_first:
                await reset(store)
            if not failing.is_over:
                assert at > 5
                return
        pytest.fail("the request never got through")

    play([SMALL, SIX], story)


async def check_books_unless(store: Datastore, *, is_dead: bool) -> None:
    if not is_dead:
        await check_books(store)
        assert await store.get(Handle, "x") is None


async def reset(store: Datastore) -> None:
    for stored in (await store.list(BlockAffinity)).items:
        await node(store).release_affinity(stored.value.cidr)
    assert (await store.list(Block)).items == ()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [TryAgain, asyncio.CancelledError, Died])
def test_a_failed_release_can_be_repeated(
    play: Play, error: type[BaseException], *, late: bool
) -> None:
    async def story(store: Datastore) -> None:
        for at in range(1, 10):
            await take(node(store), "x", versions=(4, 6))
            failing = Failing(store, at=at, error=error, late=late)
            try:
                await node(failing.datastore).release_by_handle("x")
            except (PycniError, asyncio.CancelledError, Died):
                await node(store).release_by_handle("x")
            await check_books(store)
            assert await store.get(Handle, "x") is None
            if not failing.is_over:
                return
        pytest.fail("the release never got through")

    play([SMALL, SIX], story)


def test_conflicts_are_retried_and_counted(play: Play) -> None:
    cidr = IPv4Network("10.0.0.4/30")
    block = arithmetic.new_block(cidr, affinity="node-0", sequence_number=1)

    async def story(store: Datastore) -> None:
        # From the second write on: the first creates a handle, which has no revision to differ.
        for at in range(2, 6):
            events: list[str] = []
            failing = Failing(store, at=at, error=Conflict, late=False)
            allocator = node(failing.datastore, observe=events.append)
            await take(allocator, "x")
            await allocator.release_by_handle("x")
            await check_books(store)
            assert ("conflict" in events) == failing.is_over

    play([SMALL, block, BlockAffinity("node-0", cidr, AffinityState.CONFIRMED)], story)


def test_undoing_spares_the_same_address_of_a_faster_writer(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "first")
        fast: list[str] = []

        async def overtake(call: Call) -> None:
            if (call.verb, call.kind) == ("update", Block) and not fast:
                fast.extend(await take(node(store), "fast"))
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await take(node(FaultyDatastore(store, before=overtake)), "slow")

        (block,) = (await store.list(Block)).items
        held = arithmetic.given_to(block.value, "fast")
        assert [str(one.address) for one in held] == fast
        await check_books(store)

    play([SMALL], story)


def test_a_claim_stops_a_release_that_is_going_on(play: Play) -> None:
    cidr = IPv4Network("10.0.0.4/30")
    block = arithmetic.new_block(cidr, affinity="node-0", sequence_number=1)

    async def story(store: Datastore) -> None:
        retries = Retries(sleep=no_sleep)
        claims = Claims(
            store, blocks=Blocks(store), node="node-0", retries=retries, clock_ns=lambda: 7
        )
        outcomes: list[bool] = []

        async def claim_meanwhile(call: Call) -> None:
            if (call.verb, call.kind) == ("delete", Block) and not outcomes:
                outcomes.append(await claims.claim(cidr))
            elif (call.verb, call.kind) == ("update", BlockAffinity) and outcomes:
                # The release begins anew: what was confirmed had its block all the time.
                outcomes.append(await store.get(Block, cidr_name(cidr)) is not None)

        releasing = node(FaultyDatastore(store, before=claim_meanwhile))
        assert await releasing.release_affinity(cidr)
        assert outcomes == [True, True]

    play([SMALL, block, BlockAffinity("node-0", cidr, AffinityState.CONFIRMED)], story)


def test_endless_conflicts_end(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "first")

        async def refuse(call: Call) -> None:
            if (call.verb, call.kind) == ("update", Block):
                raise Conflict("somebody else, always")

        with pytest.raises(TryAgain, match="100 attempts met other writers"):
            await take(node(FaultyDatastore(store, before=refuse)), "x")
        assert await store.get(Handle, "x") is None
        await check_books(store)

    play([SMALL], story)


def test_a_failing_repair_is_told_beside_the_error(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "first")
        is_broken = False

        async def fail(call: Call) -> None:
            nonlocal is_broken
            is_broken = is_broken or (call.verb, call.kind) == ("update", Block)
            if is_broken:
                raise TryAgain("disk full")

        with pytest.raises(TryAgain, match="disk full") as caught:
            await take(node(FaultyDatastore(store, before=fail)), "x")

        assert "releasing by the handle repairs that" in caught.value.__notes__[0]
        await node(store).release_by_handle("x")
        await check_books(store)

    play([SMALL], story)


def test_a_corrupt_block_is_refused_and_left_alone(play: Play) -> None:
    cidr = IPv4Network("10.0.0.4/30")
    broken = replace(
        arithmetic.new_block(cidr, affinity="node-0", sequence_number=1), unallocated=(0, 0)
    )

    async def story(store: Datastore) -> None:
        with pytest.raises(DatastoreUnusable, match=r"block 10\.0\.0\.4/30 is corrupt"):
            await take(node(store), "x")
        stored = await store.get(Block, cidr_name(cidr))
        assert stored is not None
        assert stored.value == broken

    play([SMALL, broken, BlockAffinity("node-0", cidr, AffinityState.CONFIRMED)], story)


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


def test_many_at_once_from_three_nodes_get_different_addresses(play: Play) -> None:
    async def story(store: Datastore) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(take(node(store, f"n{number % 3}"), f"h{number}"))
                for number in range(16)
            ]

        assert len({task.result()[0] for task in tasks}) == 16
        await check_books(store)

    play([SMALL], story)


@pytest.mark.parametrize("count", [0, 1])
def test_a_handle_that_appears_or_disappears_meanwhile_is_met_again(play: Play, count: int) -> None:
    cidr = IPv4Network("10.0.0.4/30")

    async def story(store: Datastore) -> None:
        await take(node(store), "x")
        rounds = 0

        async def interfere(call: Call) -> None:
            nonlocal rounds
            stored = await store.get(Handle, "x")
            if (call.verb, call.kind) == ("update", Handle) and rounds < 2 and stored:
                rounds += 1
                await store.delete(Handle, "x", if_revision=stored.revision)
                if count:
                    await store.create(stored.value)

        await take(node(FaultyDatastore(store, before=interfere)), "x")

        stored = await store.get(Handle, "x")
        assert stored is not None
        assert stored.value.blocks == ((cidr, 2 if count else 1),)

    block = arithmetic.new_block(cidr, affinity="node-0", sequence_number=1)
    play([SMALL, block, BlockAffinity("node-0", cidr, AffinityState.CONFIRMED)], story)


def test_two_addresses_under_one_handle_are_released_one_by_one(play: Play) -> None:
    async def story(store: Datastore) -> None:
        first = await node(store).assign(AssignRequest("x"))
        second = await node(store).assign(AssignRequest("x"))

        for assignment in (first, second):
            await check_books(store)
            await node(store).release(assignment.addresses, handle_id="x")

        assert await store.get(Handle, "x") is None

    play([SMALL], story)


def test_real_sleep_is_the_default(play: Play) -> None:
    async def story(store: Datastore) -> None:
        refusals = iter([True, False, False, False])

        async def refuse_once(call: Call) -> None:
            if (call.verb, call.kind) == ("update", Block) and next(refusals):
                raise Conflict("once")

        faulty = FaultyDatastore(store, before=refuse_once)
        await Allocator(faulty, node="node-0").assign(AssignRequest("x"))
        await check_books(store)

    play([SMALL], story)
