"""Leaving can be interrupted anywhere, repeated, and taken back; who comes in between is seen."""

import asyncio
import errno
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pycni.agent.departure import ROUNDS
from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore
from pycni.errors import Conflict, InvalidInput, PycniError, TryAgain
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.leaving import LeaveWish
from pycni.model.endpoints import EndpointState
from pycni.model.resources import BlockAffinity, Node
from tests.agent.exercise import exercise
from tests.agent.ipam.faults import Failing
from tests.agent.leaving import THEIRS, Member, empty, learned, under
from tests.virtual_time import run


def test_an_add_that_looked_for_the_wish_too_early_sees_it_after_its_record(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            before = await under(made, "node-0")
            looks = iter([False, True])
            agent.engine.is_leaving = lambda: next(looks)

            reply = await agent.cni("ADD", "c9", pod="default/late")

            assert json.loads(reply.output)["code"] == 11
            assert len(agent.endpoints.list()) == 1
            assert await under(made, "node-0") == before

    run(story())


def test_a_wish_that_met_an_add_is_dropped(tmp_path: Path) -> None:
    """The ADD looked before the wish was there, and its record comes after the first look."""

    async def story() -> None:
        async with exercise(tmp_path) as (_, agent):
            (record,) = agent.endpoints.list()
            await empty(agent)

            class Meeting(LeaveWish):
                def keep(self) -> None:
                    super().keep()
                    agent.endpoints.put(replace(record, state=EndpointState.INTENT))

            member = Member(agent, wish=Meeting(agent.run_dir.parent / "state"))
            with pytest.raises(InvalidInput, match="default/web-node-0"):
                member.departure.leave()

            assert (member.state(), member.wish.is_there()) == ("member", False)

    run(story())


def test_a_wish_that_can_not_be_kept_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk may take the file's name, and nothing into it."""

    async def story() -> None:
        async with exercise(tmp_path) as (_, agent):
            await empty(agent)
            flush = os.fsync
            calls = itertools.count()

            def full(fd: int) -> None:
                if next(calls) == 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                flush(fd)

            monkeypatch.setattr(os, "fsync", full)
            member = Member(agent)
            with pytest.raises(PycniError, match="No space left on device; see to that disk"):
                member.departure.leave()

            assert (member.state(), member.wish.is_there()) == ("member", False)
            assert await agent.add("default/another")

    run(story())


def test_a_pod_that_is_here_all_the_same_keeps_its_routes(tmp_path: Path) -> None:
    """After a crash between the wish and the second look for pods."""

    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            LeaveWish(agent.run_dir.parent / "state").keep()
            member = Member(agent)
            async with member.running():
                await made.settle(20)

                assert member.state() == "leaving"
                assert "default/web-node-0" in agent.troubles["registration"]
                assert "192.168.39.192/26" in learned(await made.nodes["node-1"].routes())

                await empty(agent)
                await made.settle(5)

            assert member.state() == "left"
            assert await under(made, "node-0") == []

    run(story())


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [TryAgain, Conflict])
def test_whichever_call_fails_the_next_attempt_does_the_rest(
    tmp_path: Path,
    error: type[Exception],
    late: bool,
) -> None:
    async def story(at: int) -> bool:
        async with exercise(tmp_path / str(at)) as (made, agent):
            await empty(agent)
            failing = Failing(MemoryDatastore(made.store), at=at, error=error, late=late)
            member = Member(agent, failing.datastore)
            member.wish.keep()
            member = Member(agent, failing.datastore)
            async with member.running():
                await made.settle(10)

            assert member.state() == "left"
            assert await under(made, "node-0") == []
            return failing.is_over

    calls = 0
    while run(story(calls + 1)):
        calls += 1
    assert calls > 2


def test_a_restarted_agent_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            await empty(agent)
            member = Member(agent)
            async with member.running():
                member.departure.leave()
                await asyncio.sleep(0.2)  # withdrawn, and on its way
            await agent.stop()
            await made.settle(1)
            agent.start()
            again = Member(agent)
            async with again.running():
                await made.settle(20)

            assert (member.state(), again.state()) == ("leaving", "left")
            assert await under(made, "node-0") == []
            assert learned(await made.nodes["node-1"].routes()) == THEIRS[1:]

    run(story())


def test_saying_it_again_changes_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            await empty(agent)
            member = Member(agent)
            async with member.running():
                member.departure.leave()
                member.departure.leave()
                await made.settle(3)
                first = member.state()
                member.departure.leave()
                again = member.state()
                await made.settle(3)

            assert (first, again, member.state()) == ("left", "left", "left")
            assert await under(made, "node-0") == []

    run(story())


def test_who_joins_in_the_midst_of_leaving_is_a_member(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            await empty(agent)
            asked: list[Member] = []

            async def join(call: Call) -> None:
                if call.verb == "delete" and call.kind is Node:
                    asked.pop().departure.join()

            member = Member(agent, FaultyDatastore(MemoryDatastore(made.store), before=join))
            asked.append(member)
            async with member.running():
                member.departure.leave()
                await made.settle(5)

            assert asked == []
            assert member.state() == "member"
            assert "node node-0" in await under(made, "node-0")
            assert await agent.add("default/late")

    run(story())


def test_an_address_that_is_given_meanwhile_is_given_back_as_well(tmp_path: Path) -> None:
    """By whoever doesn't know of the wish, such as an engine of an earlier release."""

    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            await empty(agent)
            numbers = iter(range(ROUNDS + 1))
            other = Allocator(MemoryDatastore(made.store), node="node-0")

            async def give(call: Call) -> None:
                if call.verb == "list" and call.kind is BlockAffinity:
                    for number in numbers:
                        said = (("node", "node-0"),)
                        await other.assign(AssignRequest(f"late-{number}-node-0", said))
                        return

            member = Member(agent, FaultyDatastore(MemoryDatastore(made.store), before=give))
            async with member.running():
                member.departure.leave()
                await made.settle(1)
                early = agent.troubles["registration"]
                await made.settle(10)

            assert "is given addresses while it leaves" in early
            assert member.state() == "left"
            assert await under(made, "node-0") == []

    run(story())


@pytest.mark.parametrize("moment_s", [0.1, 0.3])
def test_a_pod_that_is_added_after_a_change_of_mind_keeps_its_address(
    tmp_path: Path, moment_s: float
) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            await empty(agent)
            member = Member(agent)
            async with member.running():
                member.departure.leave()
                await asyncio.sleep(moment_s)  # peers are being told
                member.departure.join()
                address = await agent.add("default/late")

                await made.settle(5)

            assert member.state() == "member"
            assert any(address in line for line in await under(made, "node-0"))

    run(story())
