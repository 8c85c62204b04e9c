"""Any history: the node ends as a fresh computation wants it, and strangers' things stay.

Random events are fed to a reconciler, in any order.  What the passes over dirty keys made of the
kernel is then held against a full computation from the same facts.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
from hypothesis import given, settings

from pycni.agent.facts import WATCHED_KINDS
from pycni.model.resources import AffinityState, Block, BlockAffinity, IPPool, Node, Resource
from tests.agent.histories import (
    BLOCKS,
    Event,
    World,
    borrowed_block,
    events,
    nodes,
    play,
    post,
    session,
    told,
    vxlan_events,
)
from tests.unit.plan.samples import affinity, pool
from tests.virtual_time import run


@given(st.lists(st.tuples(vxlan_events, st.booleans()), max_size=25))
@settings(max_examples=100)
def test_dirty_keys_and_a_full_pass_agree_about_vxlan(
    happenings: list[tuple[Event, bool]],
) -> None:
    async def story() -> None:
        with TemporaryDirectory() as directory:
            world = World(Path(directory))
            await play(world, happenings)
            await world.check()

    run(story())


@given(st.lists(st.tuples(events, st.booleans()), max_size=25))
@settings(max_examples=150)
def test_dirty_keys_and_a_full_pass_agree(happenings: list[tuple[Event, bool]]) -> None:
    async def story() -> None:
        with TemporaryDirectory() as directory:
            world = World(Path(directory))
            await play(world, happenings)
            await world.check()

    run(story())


def _is(number: int, make: Callable[[int], Resource]) -> Event:
    return lambda world: world.write(make(number))


# Sessions come after the nodes with whom they are.
NODES_FIRST: list[Event] = [
    *(_is(n, nodes) for n in range(3)),
    lambda w: w.write(replace(nodes(1), name="node-1a")),
]
FACTS: list[Event] = [
    lambda w: w.write(replace(pool(), name="p")),
    *(_is(n, lambda n: affinity(BLOCKS[n], f"node-{n}")) for n in range(3)),
    lambda w: w.write(affinity(BLOCKS[1], "node-2", AffinityState.PENDING)),
    lambda w: w.write(borrowed_block(BLOCKS[1], "node-2")),
    post(*session(1, is_up=True), told(1, BLOCKS[1], BLOCKS[0])),
    post(*session(2, is_up=True), told(2, BLOCKS[1].replace("0/26", "0/32"))),
    lambda w: w.add_pod(0),
]
EXPECTED = """\
default via 10.0.0.254 dev eth0
10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.1
blackhole 172.16.0.0/16 proto bird
blackhole 192.168.0.0/26 proto bird
192.168.0.1 dev cali0 scope link
192.168.1.0 via 10.0.1.3 dev tunl0 proto bird onlink
192.168.1.0/26 via 10.0.0.2 dev tunl0 proto bird onlink
blackhole 192.168.2.0/26 proto static""".splitlines()


def _shuffled(happenings: Sequence[Event], shuffler: random.Random) -> list[Event]:
    return shuffler.sample(happenings, len(happenings))


@given(st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=50)
def test_the_order_of_events_does_not_matter(
    shuffler: random.Random,
    has_pauses: bool,
) -> None:
    happenings = [*_shuffled(NODES_FIRST, shuffler), *_shuffled(FACTS, shuffler)]

    async def story() -> None:
        with TemporaryDirectory() as directory:
            world = World(Path(directory))
            await play(world, [(one, has_pauses) for one in happenings])
            await world.check()
            assert await world.lines() == EXPECTED

    run(story())


def test_pools_and_affinities_are_what_the_facts_watch() -> None:
    assert {IPPool, Node, BlockAffinity, Block} <= set(WATCHED_KINDS)
