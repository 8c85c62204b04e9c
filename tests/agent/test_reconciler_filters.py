"""Filters come, change and go while sessions are up: what agents make of that."""

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

from pycni.model.resources_bgp import (
    BGPFilter,
    BGPPeer,
    FilterAction,
    FilterRule,
    MatchOperator,
    PrefixMatch,
)
from tests.agent.cluster import Cluster
from tests.agent.exercise import NODE_0, exercise
from tests.virtual_time import run

BLOCKS = {
    "node-0": "192.168.39.192/26",
    "node-1": "192.168.84.128/26",
    "node-2": "192.168.247.0/26",
}
# Between node-1 and each of the others.
PEERING = BGPPeer("filtered", node="node-1", peer_selector="all()", filters=("one",))


async def learned(made: Cluster) -> dict[str, set[str]]:
    """Return whose blocks each node has a route to."""
    tables = {name: " ".join(await node.ip_route()) for name, node in made.nodes.items()}
    return {
        name: {owner for owner, block in BLOCKS.items() if f" {block} via " in f" {table}"}
        for name, table in tables.items()
    }


def rejecting(owner: str) -> tuple[FilterRule, ...]:
    match = PrefixMatch(ip_network(BLOCKS[owner]), MatchOperator.EQUAL)
    return (FilterRule(FilterAction.REJECT, match),)


MESH = {name: set(BLOCKS) - {name} for name in BLOCKS}
APART = {"node-0": {"node-2"}, "node-1": set[str](), "node-2": {"node-0"}}


def test_filters_rule_without_touching_a_session(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            assert await learned(made) == MESH
            datastore = node.datastore

            await made.create(PEERING)
            await made.settle()
            assert await learned(made) == APART  # the filter is not there yet

            stored = await datastore.create(BGPFilter("one"))
            await made.settle()
            assert await learned(made) == MESH

            stored = await datastore.update(
                BGPFilter("one", export_v4=rejecting("node-1")), if_revision=stored.revision
            )
            await made.settle()
            assert await learned(made) == {
                "node-0": {"node-2"},
                "node-1": {"node-0", "node-2"},
                "node-2": {"node-0"},
            }

            stored = await datastore.update(
                BGPFilter("one", import_v4=rejecting("node-2")), if_revision=stored.revision
            )
            await made.settle()
            assert await learned(made) == MESH | {"node-1": {"node-0"}}

            await datastore.delete(BGPFilter, "one", if_revision=stored.revision)
            await made.settle()
            assert await learned(made) == APART

            known = await datastore.get(BGPPeer, PEERING.name)
            assert known is not None
            await datastore.update(replace(PEERING, filters=()), if_revision=known.revision)
            await made.settle()
            assert await learned(made) == MESH

    run(story())


def test_an_agent_that_starts_again_costs_no_route_that_filters_let_pass(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await made.create(BGPFilter("one", export_v4=rejecting("node-2")), PEERING)
            await made.settle()
            for one in made.nodes.values():
                one.kernel.applied.clear()

            await node.stop()
            await made.settle(5)
            node.start()
            await made.settle()

            assert await node.ip_route() == NODE_0
            assert all(one.kernel.applied == [] for one in made.nodes.values())

    run(story())
