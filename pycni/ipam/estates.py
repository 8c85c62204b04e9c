"""Take back what a node that is gone has left, though it may return at any moment.

Two sides keep one rule, so that what a returning node sees as its own stays its own:

* `Estates.collect` reads a block, then looks whether there is a Node object, then writes the block
  if it is still as it was read;
* the agent writes its Node object, then `show_presence` writes each block in which its node has
  something.

Whichever order the two meet in, the first finds the object, or its write meets a conflict and it
looks again; or it was done before, and the agent sees what is left.
"""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial

from pycni.errors import Conflict, NotFound, TryAgain
from pycni.ipam import block as arithmetic
from pycni.ipam.blocks import Blocks
from pycni.ipam.books import corruption_of, node_of, with_count
from pycni.ipam.claims import Claims
from pycni.ipam.cooldown import Cooldown
from pycni.ipam.gone import Estate, Taking, take_from
from pycni.ipam.requests import View
from pycni.ipam.retries import ATTEMPTS, Retries, Sleep, asyncio_sleep, gave_up
from pycni.model.network import IPNetwork
from pycni.model.resources import Block, BlockAffinity, Handle, Node, affinity_name, cidr_name
from pycni.ports import Datastore, Deletion, Replacement, Stored, Write


class Estates:
    """Takes back from the books in a datastore.

    `leaving` names a node that gives all up by itself, and is no sign of life.
    """

    __slots__ = ("_blocks", "_claims", "_cooldown", "_datastore", "_leaving", "_retries")

    def __init__(
        self,
        datastore: Datastore,
        *,
        view: View,
        leaving: str | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        sleep: Sleep = asyncio_sleep,
    ) -> None:
        self._datastore = datastore
        self._leaving = leaving
        self._blocks = Blocks(datastore)
        self._cooldown = Cooldown(view, clock_ns=clock_ns)
        self._retries = Retries(sleep=sleep)
        self._claims = partial(
            Claims,
            datastore,
            blocks=self._blocks,
            retries=self._retries,
            clock_ns=clock_ns,
            cooldown=self._cooldown,
        )

    async def collect(self, estate: Estate) -> AsyncIterator[str]:
        """Take back block by block, saying what was done; raise `TryAgain` once the node is back.

        Others may do the same at the same time.
        """
        for cidr in estate.cidrs:
            if done := await self._collect_from(cidr, estate):
                yield done

    async def _collect_from(self, cidr: IPNetwork, estate: Estate) -> str:
        for attempt in range(ATTEMPTS):
            await self._retries.pause(attempt)
            try:
                return await self._collect_once(cidr, estate)
            except (Conflict, NotFound):
                continue
        raise gave_up(f"take back {cidr}, which node {estate.node} has left")

    async def _collect_once(self, cidr: IPNetwork, estate: Estate) -> str:
        name = affinity_name(estate.node, cidr=cidr)
        block = await self._blocks.get(cidr)
        affinity = await self._datastore.get(BlockAffinity, name)
        # After the block, for the reason given above.
        is_back = await self._is_back(estate.node)
        taking = await self._taking(block, estate)
        if is_back or taking is None or (affinity and cidr not in estate.blocks):
            raise TryAgain(f"node {estate.node} is back")
        # In an order that does no harm where a store does them one by one: what is left in between
        # is an affinity, which the next look finds, or handles that count too much.
        writes = self._block_writes(block, taking)
        handles = await self._handle_writes(cidr, taking) if writes else []
        if affinity is not None:
            writes.append(Deletion(BlockAffinity, name, affinity.revision))
        writes += handles
        if not writes:
            return ""
        await self._datastore.write(writes)
        if affinity is not None and (block is None or block.value.affinity != estate.node):
            await self._restore(cidr, estate.node)
        fate = "leaving" if estate.node == self._leaving else "gone"
        return f"{_said(cidr, block, taking)} of node {estate.node}, which is {fate}"

    async def _is_back(self, node: str) -> bool:
        return node != self._leaving and await self._datastore.get(Node, node) is not None

    async def _taking(self, block: Stored[Block] | None, estate: Estate) -> Taking | None:
        if block is None:
            return Taking(None, {})
        since = await self._cooldown.resting_since()
        return take_from(block.value, estate, resting_since=since)

    def _block_writes(self, block: Stored[Block] | None, taking: Taking) -> list[Write]:
        if block is None or taking.block == block.value:
            return []
        cidr = block.value.cidr
        self._blocks.forget(cidr)
        if taking.block is None:
            return [Deletion(Block, cidr_name(cidr), block.revision)]
        return [Replacement(taking.block, block.revision)]

    async def _handle_writes(self, cidr: IPNetwork, taking: Taking) -> list[Write]:
        writes: list[Write] = []
        for name, count in taking.handles.items():
            stored = await self._datastore.get(Handle, name)
            if stored is not None:
                after = with_count(stored.value, cidr, count)
                if after.blocks:
                    writes.append(Replacement(after, stored.revision))
                else:
                    writes.append(Deletion(Handle, name, stored.revision))
        return writes

    async def _restore(self, cidr: IPNetwork, node: str) -> None:
        """Claim a block for a node that believed in its affinity and made it at this moment."""
        block = await self._blocks.get(cidr)
        if block is not None and block.value.affinity == node:
            await self._claims(node=node).claim(cidr)


def _said(cidr: IPNetwork, block: Stored[Block] | None, taking: Taking) -> str:
    if block is None or taking.block == block.value:
        return f"affinity for {cidr}"
    return f"addresses in {cidr}" if taking.block and taking.block.affinity else f"block {cidr}"


async def show_presence(datastore: Datastore, *, node: str, sleep: Sleep = asyncio_sleep) -> None:
    """Have whoever takes this node for gone look again; call it after writing the Node object."""
    retries, blocks = Retries(sleep=sleep), Blocks(datastore)
    for listed in (await datastore.list(Block)).items:
        cidr = listed.value.cidr
        for attempt in range(ATTEMPTS):
            await retries.pause(attempt)
            stored = await datastore.get(Block, cidr_name(cidr)) if attempt else listed
            if stored is None or not _concerns(stored.value, node):
                break
            number = stored.value.sequence_number + 1
            try:
                await blocks.update(stored, replace(stored.value, sequence_number=number))
            except (Conflict, NotFound):
                continue
            break
        else:
            raise gave_up(f"show that node {node} is there in block {cidr}")


def _concerns(block: Block, node: str) -> bool:
    return not corruption_of(block) and (
        block.affinity == node
        or any(node_of(one.attribute) == node for one in arithmetic.given(block))
    )
