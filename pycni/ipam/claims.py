"""How a node gets and gives up a block: the state machine of affinities, by compare-and-swap.

pending → confirmed → pendingDeletion.  A claim writes the affinity (pending), then the block with
its owner and the affinity (confirmed); only confirmed ones are routed or advertised.  A release
writes the affinity (pendingDeletion), then lets block and affinity go.  Where the datastore has
transactions, the second of two writes is one.

What a crash leaves, and who heals it:

* affinity pending, no block; or, without transactions, affinity pending and the block: the node's
  next request that needs a block finds the affinity among its own and repeats the claim, which goes
  on from there;
* affinity pendingDeletion: the same, the claim takes it back; or a repeated release finishes it;
* either of the two, and somebody holds an address of the block: it was given meanwhile, and nobody
  advertises it.  `lost` finds it; the next request that needs a block claims it, and so does the
  janitor;
* without transactions, a block of the node's to which it has no affinity: a claim died after it
  had made the block, while a release that had seen none took the affinity.  `lost` finds it too;
* block without owner that still has addresses: it goes when its last address is released.
"""

from collections.abc import Callable
from dataclasses import replace

from pycni.errors import AlreadyExists, Conflict, NotFound
from pycni.ipam import block as arithmetic
from pycni.ipam.blocks import Blocks
from pycni.ipam.books import sound
from pycni.ipam.cooldown import Cooldown
from pycni.ipam.retries import ATTEMPTS, Retries, gave_up
from pycni.model.network import IPNetwork
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    affinity_name,
    cidr_name,
)
from pycni.ports import Creation, Datastore, Deletion, Replacement, Stored, Write


class Claims:
    """Claims and releases blocks for one node."""

    __slots__ = ("_blocks", "_clock_ns", "_cooldown", "_datastore", "_node", "_retries")

    def __init__(
        self,
        datastore: Datastore,
        *,
        blocks: Blocks,
        node: str,
        retries: Retries,
        clock_ns: Callable[[], int],
        cooldown: Cooldown,
    ) -> None:
        self._datastore = datastore
        self._blocks = blocks
        self._node = node
        self._retries = retries
        self._clock_ns = clock_ns
        self._cooldown = cooldown

    async def claim(self, cidr: IPNetwork) -> bool:
        """Make a block the node's own and confirm it; return False when somebody else owns it.

        Idempotent, and takes up a claim or a release that was interrupted.
        """
        for attempt in range(ATTEMPTS):
            await self._retries.pause(attempt)
            try:
                affinity = await self._pending(cidr)
                if await self._take(cidr, affinity):
                    return True
                await self._delete_affinity(affinity)
            except (Conflict, AlreadyExists, NotFound):
                # Another process of this node, or the owner, was here at the same time.
                continue
            return False
        raise gave_up(f"claim block {cidr} for {self._node}")

    async def lost(self) -> list[IPNetwork]:
        """Return the blocks that say that they are the node's, and which it doesn't advertise.

        It has no affinity to them, or an unconfirmed one while somebody holds an address.
        """
        # Affinities second: a claim that is under way has its own before the block is there.
        blocks = [stored.value for stored in (await self._datastore.list(Block)).items]
        affinities = [stored.value for stored in (await self._datastore.list(BlockAffinity)).items]
        states = {one.cidr: one.state for one in affinities if one.node == self._node}
        return [
            block.cidr
            for block in sound(blocks)
            if block.affinity == self._node and _is_lost(block, states.get(block.cidr))
        ]

    async def _affinity(self, cidr: IPNetwork) -> Stored[BlockAffinity] | None:
        return await self._datastore.get(BlockAffinity, affinity_name(self._node, cidr=cidr))

    async def _pending(self, cidr: IPNetwork) -> Stored[BlockAffinity]:
        """Announce the claim; an affinity that is confirmed already stays so."""
        stored = await self._affinity(cidr)
        if stored is None:
            wanted = BlockAffinity(self._node, cidr, AffinityState.PENDING)
            return await self._datastore.create(wanted)
        if stored.value.state is AffinityState.CONFIRMED:
            return stored
        # Written even where it is pending already: the new revision makes a release that is going
        # on in another process fail, so that only one of the two can finish.
        again = replace(stored.value, state=AffinityState.PENDING)
        return await self._datastore.update(again, if_revision=stored.revision)

    async def _take(self, cidr: IPNetwork, affinity: Stored[BlockAffinity]) -> bool:
        """Make the block, or touch ours, and confirm; return False when it is not ours."""
        stored = await self._blocks.get(cidr)
        write: Write
        if stored is None:
            number = self._clock_ns()
            fresh = arithmetic.new_block(cidr, affinity=self._node, sequence_number=number)
            write = Creation(fresh)
        elif stored.value.affinity != self._node:
            return False
        else:
            # For the reason given in `_pending`.
            number = stored.value.sequence_number + 1
            write = Replacement(replace(stored.value, sequence_number=number), stored.revision)
        # Confirmed before or not: its new revision stops a release that has seen no block yet.
        confirmed = replace(affinity.value, state=AffinityState.CONFIRMED)
        await self._write_block(cidr, write, Replacement(confirmed, affinity.revision))
        return True

    async def _write_block(self, cidr: IPNetwork, write: Write, of_affinity: Write) -> None:
        # Whatever happens: only an answer says what it is now.
        self._blocks.forget(cidr)
        written, _ = await self._datastore.write([write, of_affinity])
        if written is not None:
            self._blocks.remember(written)

    async def _delete_affinity(self, stored: Stored[BlockAffinity]) -> None:
        await self._datastore.write([self._deletion(stored)])

    async def release(self, cidr: IPNetwork, *, only_if_empty: bool = False) -> bool:
        """Give a block up; return whether the node no longer owns it.

        A block of which nobody holds an address is deleted.  Another loses its owner; with
        `only_if_empty` it stays as it is, as does one with addresses that rest.
        """
        for attempt in range(ATTEMPTS):
            await self._retries.pause(attempt)
            try:
                return await self._release_once(cidr, only_if_empty=only_if_empty)
            except (Conflict, NotFound):
                continue
        raise gave_up(f"release block {cidr} of {self._node}")

    async def _release_once(self, cidr: IPNetwork, *, only_if_empty: bool) -> bool:
        affinity = await self._affinity(cidr)
        if affinity is None:
            return True
        block = await self._blocks.get(cidr)
        is_ours = block is not None and block.value.affinity == self._node
        if is_ours and block and only_if_empty:
            rested = await self._cooldown.rested()
            if not arithmetic.is_empty(arithmetic.awake(block.value, rested=rested)):
                if affinity.value.state is AffinityState.CONFIRMED:
                    return False
                # This release or another has begun already, and an address was given meanwhile.
                return not await self.claim(cidr)
        leaving = replace(affinity.value, state=AffinityState.PENDING_DELETION)
        affinity = await self._datastore.update(leaving, if_revision=affinity.revision)
        if is_ours and block:
            # As it was read above: an address given meanwhile makes this a conflict, and the
            # repetition looks again whether it is empty.
            await self._write_block(cidr, _letting_go(block), self._deletion(affinity))
        else:
            await self._delete_affinity(affinity)
        return True

    def _deletion(self, stored: Stored[BlockAffinity]) -> Deletion:
        name = affinity_name(self._node, cidr=stored.value.cidr)
        return Deletion(BlockAffinity, name, stored.revision)


def _is_lost(block: Block, state: AffinityState | None) -> bool:
    is_confirmed = state is AffinityState.CONFIRMED
    return state is None or (arithmetic.is_held(block) and not is_confirmed)


def _letting_go(block: Stored[Block]) -> Write:
    if arithmetic.is_held(block.value):
        return Replacement(arithmetic.without_affinity(block.value), block.revision)
    return Deletion(Block, cidr_name(block.value.cidr), block.revision)
