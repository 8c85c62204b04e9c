"""Nodes and peers come, go and restart: how long their routes stay."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni.model.bgp import Family, PeerDown, PeerOpened, PeerUp, SpeakerLost, SpeakerUp
from pycni.model.resources import BlockAffinity, Node, affinity_name
from pycni.model.resources_bgp import BGPConfiguration, BGPPeer
from tests.agent.exercise import NODE_0, exercise
from tests.virtual_time import run


def test_a_peers_restart_keeps_its_routes(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            node.kernel.applied.clear()

            await made.nodes["node-1"].stop()
            await made.settle(60)
            made.nodes["node-1"].start()
            await made.settle()

            assert node.kernel.applied == []
            assert await node.ip_route() == NODE_0

    run(story())


def test_two_speakers_that_die_shortly_after_each_other_cost_no_route(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            node.kernel.applied.clear()
            speaker = node.speaker
            assert speaker is not None
            peer, four = ip_address("10.10.43.25"), frozenset({Family.IPV4})

            speaker.tell(SpeakerLost("it was killed"), SpeakerUp())
            await made.settle()
            speaker.tell(PeerOpened(peer, 120, preserved=four, families=four), PeerUp(peer))
            await made.settle()
            # The peer's dies as well, before it has announced anything to our new one.
            speaker.tell(PeerDown(peer, reason="closing connection", is_graceful=True))
            await made.settle()

            assert node.kernel.applied == []
            assert await node.ip_route() == NODE_0

    run(story())


def test_a_peer_that_stays_away_is_given_up_after_its_restart_time(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await made.nodes["node-1"].stop()
            await made.settle(119)
            early = await node.ip_route()
            await made.settle(2)

            assert early == NODE_0
            assert await node.ip_route() == [line for line in NODE_0 if "10.10.24.89" not in line]

    run(story())


def test_a_peer_whose_hold_timer_ran_out_is_given_up_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            made.network.cut(ip_address("10.10.7.20"), ip_address("10.10.24.89"))
            await made.settle()

            assert await node.ip_route() == [line for line in NODE_0 if "10.10.24.89" not in line]

    run(story())


def test_without_the_mesh_one_peering_of_one_node_joins_two(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            peer = BGPPeer("there", ip_address("10.10.24.89"), 64512, node="node-0")
            await made.create(BGPConfiguration(is_node_mesh_enabled=False), peer)
            await made.settle(150)  # what the mesh's sessions brought is kept for a while

            assert await node.ip_route() == [line for line in NODE_0 if "10.10.43.25" not in line]
            assert [str(p) for p in made.nodes["node-1"].facts.rib.peers] == ["10.10.7.20"]
            assert [str(p) for p in made.nodes["node-2"].facts.rib.peers] == []

    run(story())


def test_a_node_that_is_removed_takes_its_routes_along(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await made.remove(Node, "node-1")
            await made.settle()

            assert await node.ip_route() == [line for line in NODE_0 if "10.10.24.89" not in line]
            assert [str(p) for p in node.facts.rib.peers] == ["10.10.43.25"]

    run(story())


@pytest.mark.parametrize("name", ["node-one", "knot-1"], ids=["later", "earlier"])
def test_a_node_that_is_renamed_keeps_its_routes(tmp_path: Path, name: str) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            inputs = node.facts.inputs
            renamed, old = made.nodes["node-1"], inputs.nodes["node-1"]
            block = inputs.affinities[ip_network("192.168.84.128/26")]
            node.kernel.applied.clear()

            await renamed.stop()
            await made.create(replace(old, name=name), replace(block, node=name))
            await made.remove(BlockAffinity, affinity_name("node-1", cidr=block.cidr))
            await made.remove(Node, "node-1")
            renamed.settings = replace(renamed.settings, node=name)
            renamed.start()
            await made.settle()

            assert inputs.nodes_by_address[ip_address("10.10.24.89")].name == name
            assert inputs.affinities[block.cidr].node == name
            assert node.kernel.applied == []
            assert await node.ip_route() == NODE_0

    run(story())


def test_a_second_name_of_a_node_that_comes_and_goes_changes_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            inputs = node.facts.inputs
            node.kernel.applied.clear()

            await made.create(replace(inputs.nodes["node-1"], name="node-one"))
            await made.settle()
            await made.remove(Node, "node-one")
            await made.settle()

            assert inputs.nodes_by_address[ip_address("10.10.24.89")] is inputs.nodes["node-1"]
            assert node.kernel.applied == []
            assert await node.ip_route() == NODE_0

    run(story())


def test_an_affinity_that_comes_after_its_path_is_waited_for(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            theirs = node.facts.inputs.affinities[ip_network("192.168.84.128/26")]
            await made.remove(BlockAffinity, affinity_name("node-1", cidr=theirs.cidr))
            await made.nodes["node-1"].stop()
            await made.settle()
            before = await node.routes()

            await made.create(theirs)
            await made.settle()

            assert not [line for line in before if "192.168.84.128" in line]
            assert await node.ip_route() == NODE_0

    run(story())
