"""LoadBalancer addresses: given, written back, taken back."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address, ip_network

from pycni.datastore.memory import MemoryDatastore
from pycni.model.resources import Block, BlockAffinity, IPAMConfig, IPPool, PoolUse
from tests.agent.balancing import POOL, SHOP, World, play


def test_a_service_gets_an_address_and_its_status_says_so() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        assert world.ingress() == ["198.51.100.0"]

        other = replace(SHOP, name="web/other", uid="u2")
        world.cluster.have(other, replace(SHOP, name="web/alien", is_ours=False))
        await asyncio.sleep(1)
        assert world.ingress("web/other") == ["198.51.100.1"]
        assert world.ingress("web/alien") == []
        assert await world.held() == {SHOP.handle_id: 1, other.handle_id: 1}
        assert world.cluster.writes == 2

    play(story, SHOP)


def test_an_address_is_taken_back_with_its_service_or_its_type() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)

        world.cluster.have(replace(world.cluster.objects["web/shop"], is_ours=False))
        await asyncio.sleep(1)
        assert world.ingress() == []
        assert await world.held() == {}

        world.cluster.have(SHOP)
        await asyncio.sleep(1)
        assert await world.held() == {SHOP.handle_id: 1}
        world.cluster.drop("web/shop")
        await asyncio.sleep(1)
        assert await world.held() == {}

    play(story, SHOP)


def test_an_address_of_a_service_that_is_not_listed_yet_is_not_taken_back() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        await world.stop()

        world.cluster.behind.add("web/shop")
        world.start("node-0", POOL)
        await asyncio.sleep(1)

        assert await world.held() == {SHOP.handle_id: 1}

    play(story, SHOP)


def test_a_service_that_is_made_again_gets_an_address_of_its_own() -> None:
    again = replace(SHOP, uid="u9")

    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        world.cluster.have(again)
        await asyncio.sleep(1)
        assert await world.held() == {again.handle_id: 1}

    play(story, SHOP)


def test_a_wish_that_can_not_be_fulfilled_takes_nothing_away() -> None:
    other = replace(SHOP, name="web/other", uid="u2")

    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        assert (world.ingress("web/other"), world.ingress()) == (["198.51.100.0"], ["198.51.100.1"])

        asks = replace(world.cluster.objects["web/shop"], addresses=(ip_address("198.51.100.0"),))
        world.cluster.have(asks)
        await asyncio.sleep(1)
        assert world.ingress() == ["198.51.100.1"]
        assert "cannot assign 198.51.100.0" in world.cluster.warned[0]
        assert await world.held() == {SHOP.handle_id: 1, other.handle_id: 1}

        world.cluster.drop("web/other")
        await asyncio.sleep(1)
        assert world.ingress() == ["198.51.100.0"]
        assert await world.held() == {SHOP.handle_id: 1}

    play(story, SHOP, other)


def test_where_no_pool_is_for_it_nobody_stands_for_election() -> None:
    async def story(world: World) -> None:
        balancer = world.start("node-0")
        await asyncio.sleep(60)
        assert world.cluster.leader == ""
        leaving = world.inputs("node-0", POOL)
        leaving.is_leaving = True
        balancer.look(leaving)
        await asyncio.sleep(60)
        assert world.cluster.leader == ""

    play(story, SHOP)


def test_what_nobody_can_be_given_is_told_once_and_given_when_it_can_be() -> None:
    services = [replace(SHOP, name=f"web/s{n}", uid=f"u{n}") for n in range(5)]

    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(300)
        (event,) = world.cluster.warned
        assert event.startswith("web/s4 NoLoadBalancerAddress: ")
        assert world.ingress("web/s4") == []

        world.cluster.drop("web/s0")
        await asyncio.sleep(1)
        assert world.ingress("web/s4") == ["198.51.100.0"]
        assert len(world.cluster.warned) == 1

    play(story, *services)


def test_who_requires_both_ip_versions_gets_both_or_none() -> None:
    both = replace(SHOP, versions=(4, 6), requires_all=True)
    six = IPPool(
        "six",
        ip_network("fd00:51::/120"),
        block_size=122,
        allowed_uses=frozenset({PoolUse.LOAD_BALANCER}),
    )

    async def story(world: World) -> None:
        balancer = world.start("node-0", POOL)
        await asyncio.sleep(60)
        assert world.ingress() == []
        assert await world.held() == {}
        (event,) = world.cluster.warned
        assert "IPv6" in event

        await MemoryDatastore(world.store).create(six)
        balancer.look(world.inputs("node-0", POOL, six))
        await asyncio.sleep(60)
        assert world.ingress() == ["198.51.100.1", "fd00:51::"]
        assert await world.held() == {both.handle_id: 2}

    play(story, both)


def test_a_mistake_about_an_ip_version_that_it_does_not_have_keeps_it_from_nothing() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        assert world.ingress() == ["198.51.100.0"]
        assert world.cluster.warned == []

    play(story, replace(SHOP, ipv6_pools=("typo",)))


def test_a_pool_that_is_named_and_goes_takes_its_addresses_along() -> None:
    async def story(world: World) -> None:
        balancer = world.start("node-0", POOL)
        await asyncio.sleep(1)
        assert world.ingress() == ["198.51.100.0"]
        datastore = MemoryDatastore(world.store)
        stored = await datastore.get(IPPool, POOL.name)
        assert stored is not None
        await datastore.delete(IPPool, POOL.name, if_revision=stored.revision)
        balancer.look(world.inputs("node-0"))
        await asyncio.sleep(1)

        assert world.ingress() == []
        assert await world.held() == {}
        (event,) = world.cluster.warned
        assert "cannot assign from pool balanced: it does not exist" in event

    play(story, replace(SHOP, ipv4_pools=("balanced",)))


def test_the_limit_of_blocks_is_told() -> None:
    services = [replace(SHOP, name=f"web/s{n}", uid=f"u{n}") for n in range(3)]
    narrow = replace(POOL, block_size=32)

    async def story(world: World) -> None:
        datastore = MemoryDatastore(world.store)
        stored = await datastore.get(IPPool, POOL.name)
        assert stored is not None
        await datastore.update(narrow, if_revision=stored.revision)
        await datastore.create(IPAMConfig(max_blocks_per_host=2))
        world.start("node-0", narrow)
        await asyncio.sleep(1)

        assert len(await world.held()) == 2
        (event,) = world.cluster.warned
        assert "owns 2 blocks, the limit is 2 (maxBlocksPerHost of IPAMConfiguration)" in event

    play(story, *services)


def test_no_blocks_of_nodes_are_read_for_a_service() -> None:
    async def story(world: World) -> None:
        world.start("node-0", POOL)
        await asyncio.sleep(1)
        world.listed.clear()
        world.cluster.have(replace(SHOP, name="web/late", uid="u2"))
        await asyncio.sleep(1)
        assert world.ingress("web/late") == ["198.51.100.1"]
        assert Block not in world.listed

    play(story, SHOP)


def test_a_pool_that_goes_takes_its_addresses_along() -> None:
    async def story(world: World) -> None:
        balancer = world.start("node-0", POOL)
        await asyncio.sleep(1)
        datastore = MemoryDatastore(world.store)
        stored = await datastore.get(IPPool, POOL.name)
        assert stored is not None
        await datastore.delete(IPPool, POOL.name, if_revision=stored.revision)

        inputs = world.inputs("node-0")
        (affinity,) = [one.value for one in (await datastore.list(BlockAffinity)).items]
        inputs.affinities[affinity.cidr] = affinity
        balancer.look(inputs)
        await asyncio.sleep(1)

        assert world.ingress() == []
        (event,) = world.cluster.warned
        assert "no enabled pool serves LoadBalancer addresses" in event
        # Nor are there blocks, for which it would lead for ever.
        assert await world.held() == {}
        assert (await datastore.list(Block)).items == ()
        assert (await datastore.list(BlockAffinity)).items == ()

    play(story, SHOP)
