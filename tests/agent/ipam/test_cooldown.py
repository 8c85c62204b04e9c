"""Released addresses rest for `ipCooldownSeconds` before anybody else gets them."""

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network, ip_address, ip_interface

import pytest

from pycni.errors import Exhausted
from pycni.ipam import block as arithmetic
from pycni.ipam.allocator import Allocator
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


def rested(play: Play, story: Story, *, cooldown_s: int = 60) -> None:
    async def main(store: Datastore) -> None:
        await store.create(IPAMConfig(cooldown_s=cooldown_s))
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
        with pytest.raises(Exhausted):
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
