"""The engine's memory of pools and affinities: as true as the datastore, without asking it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.cni.view import WatchedView
from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore
from pycni.errors import TryAgain
from pycni.model.resources import (
    AffinityState,
    BlockAffinity,
    IPAMConfig,
    IPPool,
    IPReservation,
    Node,
    resource_name,
)

Story = Callable[[FaultyDatastore, WatchedView], Awaitable[None]]


def affinity(block: str, node: str = "node-0") -> BlockAffinity:
    return BlockAffinity(node, ip_network(block), AffinityState.CONFIRMED)


def pool(name: str, cidr: str) -> IPPool:
    return IPPool(name, ip_network(cidr))


def play(story: Story) -> None:
    async def main() -> None:
        datastore = FaultyDatastore(MemoryDatastore())
        view = WatchedView(datastore)
        task = asyncio.create_task(view.run())
        try:
            async with asyncio.timeout(10):
                await story(datastore, view)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


async def becomes(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    while await ask() != wanted:  # noqa: ASYNC110  # the view tells nobody when it has learned
        await asyncio.sleep(0.001)


async def names(view: WatchedView) -> Sequence[str]:
    return [pool.name for pool in await view.pools()]


async def blocks(view: WatchedView) -> Sequence[str]:
    return [str(one.cidr) for one in await view.affinities("node-0")]


def test_before_the_first_listing_it_asks_the_datastore() -> None:
    async def main() -> None:
        datastore = MemoryDatastore()
        await datastore.create(pool("a", "10.1.0.0/16"))
        await datastore.create(affinity("10.1.0.0/26"))
        await datastore.create(affinity("10.1.0.64/26", "node-1"))
        view = WatchedView(datastore)

        assert await names(view) == ["a"]
        assert await blocks(view) == ["10.1.0.0/26"]

    asyncio.run(main())


def test_it_follows_what_is_made_changed_and_deleted() -> None:
    async def story(datastore: FaultyDatastore, view: WatchedView) -> None:
        await datastore.create(pool("b", "10.2.0.0/16"))
        await datastore.create(pool("a", "10.1.0.0/16"))
        mine = await datastore.create(affinity("10.1.0.0/26"))
        await datastore.create(affinity("10.1.0.64/26", "node-1"))
        await becomes(lambda: names(view), ["a", "b"])
        await becomes(lambda: blocks(view), ["10.1.0.0/26"])

        await datastore.create(affinity("10.1.0.128/26"))
        await datastore.delete(BlockAffinity, resource_name(mine.value), if_revision=mine.revision)
        stored = await datastore.get(IPPool, "b")
        assert stored is not None
        await datastore.update(replace(stored.value, is_disabled=True), if_revision=stored.revision)

        await becomes(lambda: blocks(view), ["10.1.0.128/26"])

        async def disabled() -> Sequence[bool]:
            return [one.is_disabled for one in await view.pools()]

        await becomes(disabled, [False, True])

    play(story)


def test_what_it_remembers_costs_no_question() -> None:
    async def story(datastore: FaultyDatastore, view: WatchedView) -> None:
        await datastore.create(pool("a", "10.1.0.0/16"))
        await datastore.create(Node("node-1"))
        await datastore.create(affinity("10.1.0.0/26"))
        calls: list[Call] = []

        async def note(call: Call) -> None:
            calls.append(call)

        async def questions() -> int:
            before = len(calls)
            assert (await names(view), await blocks(view)) == (["a"], ["10.1.0.0/26"])
            assert await view.nodes() == {"node-1"}
            return len(calls) - before

        datastore.before = note
        await becomes(questions, 0)

    play(story)


def test_while_it_cannot_watch_it_asks_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pycni.cni.view.RETRY_S", 0.001)

    async def main() -> None:
        refused = 0

        async def refuse(call: Call) -> None:
            nonlocal refused
            if call.verb == "list" and refused < 6:
                refused += 1
                raise TryAgain("away")

        async def how_often() -> int:
            return refused

        datastore = FaultyDatastore(MemoryDatastore(), before=refuse)
        await datastore.create(pool("a", "10.1.0.0/16"))
        view = WatchedView(datastore)
        with pytest.raises(TryAgain):
            await view.pools()

        task = asyncio.create_task(view.run())
        async with asyncio.timeout(10):
            await becomes(how_often, 6)
            await becomes(lambda: names(view), ["a"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_labels_are_remembered_until_they_change() -> None:
    async def story(datastore: FaultyDatastore, view: WatchedView) -> None:
        stored = await datastore.create(Node("node-0", labels=(("rack", "a"),)))

        async def is_remembered() -> bool:
            return await view.labels("node-0") is await view.labels("node-0")

        await becomes(is_remembered, wanted=True)
        assert await view.labels("node-0") == {"rack": "a"}
        assert await view.labels("node-9") == {}

        moved = replace(stored.value, labels=())
        await datastore.update(moved, if_revision=stored.revision)
        await becomes(lambda: view.labels("node-0"), {})

    play(story)


def test_reservations_are_remembered_until_they_change() -> None:
    async def story(datastore: FaultyDatastore, view: WatchedView) -> None:
        kept = IPReservation("kept", (ip_network("10.0.0.0/30"),))
        stored = await datastore.create(kept)

        async def is_held() -> bool:
            return ip_address("10.0.0.1") in await view.reserved()

        await becomes(is_held, wanted=True)
        await datastore.delete(IPReservation, "kept", if_revision=stored.revision)
        await becomes(is_held, wanted=False)

    play(story)


def test_settings_are_remembered_until_they_change() -> None:
    async def story(datastore: FaultyDatastore, view: WatchedView) -> None:
        stored = await datastore.create(IPAMConfig(cooldown_s=60))
        await becomes(view.config, IPAMConfig(cooldown_s=60))

        await datastore.delete(IPAMConfig, "default", if_revision=stored.revision)
        await becomes(view.config, IPAMConfig())

    play(story)


def test_labels_are_asked_for_before_the_first_listing() -> None:
    async def main() -> None:
        datastore = MemoryDatastore()
        await datastore.create(Node("node-0", labels=(("rack", "a"),)))

        assert await WatchedView(datastore).labels("node-0") == {"rack": "a"}
        assert await WatchedView(datastore).labels("node-9") == {}

    asyncio.run(main())
