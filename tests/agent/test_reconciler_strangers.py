"""What is a stranger's stays, even where it stands in our way."""

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path

from pycni.model.network import Address, NextHop, Route, RouteKey
from tests.agent.breakages import delete_tunnel, flush_bird, route
from tests.agent.exercise import NODE_0, VETH, exercise
from tests.virtual_time import run


def test_foreign_routes_stay_whatever_happens(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            foreign = [
                route("172.16.0.0/16", dev="eth0", via="10.10.0.1"),
                route("172.17.0.0/16", dev="eth0", via="10.10.0.1", protocol=12),
                route("192.168.200.0/26", dev="eth0", via="10.10.0.1"),
                replace(
                    route("192.168.39.0/26", dev="eth0", protocol=12),
                    key=RouteKey(ip_network("192.168.39.0/26"), table=100),
                ),
            ]
            for one in foreign:
                node.kernel.create_route(one)

            flush_bird(node)
            node.kernel.create_route(foreign[1])
            node.kernel.create_route(foreign[3])
            delete_tunnel(node)
            await made.settle()
            node.post_doubt()
            await made.settle(130)

            assert [r for r in foreign if r in node.kernel.routes()] == foreign

    run(story())


def test_the_kernels_own_link_local_routes_stay(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            key = RouteKey(ip_network("fe80::/64"), priority=256)
            own = Route(key, next_hops=frozenset({NextHop(VETH)}), protocol=2)

            node.kernel.append_route(own)
            await made.settle()
            node.kernel.lose_events()
            await made.settle()

            assert own in node.kernel.routes()

    run(story())


def test_a_strangers_route_under_our_key_is_reported_and_not_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            ours = next(r for r in node.kernel.routes() if str(r.key.dst) == "192.168.247.0/26")
            node.kernel.delete_route(ours)
            node.kernel.create_route(route("192.168.247.0/26", dev="eth0", via="10.10.0.1"))
            await made.settle()
            assert node.reconciler is not None
            conflicts = list(node.reconciler.health.conflicts.values())

            stranger = next(r for r in node.kernel.routes() if str(r.key.dst) == "192.168.247.0/26")
            node.kernel.delete_route(stranger)
            await made.settle()

            assert [c.wanted for c in conflicts] == [ours]
            assert stranger.protocol == 4
            assert node.reconciler.health.conflicts == {}
            assert await node.ip_route() == NODE_0

    run(story())


def test_a_block_is_another_plugins_while_its_bridge_has_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            blackhole = "blackhole 192.168.39.192/26 proto bird"
            bridge = Address("br0", ip_interface("192.168.39.250/26"))
            assert blackhole in await node.ip_route()

            node.kernel.add_link("br0")
            node.kernel.add_address(bridge)
            await made.settle()
            assert blackhole not in await node.ip_route()
            assert [line for line in await node.ip_route() if "br0 proto kernel" in line]

            node.kernel.delete_address(bridge)
            await made.settle()
            assert blackhole in await node.ip_route()

    run(story())
