"""Whatever somebody breaks on a node is as it was a second later."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pycni.model.network import Address, SetLink
from pycni.model.resources import TunnelMode
from tests.agent.breakages import BREAKAGES
from tests.agent.cluster import NodeAgent
from tests.agent.exercise import NODE_0, exercise, neighbours
from tests.virtual_time import run


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda b: b.__name__)
@pytest.mark.parametrize("is_told", [True, False], ids=["told", "events-lost"])
def test_a_breakage_heals_within_a_second(
    tmp_path: Path, breakage: Callable[[NodeAgent], None], *, is_told: bool
) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            before = await node.kernel.snapshot(list(_want(node)))

            breakage(node)
            if not is_told:
                node.kernel.lose_events()
            await made.settle()

            after = await node.kernel.snapshot(list(_want(node)))
            assert await node.ip_route() == NODE_0
            assert after.sysctls == before.sysctls
            assert after.addresses == before.addresses
            assert after.ruleset == before.ruleset
            assert {n: (i.is_up, i.mtu) for n, i in after.links.items()} == {
                n: (i.is_up, i.mtu) for n, i in before.links.items()
            }

    run(story())


def _want(node: NodeAgent) -> dict[str, str]:
    assert node.reconciler is not None
    return node.reconciler.want.sysctls


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda b: b.__name__)
def test_a_breakage_while_the_agent_is_away_heals_at_its_start(
    tmp_path: Path, breakage: Callable[[NodeAgent], None]
) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await node.stop()

            breakage(node)
            node.start()
            await made.settle()

            assert await node.ip_route() == NODE_0

    run(story())


def test_an_underlay_route_returns_with_its_link(tmp_path: Path) -> None:
    async def story() -> None:
        async with neighbours(tmp_path, mode=TunnelMode.NEVER) as (made, node):
            before = await node.routes()

            node.kernel.change_link("eth0", is_up=False)
            await made.settle(300)
            node.kernel.change_link("eth0", is_up=True)
            await made.settle()

            assert before == ["192.168.84.128/26 via 10.0.0.2 dev eth0 proto bird"]
            assert await node.routes() == before

    run(story())


def test_a_renewed_underlay_address_brings_learned_routes_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with neighbours(tmp_path, mode=TunnelMode.NEVER) as (made, node):
            node.kernel.delete_address(Address("eth0", node.address))
            await made.settle(5)
            node.kernel.add_address(Address("eth0", node.address))
            await made.settle()

            assert await node.routes() == ["192.168.84.128/26 via 10.0.0.2 dev eth0 proto bird"]

    run(story())


def test_a_tunnel_survives_the_loss_of_the_underlay_address(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            index = node.kernel.link("tunl0")

            node.kernel.delete_address(Address("eth0", node.address))
            await made.settle(5)

            assert node.kernel.link("tunl0") == index

    run(story())


def test_the_tunnel_follows_the_mtu_of_the_underlay(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            node.kernel.change_link("eth0", mtu=9000)
            await made.settle()

            tunnel = node.kernel.link("tunl0")
            assert tunnel is not None
            assert tunnel.mtu == 8980

    run(story())


def test_repairs_are_no_link_operations_when_links_are_fine(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            node.kernel.applied.clear()

            await made.settle(600)

            assert [op for op in node.kernel.applied if isinstance(op, SetLink)] == []
            assert node.kernel.applied == []

    run(story())
