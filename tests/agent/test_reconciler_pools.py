"""A pool that changes or goes takes its routes, tunnel and NAT along."""

from pathlib import Path

import pytest

from pycni.ctl.ipam_split import split_pool
from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore
from pycni.model.resources import IPPool, TunnelMode
from tests.agent.cluster import POOL, cluster, with_mode
from tests.agent.exercise import EXERCISE, exercise, neighbours
from tests.virtual_time import run


def test_a_pools_new_mode_replaces_routes_under_the_same_key(tmp_path: Path) -> None:
    async def story() -> None:
        async with neighbours(tmp_path) as (made, node):
            node.kernel.applied.clear()

            await made.put(with_mode(POOL, TunnelMode.CROSS_SUBNET))
            await made.settle()

            done = [type(op).__name__ for op in node.kernel.applied if "Route" in type(op).__name__]
            assert done == ["ReplaceRoute"]
            assert "192.168.84.128/26 via 10.0.0.2 dev eth0 proto bird" in await node.routes()

            await made.put(POOL)
            await made.settle()

            line = "192.168.84.128/26 via 10.0.0.2 dev tunl0 proto bird onlink"
            assert line in await node.routes()

    run(story())


def test_a_deleted_pool_leaves_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = made.nodes["node-1"]

            await made.remove(IPPool, "pool")
            await made.settle(2)

            assert await node.routes() == ["blackhole 192.168.84.128/26 proto bird"]
            assert node.kernel.link("tunl0") is None
            assert (await node.state()).ruleset is None

    run(story())


@pytest.mark.parametrize("is_atomic", [True, False])
def test_a_split_pool_changes_nothing_in_any_kernel(tmp_path: Path, *, is_atomic: bool) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            before = {n.name: await n.state() for n in made.nodes.values()}
            for one in made.nodes.values():
                one.kernel.applied.clear()

            async def pass_over_the_routes(call: Call) -> None:
                if call.is_write and not is_atomic:
                    await made.settle()

            store = FaultyDatastore(
                MemoryDatastore(made.store), after=pass_over_the_routes, is_atomic=is_atomic
            )
            await split_pool(store, POOL.name, 4)
            await made.settle(2)

            assert [op for n in made.nodes.values() for op in n.kernel.applied] == []
            assert {n.name: await n.state() for n in made.nodes.values()} == before
            assert node.facts.inputs.pool_history >= {POOL.cidr}
            await node.add("default/later")
            assert len([r for r in await node.routes() if "scope link" in r and "cali" in r]) == 2

    run(story())
