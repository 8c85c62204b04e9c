"""Released addresses rest for `ipCooldownSeconds` before anybody else gets them."""

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network, ip_address, ip_interface

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.errors import Exhausted, TryAgain
from pycni.ipam import block as arithmetic
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.model.endpoints import AssignedAddress
from pycni.model.resources import Block, Handle, IPAMConfig, IPPool
from pycni.ports import Datastore
from tests.agent.ipam.allocators import check_books, node, take
from tests.agent.ipam.conftest import Play

TINY = IPPool("tiny", IPv4Network("10.0.0.0/31"), block_size=31)
START = 1_700_000_000
Story = Callable[[Datastore, Allocator, "Clock"], Awaitable[None]]


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.seconds = float(START)

    def __call__(self) -> int:
        return int(self.seconds * 1e9)


def rested(
    play: Play, story: Story, *, cooldown_s: int = 60, is_strict_affinity: bool = False
) -> None:
    async def main(store: Datastore) -> None:
        config = IPAMConfig(cooldown_s=cooldown_s, is_strict_affinity=is_strict_affinity)
        await store.create(config)
        clock = Clock()
        await story(store, node(store, clock_ns=clock), clock)
        await check_books(store)

    play([TINY], main)


async def block_of(store: Datastore) -> Block:
    (stored,) = (await store.list(Block)).items
    return stored.value


def test_a_released_address_rests_as_long_as_it_should(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        assert await take(allocator, "a") == ["10.0.0.0"]
        clock.seconds += 0.5
        await allocator.release_by_handle("a", was_used=True)
        assert (await store.list(Handle)).items == ()
        assert await take(allocator, "b") == ["10.0.0.1"]

        clock.seconds += 59.9
        with pytest.raises(Exhausted, match=r"\(1 rest after their last use\)"):
            await take(allocator, "c")
        clock.seconds += 0.6
        assert await take(allocator, "c") == ["10.0.0.0"]

    rested(play, story)


def test_without_configuration_nothing_rests(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        del clock
        await take(allocator, "a")
        await allocator.release_by_handle("a", was_used=True)

        assert arithmetic.is_empty(await block_of(store))

    rested(play, story, cooldown_s=0)


def test_what_nobody_used_needs_no_rest(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        del clock
        await take(allocator, "a")
        await allocator.release_by_handle("a")

        assert arithmetic.is_empty(await block_of(store))

    rested(play, story)


def test_a_release_by_address_rests_and_repeating_it_changes_nothing(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        await take(allocator, "a")
        (given,) = arithmetic.given(await block_of(store))
        address = AssignedAddress(ip_interface(given.address), given.sequence_number)
        await allocator.release([address], handle_id="a", was_used=True)
        before = await block_of(store)
        clock.seconds += 30

        again = await allocator.release([address], handle_id="a", was_used=True)

        assert (again.released, again.refused) == ((), ())
        assert await block_of(store) == before
        assert arithmetic.given(before) == ()
        assert not arithmetic.is_empty(before)

    rested(play, story)


def test_who_names_a_resting_address_gets_it_at_once(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        del clock
        await take(allocator, "a")
        await allocator.release_by_handle("a", was_used=True)

        wanted = ip_address("10.0.0.0")
        assert await take(allocator, "b", addresses=(wanted,)) == ["10.0.0.0"]
        assert [g.attribute.handle_id for g in arithmetic.given(await block_of(store))] == ["b"]

    rested(play, story)


def test_those_that_have_rested_join_the_queue_as_they_were_released(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        del store
        for name in "ab":
            await take(allocator, name)
        await allocator.release_by_handle("b", was_used=True)
        clock.seconds += 5
        await allocator.release_by_handle("a", was_used=True)
        clock.seconds += 100

        assert await take(allocator, "c") == ["10.0.0.1"]
        assert await take(allocator, "d") == ["10.0.0.0"]

    rested(play, story)


def test_a_shorter_cooldown_counts_at_once(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        for name in "ab":
            await take(allocator, name)
        await allocator.release_by_handle("a", was_used=True)
        clock.seconds += 10
        stored = await store.get(IPAMConfig, "default")
        assert stored is not None
        await store.update(IPAMConfig(), if_revision=stored.revision)

        assert await take(allocator, "c") == ["10.0.0.0"]

    rested(play, story)


def test_a_block_whose_addresses_rest_is_kept_unless_its_owner_leaves(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        del clock
        await take(allocator, "a")
        await allocator.release_by_handle("a", was_used=True)
        cidr = (await block_of(store)).cidr

        assert not await allocator.release_affinity(cidr, only_if_empty=True)
        assert await allocator.release_affinity(cidr)
        assert (await store.list(Block)).items == ()

    rested(play, story)


def test_nothing_rests_in_a_block_without_owner(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        del clock
        await take(allocator, "a")
        await allocator.release_affinity((await block_of(store)).cidr)

        await allocator.release_by_handle("a", was_used=True)

        assert (await store.list(Block)).items == ()

    rested(play, story)


@pytest.mark.parametrize("is_named", [False, True], ids=["any", "named"])
@pytest.mark.parametrize("is_first", [False, True], ids=["later", "first"])
def test_an_address_that_rested_can_be_released_by_its_number(
    play: Play, is_named: bool, is_first: bool
) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        del store
        await take(allocator, "a")
        await take(allocator, "other")
        await allocator.release_by_handle("a", was_used=True)
        clock.seconds += 0 if is_named else 100
        wanted = (ip_address("10.0.0.0"),) if is_named else ()

        given = await allocator.assign(AssignRequest("b", addresses=wanted, is_first=is_first))

        assert str(given.addresses[0].interface.ip) == "10.0.0.0"
        outcome = await allocator.release(given.addresses, handle_id="b")
        assert (len(outcome.released), outcome.refused) == (1, ())

    rested(play, story)


@pytest.mark.parametrize("verb", ["update", "write"])
def test_an_answer_that_is_lost_leaves_no_address_that_rested_behind(play: Play, verb: str) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        await take(allocator, "a")
        await allocator.release_by_handle("a", was_used=True)
        clock.seconds += 100
        lost: list[Call] = []

        async def lose(call: Call) -> None:
            if call.verb == verb and not lost:
                lost.append(call)
                raise TryAgain("the answer is lost")

        faulty = FaultyDatastore(store, after=lose, is_atomic=verb == "write")
        other = node(faulty, clock_ns=clock)
        wanted = (ip_address("10.0.0.0"),) if verb == "update" else ()
        with pytest.raises(TryAgain):
            await take(other, "b", addresses=wanted, is_first=verb == "write")

        assert lost
        assert arithmetic.given(await block_of(store)) == ()

    rested(play, story)


def test_a_clock_that_was_ahead_keeps_no_address_for_ever(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        del store
        for name in "ab":
            await take(allocator, name)
        clock.seconds += 10 * 365 * 86400
        await allocator.release_by_handle("a", was_used=True)
        clock.seconds = START + 60

        assert await take(allocator, "c") == ["10.0.0.0"]

    rested(play, story)


def test_a_block_that_has_rested_is_empty(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        await take(allocator, "a")
        await allocator.release_by_handle("a", was_used=True)
        clock.seconds += 100

        assert await allocator.release_affinity((await block_of(store)).cidr, only_if_empty=True)
        assert (await store.list(Block)).items == ()

    rested(play, story)


def test_what_rests_beside_an_address_goes_when_the_owner_leaves(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        del clock
        for name in "ab":
            await take(allocator, name)
        await allocator.release_by_handle("a", was_used=True)

        await allocator.release_affinity((await block_of(store)).cidr)
        await allocator.release_by_handle("b", was_used=True)

        assert (await store.list(Block)).items == ()

    rested(play, story)


def test_a_node_looks_at_the_truth_before_it_goes_beyond_its_blocks(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        for name in "ab":
            await take(allocator, name)
        await allocator.release_by_handle("a", was_used=True)
        # Another process of this node: what it does is not remembered here.
        await node(store, clock_ns=clock).release_by_handle("b")

        assert await take(allocator, "c") == ["10.0.0.1"]

    rested(play, story, is_strict_affinity=True)


def test_what_has_rested_in_anothers_block_can_be_borrowed(play: Play) -> None:
    async def story(store: Datastore, allocator: Allocator, clock: Clock) -> None:
        for name in "ab":
            await take(allocator, name)
        await allocator.release_by_handle("a", was_used=True)
        stranger = node(store, "node-1", clock_ns=clock)
        with pytest.raises(Exhausted):
            await take(stranger, "c")
        clock.seconds += 100

        assert await take(stranger, "c") == ["10.0.0.0"]

    rested(play, story)
