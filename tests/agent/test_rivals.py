"""Whatever others do to our routes meanwhile, the node soon is as it should be.

The refresh of every minute, which mends whatever is wrong, doesn't come in these tests.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
from hypothesis import given, settings

from pycni.agent.second_look import LOOK_S
from tests.agent.histories import playing, pods
from tests.agent.rivals import (
    FACTS,
    OURS,
    Round,
    SharedWorld,
    announce,
    rounds,
    withdraw,
)
from tests.unit.plan.samples import pool
from tests.virtual_time import run

SETTLED_S = 20.0
"""Repairs of what failed again and again have become that rare."""


@asynccontextmanager
async def converged(directory: Path) -> AsyncIterator[SharedWorld]:
    world = SharedWorld(directory)
    async with playing(world):
        for fact in FACTS:
            fact(world)
        await asyncio.sleep(130)  # all gates are open then
        yield world


@given(st.lists(rounds, max_size=8))
@settings(max_examples=300)
def test_others_may_write_our_routes_at_any_moment(history: list[Round]) -> None:
    async def story() -> None:
        with TemporaryDirectory() as directory:
            async with converged(Path(directory)) as world:
                world.kernel.hold_events()
                for *happenings, pause_s in history:
                    for happening in filter(None, happenings):
                        happening(world)
                    if pause_s:
                        await asyncio.sleep(pause_s)
                world.calm()
                await asyncio.sleep(SETTLED_S)

                await world.check()

    run(story())


def test_a_route_that_a_rival_put_back_before_we_removed_it_is_missed_within_a_second(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with converged(tmp_path) as world:
            before = await world.lines()

            world.kernel.hold_events()
            world.kernel.delete_route(OURS)
            world.kernel.create_route(OURS)
            withdraw(1, 0)(world)
            await asyncio.sleep(0.02)
            gone = OURS not in world.kernel.routes()
            announce(1, 0)(world)
            world.kernel.hold_events(is_held=False)
            await asyncio.sleep(1.1 * LOOK_S)

            assert gone
            assert await world.lines() == before

    run(story())


def test_looks_at_what_a_rival_keeps_writing_are_few(tmp_path: Path) -> None:
    async def story() -> None:
        async with converged(tmp_path) as world:
            withdraw(1, 0)(world)
            await asyncio.sleep(0.1)
            announce(1, 0)(world)
            await asyncio.sleep(0.1)
            before = world.kernel.reads

            for _ in range(10):
                for _ in range(10):
                    world.kernel.delete_route(OURS)
                    world.kernel.create_route(OURS)
                await asyncio.sleep(0.1)
            await asyncio.sleep(SETTLED_S)

            assert 1 <= world.kernel.reads - before <= 2

    run(story())


def test_a_pass_over_everything_does_not_stand_for_the_look_after_a_failure(tmp_path: Path) -> None:
    """What the kernel did of a pass that broke off is known by a new picture alone."""

    async def story() -> None:
        async with converged(tmp_path) as world:
            before = await world.lines()

            world.kernel.break_after(0)
            withdraw(1, 0)(world)
            await asyncio.sleep(0.02)
            gone = OURS not in world.kernel.routes()
            announce(1, 0)(world)
            world.write(replace(pool(), name="p", nat_outgoing=True))
            await asyncio.sleep(SETTLED_S)

            assert gone
            assert await world.lines() == before

    run(story())


def test_a_kernel_that_breaks_off_is_no_endpoint_in_hand(tmp_path: Path) -> None:
    """What it did of the pod's interface is looked at again: the picture doesn't show it."""

    async def story() -> None:
        async with converged(tmp_path) as world:
            before = await world.lines()

            world.kernel.break_after(0)
            world.add_pod(0)
            await asyncio.sleep(0.02)
            there = [line for line in await world.lines() if "cali0" in line]
            world.forget(pods(0))
            await asyncio.sleep(SETTLED_S)

            assert there == ["192.168.0.1 dev cali0 scope link"]
            assert await world.lines() == before

    run(story())
