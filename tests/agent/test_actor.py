"""What an engine has in hand is not mended: its lock and its record decide."""

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

from pycni.agent import actor
from pycni.model.endpoints import GATEWAY_V6, EndpointKey, EndpointState
from pycni.model.network import Address, SetLink
from pycni.model.resources import IPPool
from pycni.plan.podsysctls import interface_sysctl
from tests.agent.cluster import POOL, Cluster, NodeAgent, cluster
from tests.virtual_time import run

NODES = ("10.10.7.20/20",)


async def pod_of(made: Cluster) -> tuple[NodeAgent, EndpointKey, str]:
    """Add a pod; return its node, key and host interface."""
    node = made.nodes["node-0"]
    await node.add("default/web")
    await made.settle()
    (record,) = node.endpoints.list()
    return node, record.key, record.host_veth


async def restart_unwatching(made: Cluster, node: NodeAgent) -> None:
    """Restart the agent so that no watch tells it of the record."""
    await node.stop()
    node.start(watches_records=False)
    await made.settle()


def set_up_by_us(node: NodeAgent, name: str) -> int:
    return sum(isinstance(op, SetLink) and op.name == name for op in node.kernel.applied)


def test_an_interface_whose_endpoint_is_locked_is_left_alone_until_the_lock_is_free(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with cluster(tmp_path, NODES) as made:
            node, key, name = await pod_of(made)
            async with node.endpoints.lock(key, timeout_s=0):
                node.kernel.change_link(name, is_up=False)
                await made.settle()
                assert set_up_by_us(node, name) == 0

            await made.settle(2 * actor.LOCKED_RETRY_S)

            link = node.kernel.link(name)
            assert link is not None
            assert link.is_up

    run(story())


def test_an_interface_being_deleted_is_left_alone_though_nobody_told_of_the_record(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with cluster(tmp_path, NODES) as made:
            node, key, name = await pod_of(made)
            record = node.endpoints.get(key)
            assert record is not None
            await restart_unwatching(made, node)
            node.endpoints.put(replace(record, state=EndpointState.INTENT))
            node.kernel.change_link(name, is_up=False)
            await made.settle()

            assert set_up_by_us(node, name) == 0
            assert node.facts.inputs.endpoints[key].state is EndpointState.INTENT

    run(story())


def test_a_pod_route_is_not_made_again_for_an_address_that_the_record_has_lost(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with cluster(tmp_path, NODES) as made:
            node, key, name = await pod_of(made)
            record = node.endpoints.get(key)
            assert record is not None
            await restart_unwatching(made, node)
            node.endpoints.put(replace(record, addresses=()))
            node.kernel.flush_routes(protocol=3)
            await made.settle()

            assert not [line for line in await node.routes() if name in line]

    run(story())


def test_a_damaged_record_leaves_its_own_interface_only(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, NODES) as made:
            node, key, name = await pod_of(made)
            await restart_unwatching(made, node)
            path = node.endpoints.directory / node.endpoints.file_name(key)
            path.write_text("{")
            node.kernel.change_link(name, is_up=False)
            node.kernel.flush_routes(protocol=12)
            await made.settle()

            assert set_up_by_us(node, name) == 0
            assert "blackhole 192.168.39.192/26 proto bird" in await node.routes()

    run(story())


def test_waiting_for_a_lock_is_no_fight(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, NODES) as made:
            node, key, name = await pod_of(made)
            async with node.endpoints.lock(key, timeout_s=0):
                node.kernel.change_link(name, is_up=False)
                await made.settle(60)
                assert node.reconciler is not None
                assert node.reconciler.health.fights == []

            await made.settle(2 * actor.LOCKED_RETRY_S)

            link = node.kernel.link(name)
            assert link is not None
            assert link.is_up

    run(story())


def test_settings_of_an_interface_in_hand_are_left_alone_until_a_later_look(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with cluster(tmp_path, NODES) as made:
            node, key, name = await pod_of(made)
            setting = interface_sysctl("ipv4", ifname=name, key="proxy_arp")
            async with node.endpoints.lock(key, timeout_s=0):
                node.kernel.write_sysctl(setting, "0")
                await made.settle(90)
                assert node.kernel.read_sysctls([setting]) == {setting: "0"}

            await made.settle(90)

            assert node.kernel.read_sysctls([setting]) == {setting: "1"}

    run(story())


def test_the_ipv6_gateway_of_a_pod_comes_back_but_not_while_its_endpoint_is_locked(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        pools = (POOL, IPPool("six", ip_network("fd00::/48"), block_size=122))
        async with cluster(tmp_path, NODES, addresses6=("fd10::20/64",), pools=pools) as made:
            node = made.nodes["node-0"]
            await node.add("default/web", config={"ipam": {"assign_ipv6": True}})
            await node.add("default/four")
            await made.settle()
            key, name = next(
                (e.key, e.host_veth) for e in node.endpoints.list() if e.pod_name == "web"
            )
            applied = len(node.kernel.applied)

            async with node.endpoints.lock(key, timeout_s=0):
                node.kernel.delete_address(Address(name, GATEWAY_V6))
                await made.settle()
                assert gateways(node) == set()
            await made.settle(2 * actor.LOCKED_RETRY_S)

            assert gateways(node) == {name}
            assert len(node.kernel.applied) == applied + 1

    run(story())


def gateways(node: NodeAgent) -> set[str]:
    found = node.kernel.addresses()
    return {one.ifname for one in found if one.interface == GATEWAY_V6}


def test_the_ipv6_gateway_that_went_while_nobody_listened_comes_back(tmp_path: Path) -> None:
    async def story() -> None:
        pools = (POOL, IPPool("six", ip_network("fd00::/48"), block_size=122))
        async with cluster(tmp_path, NODES, addresses6=("fd10::20/64",), pools=pools) as made:
            node = made.nodes["node-0"]
            await node.add("default/web", config={"ipam": {"assign_ipv6": True}})
            (record,) = node.endpoints.list()

            await node.stop()
            node.kernel.delete_address(Address(record.host_veth, GATEWAY_V6))
            node.start()
            await made.settle()
            assert gateways(node) == {record.host_veth}
            node.kernel.delete_address(Address(record.host_veth, GATEWAY_V6))
            node.kernel.lose_events()
            await made.settle()

            assert gateways(node) == {record.host_veth}

    run(story())


def test_the_gateway_of_a_pod_that_goes_is_not_given_back(tmp_path: Path) -> None:
    async def story() -> None:
        pools = (POOL, IPPool("six", ip_network("fd00::/48"), block_size=122))
        async with cluster(tmp_path, NODES, addresses6=("fd10::20/64",), pools=pools) as made:
            node = made.nodes["node-0"]
            await node.add("default/web", config={"ipam": {"assign_ipv6": True}})
            await made.settle()
            applied = len(node.kernel.applied)

            await node.delete("default/web")
            await made.settle()

            assert len(node.kernel.applied) == applied

    run(story())
