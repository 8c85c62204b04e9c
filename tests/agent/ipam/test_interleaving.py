"""Stories of three nodes at once, with and without transactions, and of nodes that go for good.

PYCNI_EXAMPLES says how many stories each machine plays (CI: 1,000; `make soak`: ten times 10,000).
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import rule

from pycni.datastore.sqlite import open_sqlite
from pycni.ipam.estates import Estates, show_presence
from pycni.ipam.gone import Estate, estates
from pycni.ipam.requests import DatastoreView
from pycni.model.resources import BlockAffinity, Node
from pycni.ports import Datastore
from tests.agent.ipam.three_nodes import NODES, Operation, Process, ThreeNodes, drive, pause

EXAMPLES = int(os.environ.get("PYCNI_EXAMPLES", "200"))
pytestmark = [pytest.mark.slow, pytest.mark.stories, pytest.mark.timeout(60 + EXAMPLES // 5)]


async def _done(work: AsyncIterator[str]) -> list[str]:
    return [one async for one in work]


class ThreeNodesWithTransactions(ThreeNodes):
    """Without transactions, an affinity may outlive a gone node's block for a moment."""

    is_atomic = True

    @rule(node=st.sampled_from(NODES))
    def be_gone(self, node: str) -> None:
        """Let a node end for good, and a janitor take back what it has left."""
        if node in self.processes:
            self.kill(self.processes[node])
        stored = drive(self.books.get(Node, node))
        if stored is not None:
            drive(self.books.delete(Node, node, if_revision=stored.revision))
        estate = estates(self.blocks(), self.all(BlockAffinity)).get(node, Estate(node))
        lost = {turn.address for turn in estate.turns}
        for handle, assignment in list(self.held.items()):
            if any(one.interface.ip in lost for one in assignment.addresses):
                del self.held[handle]
                self.unsettled.add(handle)
        died: list[bool] = []
        store = self.connection(died)
        view = DatastoreView(store)
        janitor = Estates(store, view=view, clock_ns=self.clock_ns, sleep=pause)
        process = Process(self.new_process(node).allocator, died)
        self.start(Operation(_done(janitor.collect(estate)), process))

    @rule(node=st.sampled_from(NODES))
    def come_back(self, node: str) -> None:
        """Let a node have its object again, with or without what it had."""
        if drive(self.books.get(Node, node)) is None:
            drive(self.books.create(Node(node)))
            died: list[bool] = []
            work = show_presence(self.connection(died), node=node, sleep=pause)
            self.start(Operation(work, Process(self.new_process(node).allocator, died)))


class ThreeNodesOnDisk(ThreeNodesWithTransactions):
    """The same in a file of SQLite, each process with a connection of its own."""

    def prepare(self) -> None:
        self.directory = tempfile.mkdtemp(dir="/dev/shm")
        self.opened: list[Datastore] = []

    def open(self) -> Datastore:
        opened: Datastore = drive(open_sqlite(Path(self.directory) / "books.db"))
        self.opened.append(opened)
        return opened

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            for one in self.opened:
                drive(one.close())
            shutil.rmtree(self.directory)


TestThreeNodes = ThreeNodes.TestCase
TestThreeNodesWithTransactions = ThreeNodesWithTransactions.TestCase
TestThreeNodesOnDisk = ThreeNodesOnDisk.TestCase
for machine, share in (
    (TestThreeNodes, 1),
    (TestThreeNodesWithTransactions, 1),
    (TestThreeNodesOnDisk, 4),  # slower
):
    machine.settings = settings(
        max_examples=max(EXAMPLES // share, 1), stateful_step_count=50, deadline=None
    )
del machine  # or pytest would find it a third time
