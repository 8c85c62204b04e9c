"""Three nodes at once, stepped from datastore call to datastore call in any order.

Operations are coroutines driven by hand: every datastore call is preceded by a suspension, and
the test decides who goes on, who is cancelled and whose process dies.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore, MemoryStore
from pycni.errors import PycniError
from pycni.ipam import block as arithmetic
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import Assignment, AssignRequest
from pycni.model.network import IPNetwork
from pycni.model.resources import AffinityState, Block, BlockAffinity, Handle, IPPool

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

POOL = IPPool("pool", IPv4Network("10.0.0.0/29"), block_size=30)
BLOCKS = list(POOL.cidr.subnets(new_prefix=30))
NODES = ("a", "b", "c")


class Died(BaseException):
    """The process is gone: nothing that it would still do happens."""


class _Suspension:
    def __await__(self) -> Generator[None, None, None]:
        yield


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - whatever it returns.
    """Run to the end without anybody else."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value


@dataclass
class Operation:
    """One request in flight."""

    coroutine: Coroutine[Any, Any, Any]
    handle: str = ""
    is_cancelled: bool = False
    died: list[bool] = field(default_factory=list)


class ThreeNodes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.numbers = itertools.count(1)
        self.running: list[Operation] = []
        self.held: dict[str, Assignment] = {}
        self.unsettled: set[str] = set()
        drive(MemoryDatastore(self.store).create(POOL))

    def allocator(self, node: str, died: list[bool]) -> Allocator:
        async def before(_: Call) -> None:
            await _Suspension()
            if died:
                raise Died

        async def sleep(_: float) -> None:
            await _Suspension()

        return Allocator(
            FaultyDatastore(MemoryDatastore(self.store), before=before),
            node=node,
            clock_ns=lambda: next(self.numbers) * 1000,
            sleep=sleep,
        )

    def start(self, work: Coroutine[Any, Any, Any], handle: str, died: list[bool]) -> None:
        self.running.append(Operation(work, handle, died=died))

    # --- what can happen ------------------------------------------------------------------------

    @rule(node=st.sampled_from(NODES), ordinal=st.none() | st.integers(0, 7))
    def add(self, node: str, ordinal: int | None) -> None:
        died: list[bool] = []
        handle = f"h{next(self.numbers)}"
        addresses = () if ordinal is None else (POOL.cidr[ordinal],)
        request = AssignRequest(handle, attributes=(("node", node),), addresses=addresses)
        self.unsettled.add(handle)
        self.start(self.allocator(node, died).assign(request), handle, died)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), node=st.sampled_from(NODES), is_guarded=st.booleans())
    def remove(self, data: st.DataObject, node: str, *, is_guarded: bool) -> None:
        died: list[bool] = []
        handle = data.draw(st.sampled_from(sorted(self.held)))
        assignment = self.held.pop(handle)
        self.unsettled.add(handle)
        allocator = self.allocator(node, died)
        if is_guarded:
            work: Coroutine[Any, Any, Any] = allocator.release(
                assignment.addresses, handle_id=handle
            )
        else:
            work = allocator.release_by_handle(handle)
        self.start(work, "", died)

    @rule(node=st.sampled_from(NODES), cidr=st.sampled_from(BLOCKS), only_if_empty=st.booleans())
    def leave(self, node: str, cidr: IPNetwork, *, only_if_empty: bool) -> None:
        died: list[bool] = []
        work = self.allocator(node, died).release_affinity(cidr, only_if_empty=only_if_empty)
        self.start(work, "", died)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), steps=st.integers(1, 8))
    def go_on(self, data: st.DataObject, steps: int) -> None:
        operation = data.draw(st.sampled_from(self.running))
        for _ in range(steps):
            if operation in self.running:
                self.step(operation)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(self.running))
        operation.died.append(True)
        while operation in self.running:
            self.step(operation)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(self.running))
        if not operation.is_cancelled:
            operation.is_cancelled = True
            self.step(operation, error=asyncio.CancelledError())

    def step(self, operation: Operation, *, error: BaseException | None = None) -> None:
        try:
            if error is None:
                operation.coroutine.send(None)
            else:
                operation.coroutine.throw(error)
        except StopIteration as stop:
            self.running.remove(operation)
            if operation.handle:
                self.held[operation.handle] = stop.value
        except Died:
            self.running.remove(operation)
        except (PycniError, asyncio.CancelledError):
            self.running.remove(operation)
            # A process that lives on has cleaned up behind itself: nobody needs to come for it.
            self.unsettled.discard(operation.handle)

    # --- what must hold -------------------------------------------------------------------------

    def blocks(self) -> list[Block]:
        return [
            entry.value for entry in self.store.objects.values() if isinstance(entry.value, Block)
        ]

    @invariant()
    def every_held_address_is_recorded_for_its_holder(self) -> None:
        recorded = {
            one.address: (one.attribute.handle_id, one.sequence_number)
            for block in self.blocks()
            for one in arithmetic.given(block)
        }
        for handle, assignment in self.held.items():
            for address in assignment.addresses:
                assert recorded[address.interface.ip] == (handle, address.sequence_number)

    @invariant()
    def blocks_are_sound_and_have_one_confirmed_owner(self) -> None:
        for block in self.blocks():
            arithmetic.verify(block)
        owners = {block.cidr: block.affinity for block in self.blocks()}
        confirmed = [
            entry.value
            for entry in self.store.objects.values()
            if isinstance(entry.value, BlockAffinity)
            and entry.value.state is AffinityState.CONFIRMED
        ]
        for affinity in confirmed:
            assert owners[affinity.cidr] == affinity.node

    def teardown(self) -> None:
        for operation in list(self.running):
            while operation in self.running:
                self.step(operation)
        allocator = self.allocator("a", [])
        for handle in self.unsettled - set(self.held):
            drive(allocator.release_by_handle(handle))
        counted = {
            (entry.value.id, cidr): count
            for entry in self.store.objects.values()
            if isinstance(entry.value, Handle)
            for cidr, count in entry.value.blocks
        }
        recorded = Counter(
            (one.attribute.handle_id, block.cidr)
            for block in self.blocks()
            for one in arithmetic.given(block)
        )
        assert counted == recorded
        for handle in self.held:
            drive(allocator.release_by_handle(handle))
        assert all(arithmetic.is_empty(block) and block.affinity for block in self.blocks())


TestThreeNodes = ThreeNodes.TestCase
TestThreeNodes.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
