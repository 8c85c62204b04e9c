"""Failures at every step of a verb: everything is undone, and the answer says why."""

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from pycni.cni.debts import pay_debts
from pycni.cni.main import execute
from pycni.datastore.faulty import Call
from pycni.errors import PycniError, TryAgain
from pycni.model.endpoints import WorkloadEndpoint
from pycni.ports import PlugRequest, PlugResult
from tests.agent.cluster import POOL, Cluster, NodeAgent
from tests.agent.verbs.stories import (
    KEY,
    POD,
    VETH,
    Proxy,
    ask,
    collect,
    faulty,
    held,
    leftovers,
    parsed,
    play,
    reason,
)
from tests.virtual_time import run


class Fate:
    """Lets the datastore fail at the nth call, before or after it took effect, and for how long."""

    def __init__(self, node: NodeAgent, *, at: int, is_after: bool, length: int) -> None:
        self.calls = 0
        self.at = at
        self.length = length
        datastore = faulty(node)
        if is_after:
            datastore.after = self.strike
        else:
            datastore.before = self.strike

    async def strike(self, call: Call) -> None:
        self.calls += 1
        if self.at <= self.calls < self.at + self.length:
            raise TryAgain(f"cannot {call.verb} {call.name}: the datastore is away")


@pytest.mark.parametrize("length", [1, 2, 1000])
@pytest.mark.parametrize("is_after", [False, True])
def test_nothing_leaks_wherever_the_datastore_fails(
    tmp_path: Path, *, is_after: bool, length: int
) -> None:
    """Strike at each call of an ADD in turn; then heal, retry and remove."""

    async def once(at: int) -> bool:
        made = Cluster(tmp_path / f"{at}")
        await made.create(POOL)
        node = made.node("node-0", "10.10.7.20/20")
        fate = Fate(node, at=at, is_after=is_after, length=length)
        reply = await ask(node, "ADD")
        was_struck = fate.calls >= at
        fate.length = 0

        if reply.status == 0:
            assert len(await held(node)) == 1
        else:
            assert reason(reply)[0] == 11, reply.output
            assert [n for n in (await node.state()).links if n.startswith("cali")] == []
            assert await pay_debts(node.engine) == []
            assert await leftovers(node) == []
        await node.add(POD)
        assert len(await held(node)) == 1
        await node.delete(POD)
        assert await leftovers(node) == []
        return was_struck

    async def story() -> None:
        at = 1
        while await once(at):
            at += 1
        assert at > 8, "an ADD asks the datastore more often than that"

    run(story())


def test_nothing_leaks_when_the_interface_can_not_be_made(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        node.podnet.fail_next(PycniError("cannot make the pair: no memory"))

        reply = await ask(node, "ADD")

        assert reason(reply) == (5, "cannot make the pair: no memory")
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_nothing_leaks_when_an_interface_can_not_be_made_anew(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD, fd=7)
        node.kernel.rename_link(VETH, to="lan0")
        node.podnet.fail_next(PycniError("cannot make the pair: no memory"))

        reply = await ask(node, "ADD", fd=7)

        assert reason(reply) == (5, "cannot make the pair: no memory")
        assert node.kernel.link("lan0") is None
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_strangers_interface_of_that_name_stays(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        node.kernel.add_link(VETH, alias="somebody's")

        reply = await ask(node, "ADD")

        assert reply.status == 1
        assert node.kernel.link(VETH) is not None
        assert await held(node) == []

    play(tmp_path, story)


def fill_disk(node: NodeAgent) -> None:
    """Let the second writing of a record, that of the complete one, meet a full disk."""
    put, count = node.endpoints.put, iter(range(10))

    def full(endpoint: WorkloadEndpoint) -> None:
        if next(count) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(endpoint)

    node.engine.endpoints = Proxy(node.endpoints, put=full)


def test_nothing_leaks_when_the_record_can_not_be_completed(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        fill_disk(node)

        reply = await ask(node, "ADD")

        assert reason(reply)[0] == 5
        assert "No space left on device" in reason(reply)[1]
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_pod_goes_though_its_record_can_not_be_marked(tmp_path: Path) -> None:
    """A full run directory gets no emptier by keeping what is to go."""

    async def story(node: NodeAgent) -> None:
        def full(_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        await node.add(POD)
        node.engine.endpoints = Proxy(node.endpoints, put=full)

        reply = await ask(node, "DEL")

        assert reply.status == 0, reply.output
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_an_interface_that_can_not_be_undone_keeps_its_address(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        async def stuck(**_: Any) -> bool:  # noqa: ANN401 - an interface.
            raise PycniError("cannot delete the pair: busy")

        fill_disk(node)
        node.engine.podnet = Proxy(node.podnet, unplug=stuck)

        reply = await ask(node, "ADD")

        assert "No space left on device" in reason(reply)[1]
        assert node.kernel.link(VETH) is not None
        assert len(await held(node)) == 1
        node.engine.podnet, node.engine.endpoints = node.podnet, node.endpoints
        assert (await ask(node, "DEL")).status == 0
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_what_a_failed_plug_has_left_is_undone(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        def half(request: PlugRequest) -> PlugResult:
            node.podnet.plug(request)
            raise PycniError("cannot take the pair back: busy")

        node.engine.podnet = Proxy(node.podnet, plug=half)

        assert (await ask(node, "ADD")).status == 1
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_an_address_that_is_neither_released_nor_journalled_keeps_its_record(
    tmp_path: Path,
) -> None:
    async def story(node: NodeAgent) -> None:
        def fail(_: object) -> None:
            node.switch.is_away = True
            raise OSError(errno.ENOSPC, "No space left on device")

        node.engine.podnet = Proxy(node.podnet, plug=fail)
        node.engine.endpoints = Proxy(node.endpoints, journal=fail)

        assert (await ask(node, "ADD")).status == 1
        node.switch.is_away = False
        assert len(await held(node)) == 1
        assert node.endpoints.get(KEY) is not None

        node.engine.podnet, node.engine.endpoints = node.podnet, node.endpoints
        assert (await collect(node)).status == 0
        assert await leftovers(node) == []

    play(tmp_path, story)


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_damaged_record_blocks_neither_add_nor_del(tmp_path: Path, verb: str) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD, fd=7)
        (path,) = node.endpoints.directory.iterdir()
        path.write_text("{")

        reply = await ask(node, verb, fd=7)

        assert reply.status == 0, reply.output
        assert len(await held(node)) == (1 if verb == "ADD" else 0)
        await node.delete(POD)
        assert await leftovers(node) == []

    play(tmp_path, story)


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_a_namespace_that_can_not_be_opened_is_named(tmp_path: Path, verb: str) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await execute(node.engine, parsed(verb, prevResult={}), netns_fd=None)

        code, text = reason(reply)
        assert code == 4
        assert text.startswith("CNI_NETNS='/run/netns/x' can't be opened as a network namespace:")

    play(tmp_path, story)


def test_a_caller_that_is_gone_gets_no_interface(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        for verb in ("ADD", "DEL"):
            reply = await execute(node.engine, parsed(verb), netns_fd=7, is_abandoned=lambda: True)

            assert reason(reply)[0] == 11
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_work_that_takes_too_long_is_undone_and_may_be_tried_again(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        datastore = faulty(node)
        writes = 0

        async def hang(call: Call) -> None:
            nonlocal writes
            writes += call.is_write
            if writes == 2:
                writes += 1
                await asyncio.sleep(1000)

        datastore.before = hang

        reply = await ask(node, "ADD")

        assert reason(reply)[0] == 11
        assert "took over 25 s" in reason(reply)[1]
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_defect_of_ours_is_reported_as_such(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        async def broken() -> int:
            raise ZeroDivisionError("by nothing")

        node.engine.default_mtu = broken

        reply = await ask(node, "ADD")

        assert reason(reply)[0] == 100
        assert "please report it" in reason(reply)[1]
        assert await leftovers(node) == []

    play(tmp_path, story)
