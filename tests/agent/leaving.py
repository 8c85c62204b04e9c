"""What of an agent makes its node a member of the network, over fakes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from pycni.agent.departure import Departure
from pycni.agent.messages import Leaving
from pycni.agent.registration import Registration
from pycni.datastore.memory import MemoryDatastore
from pycni.ipam.block import given
from pycni.ipam.books import node_of
from pycni.leaving import LeaveWish
from pycni.model.network import IPAddress
from pycni.model.resources import Block, BlockAffinity, Handle, Node
from pycni.plan.peering import wanted_neighbours
from pycni.ports import Datastore
from tests.agent.cluster import Cluster, NodeAgent

PODS = ["default/web-node-0"]
THEIRS = ["192.168.84.128/26", "192.168.247.0/26"]


class Member:
    """What of an agent makes its node a member of the network, beside the other tasks."""

    def __init__(
        self,
        agent: NodeAgent,
        store: Datastore | None = None,
        *,
        makes_node: bool = True,
        wish: LeaveWish | None = None,
    ) -> None:
        self.agent = agent
        self.retracted = 0
        store = store or agent.datastore
        self.wish = wish or LeaveWish(agent.run_dir.parent / "state")
        agent.engine.is_leaving = self.wish.is_there
        self.departure = Departure(
            store,
            agent.allocator,
            agent.endpoints,
            node=agent.name,
            wish=self.wish,
            changed=self._changed,
            untold=self._untold,
            report=agent.report,
            retract=self._retract,
        )
        self.registration = Registration(
            store,
            agent.allocator,
            node=agent.name,
            addresses=agent.addresses,
            report=agent.report,
            makes_node=makes_node,
            departure=self.departure,
        )
        agent.post(Leaving(self.wish.is_there()))

    def _changed(self, is_leaving: bool) -> None:  # a callback
        self.agent.post(Leaving(is_leaving))
        self.registration.wake()

    async def _untold(self) -> Sequence[IPAddress]:
        reconciler, speaker = self.agent.reconciler, self.agent.speaker
        assert reconciler is not None
        assert speaker is not None
        await reconciler.settled()
        wanted = (n.peer for n in wanted_neighbours(self.agent.facts.inputs))
        return [peer for peer in wanted if not speaker.has_told(peer)]

    async def _retract(self) -> None:
        self.retracted += 1

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.registration.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def state(self) -> str:
        return str(self.departure.said()["state"])


async def empty(agent: NodeAgent) -> None:
    for pod in PODS:
        await agent.delete(pod)


async def under(made: Cluster, name: str) -> list[str]:
    """Return all that the datastore has under a node's name."""
    store = MemoryDatastore(made.store)
    affinities = [one.value for one in (await store.list(BlockAffinity)).items]
    blocks = [one.value for one in (await store.list(Block)).items]
    handles = [one.value.id for one in (await store.list(Handle)).items]
    return [
        *(f"affinity {one.cidr}" for one in affinities if one.node == name),
        *(f"block {one.cidr}" for one in blocks if one.affinity == name),
        *(str(a.address) for b in blocks for a in given(b) if node_of(a.attribute) == name),
        *(handle for handle in handles if handle.endswith(name)),
        *(f"node {one.value.name}" for one in (await store.list(Node)).items if name in str(one)),
    ]


def learned(routes: Sequence[str]) -> list[str]:
    return [line.partition(" ")[0] for line in routes if " via " in line]
