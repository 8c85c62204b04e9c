"""Three nodes at once, stepped from datastore call to datastore call in any order.

Operations are coroutines driven by hand: every datastore call is preceded by a suspension, and
the test decides who goes on, who is cancelled, whose process dies and how time passes.
"""

import asyncio
import itertools
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, TypeVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore, MemoryStore
from pycni.errors import PycniError
from pycni.ipam import block as arithmetic
from pycni.ipam.allocator import Allocator
from pycni.ipam.audit import audit
from pycni.ipam.books import Books
from pycni.ipam.findings import Finding
from pycni.ipam.requests import Assignment, AssignRequest
from pycni.ipam.soundness import verify
from pycni.model.network import IPNetwork
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    Handle,
    IPAMConfig,
    IPPool,
    IPReservation,
    Node,
    Resource,
)
from pycni.ports import Datastore
from tests.agent.death import Died

T = TypeVar("T", bound=Resource)
POOL = IPPool("pool", IPv4Network("10.0.0.0/29"), block_size=30)
LOOP = asyncio.new_event_loop()
"""Never run: it only makes the futures on which operations wait for each other."""
BLOCKS = list(POOL.cidr.subnets(new_prefix=30))
NODES = ("a", "b", "c")


class Suspension:
    def __await__(self) -> Generator[None, None, None]:
        yield


async def pause(_: float = 0) -> None:
    await Suspension()


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - whatever it returns.
    """Run to the end without anybody else."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value


@dataclass
class Process:
    """An allocator with what it remembers; it lives until it is killed."""

    allocator: Allocator
    died: list[bool]


@dataclass
class Operation:
    """One request in flight.

    `handle` is to hold an address in the end, `concerns` is the handle that the request named;
    `may_leave`: what was under it before may still be there after an error.  `turn` is what it
    waits for until another operation of its process is done with a block.
    """

    coroutine: Coroutine[Any, Any, Any]
    process: Process
    handle: str = ""
    concerns: str = ""
    may_leave: bool = False
    is_cancelled: bool = False
    turn: "asyncio.Future[None] | None" = None

    @property
    def waits(self) -> bool:
        return self.turn is not None and not self.turn.done()

    def go_on(self, error: BaseException | None) -> None:
        """Run up to the next suspension."""
        asyncio._set_running_loop(LOOP)  # noqa: SLF001 - asyncio's own way to say so
        try:
            step = self.coroutine
            self.turn = step.send(None) if error is None else step.throw(error)
        finally:
            asyncio._set_running_loop(None)  # noqa: SLF001


class ThreeNodes(RuleBasedStateMachine):
    is_atomic = False

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000
        self.is_in_a_hurry = True
        self.prepare()
        self.books = self.open()
        self.numbers = itertools.count(1)
        self.running: list[Operation] = []
        self.held: dict[str, Assignment] = {}
        self.unsettled: set[str] = set()
        self.processes: dict[str, Process] = {}
        drive(self.books.create(POOL))
        drive(self.books.create(IPAMConfig(cooldown_s=30)))
        for node in NODES:
            drive(self.books.create(Node(node)))

    def prepare(self) -> None:
        """Make an empty store."""
        self.store = MemoryStore()

    def open(self) -> Datastore:
        """Return another way to the store."""
        return MemoryDatastore(self.store)

    def all(self, kind: type[T]) -> list[T]:
        return [stored.value for stored in drive(self.books.list(kind)).items]

    def process(self, node: str) -> Process:
        if node not in self.processes:
            self.processes[node] = self.new_process(node)
        return self.processes[node]

    def new_process(self, node: str) -> Process:
        died: list[bool] = []
        store = self.connection(died)
        allocator = Allocator(store, node=node, clock_ns=self.clock_ns, sleep=pause)
        return Process(allocator, died)

    def connection(self, died: list[bool]) -> Datastore:
        """Return a way to the store that waits before each call, until its process is dead."""

        async def before(_: Call) -> None:
            await Suspension()
            if died:
                raise Died

        return FaultyDatastore(self.open(), before=before, is_atomic=self.is_atomic)

    def clock_ns(self) -> int:
        return self.now * 1_000_000_000 + next(self.numbers)

    # --- what can happen ------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 29, 30, 31, 1000]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([0, 30]))
    def rest_is_wanted(self, seconds: int) -> None:
        stored = drive(self.books.get(IPAMConfig, "default"))
        config = IPAMConfig(cooldown_s=seconds)
        drive(self.books.update(config, if_revision=stored.revision))

    @rule(cidr=st.sampled_from(BLOCKS), is_wanted=st.booleans())
    def half_a_block_is_reserved(self, cidr: IPv4Network, *, is_wanted: bool) -> None:
        stored = drive(self.books.get(IPReservation, "kept"))
        if stored is not None:
            drive(self.books.delete(IPReservation, "kept", if_revision=stored.revision))
        if is_wanted:
            (half, _) = cidr.subnets(prefixlen_diff=1)
            drive(self.books.create(IPReservation("kept", (half,))))

    @rule(node=st.sampled_from(NODES), ordinal=st.none() | st.integers(0, 7))
    def add(self, node: str, ordinal: int | None) -> None:
        self.start_adding(node, f"h{next(self.numbers)}", ordinal, is_first=False)

    @rule(node=st.sampled_from(NODES), ordinal=st.none() | st.integers(0, 7), data=st.data())
    def add_after_a_lost_record(self, node: str, ordinal: int | None, data: st.DataObject) -> None:
        """ADD under a handle of which nobody knows what a crash has left there, or a new one."""
        busy = {operation.concerns for operation in self.running}
        lost = sorted(self.unsettled - busy - set(self.held))
        handle = data.draw(st.sampled_from([*lost, f"h{next(self.numbers)}"]))
        self.start_adding(node, handle, ordinal, is_first=True)

    def start(self, operation: Operation) -> None:
        self.running.append(operation)
        if self.is_in_a_hurry:
            while operation in self.running:
                self.step(operation)

    @rule(is_so=st.booleans())
    def hurry(self, *, is_so: bool) -> None:
        """Let requests be done at once from now on, or step by step."""
        self.is_in_a_hurry = is_so

    def start_adding(self, node: str, handle: str, ordinal: int | None, *, is_first: bool) -> None:
        process = self.process(node)
        request = AssignRequest(
            handle,
            attributes=(("node", node),),
            addresses=() if ordinal is None else (POOL.cidr[ordinal],),
            is_first=is_first,
        )
        self.unsettled.add(handle)
        work = process.allocator.assign(request)
        self.start(Operation(work, process, handle, handle, may_leave=is_first))

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        node=st.sampled_from(NODES),
        how=st.sampled_from(["guarded", "by handle", "both"]),
        was_used=st.booleans(),
    )
    def remove(self, data: st.DataObject, node: str, how: str, *, was_used: bool) -> None:
        process = self.process(node)
        allocator = process.allocator
        handle = data.draw(st.sampled_from(sorted(self.held)))
        addresses = self.held.pop(handle).addresses
        self.unsettled.add(handle)
        work: Coroutine[Any, Any, Any]
        if how == "guarded":
            work = allocator.release(addresses, handle_id=handle, was_used=was_used)
        elif how == "both":
            work = allocator.release_by_handle(handle, addresses=addresses, was_used=was_used)
        else:
            work = allocator.release_by_handle(handle, was_used=was_used)
        self.start(Operation(work, process, concerns=handle))

    @rule(node=st.sampled_from(NODES), cidr=st.sampled_from(BLOCKS), only_if_empty=st.booleans())
    def leave(self, node: str, cidr: IPNetwork, *, only_if_empty: bool) -> None:
        process = self.process(node)
        work = process.allocator.release_affinity(cidr, only_if_empty=only_if_empty)
        self.start(Operation(work, process))

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
        self.kill(data.draw(st.sampled_from(self.running)).process)

    def kill(self, process: Process) -> None:
        process.died.append(True)
        self.processes = {node: one for node, one in self.processes.items() if one is not process}
        for operation in [one for one in self.running if one.process is process]:
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
        if operation.waits and error is None:
            # Whoever has the turn is of the same process, and may go on in its stead.
            same = [one for one in self.running if one.process is operation.process]
            operation = next(one for one in same if not one.waits)
        try:
            operation.go_on(error)
        except StopIteration as stop:
            self.running.remove(operation)
            if operation.handle:
                self.held[operation.handle] = stop.value
            # All that was under it has come to light by now: nobody needs to come for the rest.
            self.unsettled.discard(operation.concerns)
        except Died:
            self.running.remove(operation)
        except (PycniError, asyncio.CancelledError):
            self.running.remove(operation)
            # A process that lives on has cleaned up behind itself: nobody needs to come for it.
            if not operation.may_leave:
                self.unsettled.discard(operation.handle)

    # --- what must hold -------------------------------------------------------------------------

    def blocks(self) -> list[Block]:
        return self.all(Block)

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
            verify(block)
        owners = {block.cidr: block.affinity for block in self.blocks()}
        for affinity in self.all(BlockAffinity):
            if affinity.state is AffinityState.CONFIRMED:
                assert owners[affinity.cidr] == affinity.node

    def teardown(self) -> None:
        for operation in list(self.running):
            while operation in self.running:
                self.step(operation)
        allocator = self.new_process("a").allocator
        for handle in self.unsettled - set(self.held):
            drive(allocator.release_by_handle(handle))
        for node in NODES:  # as the janitor does
            drive(self.new_process(node).allocator.take_up_lost())
        wrong = [finding for finding in self.audit() if not finding.is_information]
        assert wrong == []
        self.check_that_what_is_held_is_advertised()
        for handle in self.held:
            drive(allocator.release_by_handle(handle))
        assert not any(map(arithmetic.is_held, self.blocks()))
        assert all(block.affinity for block in self.blocks())
        self.now += 1000
        for node in NODES:
            for block in self.blocks():
                if block.affinity == node:
                    owner = self.new_process(node).allocator
                    assert drive(owner.release_affinity(block.cidr, only_if_empty=True))
        assert self.blocks() == []
        assert self.all(Handle) == []
        drive(self.books.close())

    def check_that_what_is_held_is_advertised(self) -> None:
        confirmed = {
            (affinity.node, affinity.cidr)
            for affinity in self.all(BlockAffinity)
            if affinity.state is AffinityState.CONFIRMED
        }
        living = {node.name for node in self.all(Node)}
        held = [block for block in self.blocks() if arithmetic.is_held(block)]
        owned = {(block.affinity, block.cidr) for block in held if block.affinity in living}
        assert owned <= confirmed

    def audit(self) -> tuple[Finding, ...]:
        """Hold the books against each other, as `pycnictl ipam check` does."""
        return audit(
            Books(
                pools=(POOL,),
                blocks=tuple(self.blocks()),
                handles=tuple(self.all(Handle)),
                affinities=tuple(self.all(BlockAffinity)),
                nodes=frozenset(NODES),
            )
        )
