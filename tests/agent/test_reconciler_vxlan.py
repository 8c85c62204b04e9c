"""VXLAN between three nodes: made, mended, given up; never another's."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from pycni.agent.tunnel_change import LINGER_S
from pycni.model.linklayer import FdbEntry, LinkLayerEntry, NeighbourEntry, Vxlan
from pycni.model.network import CreateTunnel, DeleteLink, DeleteRoute, KernelState, Tunnel
from pycni.model.resources import IPPool, Node, TunnelMode
from pycni.model.tunnels import TunnelKind
from pycni.model.vxlan import PORT, VNI, usual_mac
from pycni.plan.desired import rejected_paths
from pycni.plan.overlay import serving
from tests.agent.cluster import POOL, Cluster, NodeAgent, cluster
from tests.agent.exercise import EXERCISE
from tests.virtual_time import run

VXLAN = replace(POOL, ipip_mode=TunnelMode.NEVER, vxlan_mode=TunnelMode.ALWAYS)
DEVICE = "vxlan.calico"
MAC = usual_mac("node-2", version=4)
REMOTE = FdbEntry(DEVICE, MAC, ip_address("10.10.43.25"))
NEIGHBOUR = NeighbourEntry(DEVICE, ip_address("192.168.247.0"), MAC)
LEARNED = "192.168.247.0/26 via 192.168.247.0 dev vxlan.calico proto bird onlink"


@contextlib.asynccontextmanager
async def exercise(directory: Path) -> AsyncIterator[tuple[Cluster, NodeAgent]]:
    async with cluster(directory, EXERCISE, pools=[VXLAN]) as made:
        yield made, made.nodes["node-0"]


def delete_device(node: NodeAgent) -> None:
    node.kernel.delete_link(DEVICE)


def set_device_down(node: NodeAgent) -> None:
    node.kernel.change_link(DEVICE, is_up=False)


def delete_entries(node: NodeAgent) -> None:
    for entry in node.kernel.neighbours():
        node.kernel.delete_neighbour(entry)


def lead_elsewhere(node: NodeAgent) -> None:
    node.kernel.set_neighbour(replace(REMOTE, remote=ip_address("10.10.0.99"), is_ours=False))
    node.kernel.set_neighbour(replace(NEIGHBOUR, mac="66:00:00:00:00:01", is_ours=False))


def add_stale_entries(node: NodeAgent) -> None:
    stale: list[LinkLayerEntry] = [
        replace(REMOTE, mac="66:00:00:00:00:01"),
        replace(NEIGHBOUR, address=ip_address("192.168.100.0")),
    ]
    for entry in stale:
        node.kernel.set_neighbour(entry)


BREAKAGES = [delete_device, set_device_down, delete_entries, lead_elsewhere, add_stale_entries]


async def looked_at(node: NodeAgent) -> KernelState:
    """Return a kernel's state; a device that was made anew has another index."""
    state = await node.state()
    state.links = {name: replace(link, index=0) for name, link in state.links.items()}
    return state


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda one: one.__name__)
def test_what_is_broken_is_mended_within_a_second(
    tmp_path: Path, breakage: Callable[[NodeAgent], None]
) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            before = await looked_at(node)
            assert {REMOTE, NEIGHBOUR} <= set(before.neighbours.values())
            assert LEARNED in await node.routes()

            breakage(node)
            await made.settle()

            assert await looked_at(node) == before

    run(story())


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda one: one.__name__)
def test_what_was_broken_while_no_agent_ran_is_mended(
    tmp_path: Path, breakage: Callable[[NodeAgent], None]
) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            before = await looked_at(node)
            await node.stop()

            breakage(node)
            node.start()
            await made.settle(3)

            assert await looked_at(node) == before

    run(story())


def test_others_entries_stay(tmp_path: Path) -> None:
    others: list[LinkLayerEntry] = [
        replace(REMOTE, mac="66:00:00:00:00:01", is_ours=False),
        replace(NEIGHBOUR, address=ip_address("192.168.100.0"), is_ours=False),
    ]

    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            for entry in others:
                node.kernel.set_neighbour(entry)
            node.post_doubt()
            await made.settle()

            assert set(others) <= set(node.kernel.neighbours())

    run(story())


def test_a_node_that_is_gone_leaves_no_entries(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await made.nodes["node-2"].stop()

            await made.remove(Node, "node-2")
            await made.settle()

            left = {str(entry) for entry in node.kernel.neighbours()}
            assert not any(MAC in one or "192.168.247.0" in one for one in left)
            assert len(left) == 2

    run(story())


def test_a_deleted_pool_leaves_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await made.remove(IPPool, VXLAN.name)
            await made.settle(2)

            assert node.kernel.link(DEVICE) is None
            assert node.kernel.neighbours() == []
            assert not any(DEVICE in line for line in await node.routes())

    run(story())


def test_anothers_device_is_told_and_left_alone_until_it_goes(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE, pools=[POOL]) as made:
            node = made.nodes["node-0"]
            theirs = node.kernel.add_link(DEVICE, kind="bridge", mtu=9000)

            await made.put(VXLAN)
            for one in made.nodes.values():
                await one.register()
            await made.settle(10)

            assert node.kernel.link(DEVICE) == theirs
            assert not any(one.ifname == DEVICE for one in node.kernel.addresses())
            assert node.reconciler is not None
            (failure,) = node.reconciler.health.failures
            assert "it exists and is of kind 'bridge'" in failure.message
            # The tunnel before leads there still.
            assert "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink" in (
                await node.routes()
            )

            node.kernel.delete_link(DEVICE)
            await made.settle()

            (line,) = [one for one in await node.routes() if one.startswith("192.168.247.0/26")]
            assert line.endswith("dev vxlan.calico proto bird onlink")
            assert node.reconciler.health.failures == []

    run(story())


def test_a_device_that_can_not_be_made_takes_no_routes_until_it_can(tmp_path: Path) -> None:
    """Another device has the network: the tunnel before leads there as long as it may, then none.

    And others are told nothing of this node's end.
    """

    async def story() -> None:
        async with cluster(tmp_path, EXERCISE, pools=[POOL]) as made:
            node = made.nodes["node-0"]
            network = Vxlan(VNI, PORT, node.address.ip)
            rival = Tunnel("vxlan7", "vxlan", 1450, "66:00:00:00:00:01", network)
            assert await node.kernel.apply([CreateTunnel(rival)]) == []

            await made.put(VXLAN)
            for one in made.nodes.values():
                await one.register()
            await made.settle(10)

            assert "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink" in (
                await node.routes()
            )
            assert node.reconciler is not None
            failure, *_ = node.reconciler.health.failures
            assert "a VXLAN device with the specified VNI exists already" in failure.message
            inputs = node.facts.inputs
            assert serving(inputs) == {TunnelKind.VXLAN: False}
            await made.settle(LINGER_S)
            assert all("dev tunl0" not in one for one in await node.routes())
            reasons = {one.reason for one in rejected_paths(inputs)}
            why = "vxlan.calico, by which it would leave, can't be made: see the failures"
            assert reasons == {why}

            node.kernel.delete_link("vxlan7")
            await made.settle(30)

            (line,) = [one for one in await node.routes() if one.startswith("192.168.247.0/26")]
            assert line.endswith("dev vxlan.calico proto bird onlink")
            assert node.reconciler.health.failures == []
            assert serving(inputs) == {TunnelKind.VXLAN: True}

    run(story())


def test_a_device_that_is_deleted_costs_no_route_that_leads_by_it(tmp_path: Path) -> None:
    """It is made anew together with what leads by it; no path is rejected in between."""

    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            node.facts.inputs.links.pop(DEVICE)

            assert not any(one.reason for one in rejected_paths(node.facts.inputs))
            await made.settle()

    run(story())


@pytest.mark.parametrize("seconds", [0.5, 1.0, 5.0, 40.0])
def test_an_agent_that_restarts_while_a_pool_changes_keeps_what_leads_to_late_nodes(
    tmp_path: Path, seconds: float
) -> None:
    """node-2 has no end of the new tunnel, whenever node-0's agent dies."""
    late = "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"

    async def story() -> None:
        async with cluster(tmp_path, EXERCISE, pools=[POOL]) as made:
            node, other = made.nodes["node-0"], made.nodes["node-1"]
            await made.put(VXLAN)
            for one in (node, other):
                await one.register()
            await made.settle(seconds)
            assert late in await node.routes()
            node.kernel.applied.clear()

            await node.stop()
            await made.settle(0.1)
            node.start()
            await made.settle(30)

            assert late in await node.routes()
            assert node.kernel.link("tunl0") is not None
            gone = [op for op in node.kernel.applied if isinstance(op, DeleteRoute | DeleteLink)]
            assert gone == []
            await made.settle(LINGER_S)
            assert late not in await node.routes()
            assert node.kernel.link("tunl0") is None

    run(story())


class Counting(dict[str, Node]):
    """Nodes that count how often somebody walks over all of them."""

    walks = 0

    def values(self) -> Any:  # noqa: ANN401 - dict_values has no name.
        self.walks += 1
        return super().values()


def test_pods_and_others_devices_cost_no_walk_over_the_nodes(tmp_path: Path) -> None:
    """What is wanted behind the tunnel is worked out when nodes, pools or books change."""

    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            assert node.reconciler is not None
            health = node.reconciler.health
            await node.add("default/first")  # the block is the node's from now on
            node.kernel.add_link("flannel.1", kind="vxlan")
            await made.settle()
            node.facts.inputs.nodes = nodes = Counting(node.facts.inputs.nodes)
            full_passes = health.full_passes

            await node.add("default/second")
            await made.settle()
            passes = health.passes
            node.kernel.set_neighbour(FdbEntry("flannel.1", MAC, ip_address("10.10.0.99")))
            await made.settle()
            assert health.passes == passes
            delete_entries(node)
            await made.settle()

            assert {REMOTE, NEIGHBOUR} <= set(node.kernel.neighbours())
            assert (nodes.walks, health.full_passes) == (0, full_passes)

    run(story())
