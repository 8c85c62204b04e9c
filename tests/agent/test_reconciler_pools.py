"""A pool that changes or goes takes its routes, tunnel and NAT along."""

from pathlib import Path

from pycni.model.resources import IPPool, TunnelMode
from tests.agent.cluster import POOL, cluster, with_mode
from tests.agent.exercise import EXERCISE, neighbours
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
