"""How a node gets and gives up a block: the state machine of affinities, by compare-and-swap.

pending → confirmed → pendingDeletion.  A claim writes the affinity (pending), then the block with
its owner, then the affinity again (confirmed); only confirmed ones are routed or advertised.

What a crash leaves, and who heals it:

* affinity pending, no block; or affinity pending and the block: the node's next request that
  needs a block finds the affinity among its own and repeats the claim, which goes on from there;
* affinity pendingDeletion: the same, the claim takes it back; or a repeated release finishes it;
* block without owner that still has addresses: it goes when its last address is released.
"""

from collections.abc import Callable
from dataclasses import replace

from pycni.errors import AlreadyExists, Conflict, NotFound
from pycni.ipam import block as arithmetic
from pycni.ipam.blocks import Blocks
from pycni.ipam.cooldown import Cooldown
from pycni.ipam.retries import ATTEMPTS, Retries, gave_up
from pycni.model.network import IPNetwork
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    affinity_name,
)
from pycni.ports import Datastore, Stored


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
                if await self._own_block(cidr):
                    await self._confirm(affinity)
                    return True
                await self._delete_affinity(affinity)
            except (Conflict, AlreadyExists, NotFound):
                # Another process of this node, or the owner, was here at the same time.
                continue
            return False
        raise gave_up(f"claim block {cidr} for {self._node}")

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

    async def _own_block(self, cidr: IPNetwork) -> bool:
        """Create the block, or touch ours; return False when it is another's or nobody's."""
        stored = await self._blocks.get(cidr)
        if stored is None:
            fresh = arithmetic.new_block(
                cidr, affinity=self._node, sequence_number=self._clock_ns()
            )
            await self._blocks.create(fresh)
            return True
        if stored.value.affinity != self._node:
            return False
        # For the reason given in `_pending`.
        touched = replace(stored.value, sequence_number=stored.value.sequence_number + 1)
        await self._blocks.update(stored, touched)
        return True

    async def _confirm(self, stored: Stored[BlockAffinity]) -> None:
        if stored.value.state is not AffinityState.CONFIRMED:
            confirmed = replace(stored.value, state=AffinityState.CONFIRMED)
            await self._datastore.update(confirmed, if_revision=stored.revision)

    async def _delete_affinity(self, stored: Stored[BlockAffinity]) -> None:
        name = affinity_name(self._node, cidr=stored.value.cidr)
        await self._datastore.delete(BlockAffinity, name, if_revision=stored.revision)

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
                return False
        leaving = replace(affinity.value, state=AffinityState.PENDING_DELETION)
        affinity = await self._datastore.update(leaving, if_revision=affinity.revision)
        # The block as it was read above: an address given meanwhile makes this a conflict, and
        # the repetition looks again whether it is empty.
        if is_ours and block:
            await self._let_go(block)
        await self._delete_affinity(affinity)
        return True

    async def _let_go(self, block: Stored[Block]) -> None:
        if not arithmetic.is_held(block.value):
            await self._blocks.delete(block)
        else:
            await self._blocks.update(block, arithmetic.without_affinity(block.value))
