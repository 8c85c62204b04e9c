"""Mend what an audit found and what needs no judgement, by compare-and-swap.

A finding is a reason to look, never a reason to write: each is decided anew on what is read just
before the write, and what is right by then is left alone.

* A handle is recounted from the blocks, and once more after each write: an address given meanwhile
  is counted too.
* A confirmed affinity without a block of its node is given up as `pycni.ipam.claims` does it.  A
  claim that believed in it may make the block at the same time, and finds nothing to confirm; so
  whoever gave it up looks once more, and claims such a block for its owner.
* A block without affinity is claimed for its owner, as that does it, if it has a Node object, or
  if its addresses are Services'.
* An empty block in no pool is deleted, its affinity with it.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from pycni.errors import AlreadyExists, Conflict, NotFound
from pycni.ipam import block as arithmetic
from pycni.ipam.blocks import Blocks
from pycni.ipam.books import Books, handle_name, held_by_name, recounted
from pycni.ipam.claims import Claims
from pycni.ipam.cooldown import Cooldown
from pycni.ipam.findings import Finding, Kind
from pycni.ipam.pools import pool_of
from pycni.ipam.requests import DatastoreView
from pycni.ipam.retries import ATTEMPTS, Retries, Sleep, asyncio_sleep, gave_up
from pycni.model.network import IPNetwork
from pycni.model.prefix import network_order
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    Handle,
    IPPool,
    Node,
    affinity_name,
    cidr_name,
)
from pycni.model.service_ranges import LOAD_BALANCER
from pycni.ports import Datastore, Stored

HANDLES = frozenset({Kind.ADDRESS_WITHOUT_HANDLE, Kind.ADDRESS_NOT_COUNTED, Kind.HANDLE_MISCOUNTS})
AFFINITIES = frozenset({Kind.AFFINITY_WITHOUT_BLOCK, Kind.AFFINITY_FOR_OTHERS_BLOCK})


class Mending:
    """Mends the books in a datastore."""

    __slots__ = ("_blocks", "_claims", "_cooldown", "_datastore", "_retries")

    def __init__(
        self,
        datastore: Datastore,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        sleep: Sleep = asyncio_sleep,
    ) -> None:
        self._datastore = datastore
        self._blocks = Blocks(datastore)
        self._cooldown = Cooldown(DatastoreView(datastore), clock_ns=clock_ns)
        self._retries = Retries(sleep=sleep)
        self._claims = partial(
            Claims,
            datastore,
            blocks=self._blocks,
            retries=self._retries,
            clock_ns=clock_ns,
            cooldown=self._cooldown,
        )

    async def mend(self, findings: Sequence[Finding]) -> list[str]:
        """Mend what can be mended; return what was done, a sentence each."""
        done: list[str] = []
        # Several addresses of one handle are one thing to mend.
        for name in dict.fromkeys(_handles_in(findings)):
            done += await self._mend_handle(name)
        for finding in findings:
            cidr, node = finding.block, finding.node
            if finding.kind in AFFINITIES and cidr is not None and node is not None:
                done += await self._mend_affinity(node, cidr)
            elif finding.kind is Kind.BLOCK_WITHOUT_POOL and cidr is not None:
                done += await self._mend_block(cidr)
            elif finding.kind is Kind.BLOCK_WITHOUT_AFFINITY and cidr is not None:
                done += await self._claim_for_owner(cidr)
        return done

    # --- handles --------------------------------------------------------------------------------

    async def _mend_handle(self, name: str) -> list[str]:
        before = await self._datastore.get(Handle, name)
        after = before
        for attempt in range(ATTEMPTS):
            await self._retries.pause(attempt)
            # The handle first: an address given after that changes its revision.
            stored = await self._datastore.get(Handle, name)
            have = None if stored is None else stored.value
            want = await self._recounted(name, have)
            if want == have:
                after = stored
                break
            try:
                await self._write_handle(name, stored, want)
            except (AlreadyExists, Conflict, NotFound):
                continue
        else:
            raise gave_up(f"recount handle {name}")
        return _told(name, before, after)

    async def _recounted(self, name: str, have: Handle | None) -> Handle | None:
        """Count anew, but leave as they are the counts of blocks from which nothing follows."""
        listed = [stored.value for stored in (await self._datastore.list(Block)).items]
        sound = Books(blocks=tuple(listed)).sound_blocks
        corrupt = {block.cidr for block in listed} - {block.cidr for block in sound}
        want = recounted(have, held_by_name(sound).get(name, {}))
        kept = [entry for entry in (have.blocks if have else ()) if entry[0] in corrupt]
        if not kept or have is None:
            return want
        counts = [*kept, *(want.blocks if want else ())]
        return Handle(have.id, tuple(sorted(counts, key=lambda one: network_order(one[0]))))

    async def _write_handle(
        self, name: str, stored: Stored[Handle] | None, want: Handle | None
    ) -> None:
        if stored is None:
            if want is not None:
                await self._datastore.create(want)
        elif want is None:
            await self._datastore.delete(Handle, name, if_revision=stored.revision)
        else:
            await self._datastore.update(want, if_revision=stored.revision)

    # --- affinities -----------------------------------------------------------------------------

    async def _mend_affinity(self, node: str, cidr: IPNetwork) -> list[str]:
        stored = await self._datastore.get(BlockAffinity, affinity_name(node, cidr=cidr))
        if stored is None or stored.value.state is not AffinityState.CONFIRMED:
            return []
        if await self._is_owner(node, cidr):
            return []
        claims = self._claims(node=node)
        await claims.release(cidr, only_if_empty=True)
        if await self._is_owner(node, cidr):
            await claims.claim(cidr)
            return []
        return [f"dropped {node}'s affinity for {cidr}"]

    async def _is_owner(self, node: str, cidr: IPNetwork) -> bool:
        block = await self._datastore.get(Block, cidr_name(cidr))
        return block is not None and block.value.affinity == node

    async def _claim_for_owner(self, cidr: IPNetwork) -> list[str]:
        """Claim a block that is there for the node whose it says it is."""
        stored = await self._blocks.get(cidr)
        owner = None if stored is None else stored.value.affinity
        if owner is None or not await self._is_there(owner):
            return []
        if await self._datastore.get(BlockAffinity, affinity_name(owner, cidr=cidr)) is not None:
            return []
        if not await self._claims(node=owner).claim(cidr):
            return []
        return [f"claimed block {cidr} for {owner}"]

    async def _is_there(self, owner: str) -> bool:
        """Tell whether somebody goes on with a block: a node, or whoever serves Services."""
        return owner == LOAD_BALANCER or await self._datastore.get(Node, owner) is not None

    # --- blocks ---------------------------------------------------------------------------------

    async def _mend_block(self, cidr: IPNetwork) -> list[str]:
        pools = [stored.value for stored in (await self._datastore.list(IPPool)).items]
        if pool_of(pools, cidr) is not None:
            return []
        if await self.delete_empty_block(cidr):
            return [f"deleted block {cidr}, which was empty and in no pool"]
        return []

    async def delete_empty_block(self, cidr: IPNetwork) -> bool:
        """Delete a block of which nothing is in use or rests; return whether it is gone.

        Its owner's affinity goes with it.  A block whose owner has none is deleted as it was read:
        nobody claims it.
        """
        stored = await self._blocks.get(cidr)
        if stored is None:
            return True
        rested = await self._cooldown.rested()
        if not arithmetic.is_empty(arithmetic.awake(stored.value, rested=rested)):
            return False
        owner = stored.value.affinity
        if owner is not None:
            is_gone = await self._claims(node=owner).release(cidr, only_if_empty=True)
            if not is_gone:
                return False
        try:
            await self._blocks.delete(stored)
        except NotFound:
            return True  # it went with its affinity
        except Conflict:
            return False
        return True


def _handles_in(findings: Iterable[Finding]) -> list[str]:
    return [
        handle_name(finding.handle_id)
        for finding in findings
        if finding.kind in HANDLES and finding.handle_id is not None
    ]


def _told(name: str, before: Stored[Handle] | None, after: Stored[Handle] | None) -> list[str]:
    if before == after:
        return []
    if after is None:
        return [f"deleted handle {name}, which holds nothing"]
    counts = ", ".join(f"{count} of {cidr}" for cidr, count in after.value.blocks)
    verb = "made" if before is None else "recounted"
    return [f"{verb} handle {name}: {counts}"]
