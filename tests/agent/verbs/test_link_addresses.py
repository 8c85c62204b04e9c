"""Addresses that share a subnet on a link: none that means all of it, and room for the gateway."""

from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from pycni.model.resources import IPPool
from tests.agent.cluster import NodeAgent
from tests.agent.verbs.lending import ips, lend, of_bridge
from tests.agent.verbs.stories import play, reason

ONE_BLOCK = IPPool("one", ip_network("10.0.0.0/29"), block_size=29)
TWO_BLOCKS = IPPool("two", ip_network("10.0.0.0/28"), block_size=29)
SIX = IPPool("six", ip_network("fd00::/125"), block_size=125)


async def fill(node: NodeAgent, count: int, **ipam: Any) -> list[str]:  # noqa: ANN401 - any JSON.
    """Add so many pods behind another main plugin; return their addresses in order."""
    replies = [
        await node.cni("ADD", f"pod-{number}", config=of_bridge(**ipam)) for number in range(count)
    ]
    return sorted(one["address"] for reply in replies for one in ips(reply))


def test_neither_end_of_a_block_is_given_on_a_link(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        given = await fill(node, 5, subnet="block")

        assert given == [f"10.0.0.{last}/29" for last in (1, 3, 4, 5, 6)]  # 2 is the gateway
        code, text = reason(await lend(node, subnet="block"))
        assert code == 11
        assert "(2 more in its blocks are reserved)" in text

    play(tmp_path, story, pools=(ONE_BLOCK,))


def test_neither_end_of_a_pool_is_given_on_a_link(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        given = await fill(node, 14, subnet="pool")

        assert set(given) == {f"10.0.0.{last}/28" for last in range(1, 15)}

    play(tmp_path, story, pools=(TWO_BLOCKS,))


def test_the_anycast_address_of_routers_is_not_given_on_a_link(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        given = await fill(node, 6, subnet="block", assign_ipv4=False, assign_ipv6=True)

        assert given == [f"fd00::{last}/125" for last in (1, 3, 4, 5, 6, 7)]

    play(tmp_path, story, pools=(SIX,))


def test_pods_that_stand_alone_use_every_address_of_a_block(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        given = await fill(node, 8)

        assert given == [f"10.0.0.{last}/32" for last in range(8)]

    play(tmp_path, story, pools=(ONE_BLOCK,))


def test_a_block_without_room_for_the_gateway_is_passed_over(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        alone = await fill(node, 6)  # two are left, of which one is an end
        full = {str(ip_interface(f"{one.partition('/')[0]}/29").network) for one in alone}

        (given,) = ips(await lend(node, subnet="block"))

        network = ip_interface(given["address"]).network
        assert ip_address(given["gateway"]) in network
        assert {str(network)} | full == {"10.0.0.0/29", "10.0.0.8/29"}

    play(tmp_path, story, pools=(TWO_BLOCKS,))
