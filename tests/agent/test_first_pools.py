"""The first pools of a cluster: made once, by whoever is first, and never against an operator."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from pycni.agent.first_pools import NO_POOL, FirstPools
from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore, MemoryStore
from pycni.errors import InvalidInput, TryAgain
from pycni.model.network import IPNetwork
from pycni.model.resources import IPPool, Node, PoolUse, TunnelMode
from pycni.model.schema_yaml import parse_manifests
from pycni.ports import Datastore
from tests.virtual_time import run
from tests.waiting import until

FOUR = IPPool(
    "default-ipv4-ippool",
    ip_network("192.168.0.0/16"),
    ipip_mode=TunnelMode.ALWAYS,
    nat_outgoing=True,
)
SIX = IPPool("default-ipv6-ippool", ip_network("fd00:192::/48"), block_size=122, nat_outgoing=True)
TEN = replace(FOUR, cidr=ip_network("10.0.0.0/8"))
BOTH = (FOUR.cidr, SIX.cidr)
BALANCED = IPPool(
    "balanced", ip_network("198.51.100.0/24"), allowed_uses=frozenset({PoolUse.LOAD_BALANCER})
)


@dataclass
class Cluster:
    """A cluster's objects, its kubeadm's word, and what its agents say."""

    kubeadm: Sequence[IPNetwork] | Exception = ()
    stated: Sequence[IPNetwork] = ()
    store: MemoryStore = field(default_factory=MemoryStore)
    said: list[str] = field(default_factory=list)

    def door(self) -> MemoryDatastore:
        return MemoryDatastore(self.store)

    def agent(self, datastore: Datastore | None = None) -> FirstPools:
        return FirstPools(
            datastore or self.door(),
            stated=self.stated,
            pod_subnets=self.pod_subnets,
            report=lambda _what, why: self.said.append(why),
        )

    async def pod_subnets(self) -> Sequence[IPNetwork]:
        if isinstance(self.kubeadm, Exception):
            raise self.kubeadm
        return self.kubeadm

    async def pools(self) -> list[IPPool]:
        return [stored.value for stored in (await self.door().list(IPPool)).items]


@pytest.mark.parametrize(
    ("kubeadm", "stated", "existing", "made"),
    [
        ((FOUR.cidr,), (), [], [FOUR]),
        (BOTH, (), [], [FOUR, SIX]),
        (BOTH, (), [FOUR], [FOUR, SIX]),
        (BOTH, (), [replace(FOUR, name="blue", is_disabled=True)], [SIX]),
        (BOTH, (), [SIX], [FOUR, SIX]),
        (BOTH, (), [BALANCED], [FOUR, SIX]),
        (
            BOTH,
            (ip_network("10.0.0.0/8"),),
            [],
            [replace(FOUR, cidr=ip_network("10.0.0.0/8")), SIX],
        ),
        (TryAgain("denied"), BOTH, [], [FOUR, SIX]),
        (TryAgain("denied"), (FOUR.cidr,), [], [FOUR]),
        (TryAgain("denied"), (), [FOUR], [FOUR]),
        ((), (), [SIX], [SIX]),
    ],
)
def test_each_ip_version_gets_a_pool_unless_it_has_one(
    kubeadm: Sequence[IPNetwork] | Exception,
    stated: Sequence[IPNetwork],
    existing: list[IPPool],
    made: list[IPPool],
) -> None:
    async def story() -> None:
        cluster = Cluster(kubeadm, stated)
        for pool in existing:
            await cluster.door().create(pool)

        await cluster.agent().run()

        assert set(await cluster.pools()) == {*existing, *made}
        assert cluster.said == [""]

    run(story())


def test_nodes_that_start_at_once_make_one() -> None:
    async def story() -> None:
        cluster = Cluster(BOTH)
        turn = asyncio.Barrier(3)

        async def wait_for_others(call: Call) -> None:
            if call.verb == "create":
                await turn.wait()

        doors = [FaultyDatastore(cluster.door(), before=wait_for_others) for _ in range(3)]
        await asyncio.gather(*(cluster.agent(door).run() for door in doors))

        assert await cluster.pools() == [FOUR, SIX]
        assert cluster.said == [""] * 3

    run(story())


def test_without_any_word_the_command_that_makes_one_is_told_until_there_is_one() -> None:
    async def story() -> None:
        cluster = Cluster()
        running = asyncio.create_task(cluster.agent().run())
        await until(lambda: cluster.said)
        assert cluster.said == [NO_POOL]

        _, quoted = NO_POOL.split(" by  echo '", 1)
        (manifest,) = parse_manifests(quoted.split("'")[0], source="the command")
        assert isinstance(manifest.value, IPPool)
        await cluster.door().create(manifest.value)
        await running

        assert cluster.said == [NO_POOL, ""]
        assert await cluster.pools() == [FOUR]

    run(story())


def test_once_there_was_a_pool_an_operator_may_delete_it() -> None:
    async def story() -> None:
        cluster = Cluster((FOUR.cidr,))
        await cluster.agent().run()
        (stored,) = (await cluster.door().list(IPPool)).items

        await cluster.door().delete(IPPool, FOUR.name, if_revision=stored.revision)
        await asyncio.sleep(3600)

        assert await cluster.pools() == []

    run(story())


@pytest.mark.parametrize(
    "node",
    [
        Node("node-1", ipv4=ip_interface("192.168.7.1/24")),
        Node("node-1", internal_ips=(ip_address("192.168.7.1"),)),
    ],
)
def test_subnet_in_which_nodes_stand_is_refused(node: Node) -> None:
    async def story() -> None:
        cluster = Cluster((FOUR.cidr,))
        await cluster.door().create(node)

        with pytest.raises(
            InvalidInput, match=r"192\.168\.0\.0/16 overlaps the subnet 192\.168\.7"
        ):
            await cluster.agent().once()

        assert await cluster.pools() == []

    run(story())


def test_what_kubeadm_says_wrong_is_told_and_asked_for_again() -> None:
    async def story() -> None:
        cluster = Cluster(InvalidInput("podSubnet 'pods'"))
        running = asyncio.create_task(cluster.agent().run())
        await until(lambda: len(cluster.said) == 2)
        cluster.kubeadm = (FOUR.cidr,)
        await running

        assert cluster.said == ["podSubnet 'pods'", "podSubnet 'pods'", ""]

    run(story())
