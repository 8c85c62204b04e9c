"""LoadBalancer addresses while leaders die, writes are refused and changes are lost."""

import asyncio
from dataclasses import replace

from pycni.agent.balancer import GATHER_S, LOSE_S, RENEW_S, WHAT
from pycni.agent.following import LOST_S, RETRY_S
from pycni.datastore.memory import MemoryDatastore
from pycni.errors import ServerAway, TryAgain
from pycni.model.resources import BlockAffinity, resource_name
from tests.agent.balancing import POOL, SHOP, World, play


def test_a_leader_that_died_before_the_status_is_succeeded() -> None:
    async def story(world: World) -> None:
        world.cluster.is_read_only = True
        world.start("node-0", POOL)
        await asyncio.sleep(2)
        assert await world.held() == {SHOP.handle_id: 1}
        assert world.troubles[WHAT] == "Service web/shop: no write is taken"
        await world.stop()
        world.cluster.leader, world.cluster.is_read_only = "", False

        world.start("node-1", POOL)
        await asyncio.sleep(5)
        assert world.ingress() == ["198.51.100.0"]
        assert await world.held() == {SHOP.handle_id: 1}

    play(story, SHOP)


def test_a_service_that_was_changed_meanwhile_is_read_again() -> None:
    async def story(world: World) -> None:
        # A label, say: nothing is told of it.
        world.cluster.meanwhile = lambda: world.cluster.touch(SHOP)
        world.start("node-0", POOL)
        await asyncio.sleep(1)

        assert world.ingress() == ["198.51.100.0"]
        assert world.troubles[WHAT] == ""

    play(story, SHOP)


def test_a_service_that_has_gone_meanwhile_holds_nothing() -> None:
    async def story(world: World) -> None:
        world.cluster.meanwhile = lambda: world.cluster.objects.pop("web/shop")
        world.start("node-0", POOL)
        await asyncio.sleep(1)

        assert await world.held() == {}
        assert world.troubles[WHAT] == ""

    play(story, SHOP)


def test_a_service_that_is_changed_all_the_time_is_trouble() -> None:
    async def story(world: World) -> None:
        world.cluster.is_changed_always = True
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        assert "Service web/shop: somebody else changes it" in world.troubles[WHAT]

        world.cluster.is_changed_always = False
        await asyncio.sleep(RETRY_S)
        assert world.ingress() == ["198.51.100.0"]

    play(story, SHOP)


def test_nothing_is_free_for_others_while_a_status_names_it() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        world.cluster.is_read_only = True
        world.cluster.have(replace(world.cluster.objects["web/shop"], is_ours=False))
        await asyncio.sleep(1)
        assert world.ingress() == ["198.51.100.0"]
        assert await world.held() == {SHOP.handle_id: 1}
        await world.stop()
        world.cluster.leader, world.cluster.is_read_only = "", False

        world.start("node-1", POOL)
        await asyncio.sleep(1)
        assert world.ingress() == []
        assert await world.held() == {}

    play(story, SHOP)


def test_what_a_leader_had_no_time_to_take_back_the_next_one_does() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        await world.stop()
        world.cluster.leader = ""
        world.cluster.have(replace(SHOP, is_ours=False))
        world.start("node-1", POOL)
        await asyncio.sleep(1)
        assert await world.held() == {}

    play(story, SHOP)


def test_a_status_that_is_not_told_of_yet_counts_too() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        named = world.cluster.objects["web/shop"]
        told = replace(named, is_ours=False, ingress=())
        world.cluster.have(told)
        await asyncio.sleep(GATHER_S / 2)
        world.cluster.touch(replace(told, ingress=named.ingress))
        await asyncio.sleep(1)
        assert world.ingress() == []
        assert await world.held() == {}

    play(story, SHOP)


def test_a_block_without_its_affinity_is_found_by_the_next_leader() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        await world.stop()
        world.cluster.leader = ""
        datastore = MemoryDatastore(world.store)
        (stored,) = (await datastore.list(BlockAffinity)).items
        name = resource_name(stored.value)
        await datastore.delete(BlockAffinity, name, if_revision=stored.revision)

        world.start("node-1", POOL)
        await asyncio.sleep(1)
        assert world.ingress() == ["198.51.100.0"]
        assert await world.held() == {SHOP.handle_id: 1}

    play(story, SHOP)


def test_one_agent_serves_and_ends_when_another_has_the_lease() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        world.start("node-1", POOL)
        await asyncio.sleep(1)
        assert (world.cluster.leader, world.cluster.writes) == ("node-0", 1)

        world.cluster.leader = "node-9"
        await asyncio.sleep(2 * RENEW_S)
        world.cluster.have(replace(SHOP, name="web/late", uid="u2"))
        await asyncio.sleep(LOSE_S)
        assert world.ingress("web/late") == []

    play(story, SHOP)


def test_a_leader_without_its_lease_renewed_stops_and_comes_back() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        world.cluster.is_away = True
        await asyncio.sleep(3 * LOSE_S)
        assert world.troubles[WHAT] == "the API server does not answer"
        world.cluster.is_away = False
        world.cluster.have(replace(SHOP, name="web/late", uid="u2"))
        await asyncio.sleep(3 * LOSE_S)
        assert world.ingress("web/late") == ["198.51.100.1"]
        assert world.troubles[WHAT] == ""

    play(story, SHOP)


def test_lost_changes_are_listed_again() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        world.cluster.is_lost = True
        world.cluster.have(replace(SHOP, name="web/late", uid="u2"))
        await asyncio.sleep(LOST_S + 1)
        assert world.ingress("web/late") == ["198.51.100.1"]

    play(story, SHOP)


def test_where_changes_are_lost_all_the_time_listings_are_few() -> None:
    async def story(world: World) -> None:
        world.cluster.is_lost = world.cluster.is_always_lost = True
        world.start("node-0", POOL)
        await asyncio.sleep(10)
        assert 2 < world.cluster.listings <= 10 / LOST_S

    play(story, SHOP)


def test_an_event_that_is_refused_is_not_tried_again() -> None:
    late = replace(SHOP, name="web/late", uid="u2")

    async def story(world: World) -> None:
        world.cluster.refuses_events = TryAgain("the namespace is being deleted")
        world.start("node-0", POOL)
        await asyncio.sleep(600)
        assert len(world.cluster.warned) == 1
        assert world.troubles[WHAT] == ""

        world.cluster.have(late)
        await asyncio.sleep(1)
        assert world.ingress("web/late") == ["198.51.100.0"]

    play(story, replace(SHOP, fault="that is no list"))


def test_an_event_that_nobody_took_is_made_later() -> None:
    async def story(world: World) -> None:
        world.cluster.refuses_events = ServerAway("the API server does not answer")
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        assert "does not answer" in world.troubles[WHAT]

        world.cluster.refuses_events = None
        await asyncio.sleep(RETRY_S)
        assert world.troubles[WHAT] == ""
        assert len(world.cluster.warned) == 2

    play(story, replace(SHOP, fault="that is no list"))
