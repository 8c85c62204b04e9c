"""The loops around blocks: read, decide by `pycni.ipam.block`, compare-and-swap, or read again.

One address is found in three stages: in the node's own blocks; in a new block, the first of the
node's order that does not exist; in another node's block (borrowed), unless forbidden.

Blocks and handles are remembered, and what is remembered is tried first: correctness rests on
comparing revisions alone.  Whatever somebody else has changed meanwhile costs a repetition.

Writes, in this order: handle, block; in the common case as one, which is atomic where the datastore
has transactions.  What a crash or a cancelled task leaves between two writes:

* after the handle, before the block: the handle counts one too many.  Whoever releases by this
  handle (DEL, garbage collection, replay of the journal) finds no such address in the block and
  drops the count;
* while claiming a block: see `pycni.ipam.claims`;
* releasing, after the block, before the handle: the same as the first; a repeated DEL drops it.

A task that is cancelled, or an error, undoes its own writes at once; the above remains only where
that fails too.  Requests for one handle must not run at the same time as its release: the caller
holds the endpoint's lock.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from pycni.errors import Exhausted
from pycni.ipam import block as arithmetic
from pycni.ipam.beyond import Beyond, Wanted
from pycni.ipam.blocks import Blocks
from pycni.ipam.books import key_of
from pycni.ipam.choices import Choose, any_address, one_address
from pycni.ipam.claims import Claims
from pycni.ipam.cooldown import Cooldown
from pycni.ipam.firsts import Firsts
from pycni.ipam.giving import Given, Giving, assigned
from pycni.ipam.handles import Handles
from pycni.ipam.own import Own, OwnBlocks, node_labels
from pycni.ipam.pools import pool_of, turned_away
from pycni.ipam.refusals import cut_otherwise
from pycni.ipam.releases import Releases, undoing
from pycni.ipam.requests import Assignment, AssignRequest, DatastoreView, Released, View
from pycni.ipam.retries import (
    ATTEMPTS,
    Observe,
    Retries,
    Sleep,
    asyncio_sleep,
    gave_up,
    observe_nothing,
)
from pycni.ipam.selection import block_of
from pycni.ipam.together import Together
from pycni.model.endpoints import AssignedAddress, EndpointKey
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import Block, BlockAffinity, IPPool
from pycni.ports import Datastore, Stored


class Allocator:
    """Gives and takes addresses for one node; any number of them may share a datastore."""

    def __init__(
        self,
        datastore: Datastore,
        *,
        node: str,
        view: View | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        sleep: Sleep = asyncio_sleep,
        observe: Observe = observe_nothing,
        has_company: Callable[[], bool] = lambda: False,
    ) -> None:
        self._datastore = datastore
        self._node = node
        self._truth = DatastoreView(datastore)
        self._view: View = self._truth if view is None else view
        self._clock_ns = clock_ns
        self._retries = Retries(sleep=sleep, observe=observe)
        retries, blocks = self._retries, Blocks(datastore)
        handles = Handles(datastore, retries=retries)
        self._blocks = blocks
        self._cooldown = Cooldown(self._view, clock_ns=clock_ns)
        together = Together(datastore, blocks=blocks, retries=retries, has_company=has_company)
        self._releases = releases = Releases(
            datastore, blocks=blocks, handles=handles, retries=retries, together=together
        )
        self._giving = Giving(
            node=node, blocks=blocks, handles=handles, releases=releases, retries=retries
        )
        self._firsts = Firsts(
            node=node, together=together, handles=handles, releases=releases, retries=retries
        )
        self._claims = claims = self._new_claims()
        self._beyond = Beyond(
            datastore,
            node=node,
            truth=self._truth,
            blocks=blocks,
            claims=claims,
            giving=self._giving,
            firsts=self._firsts,
            retries=retries,
            clock_ns=clock_ns,
        )
        self._own = OwnBlocks(self._view, truth=self._truth, node=node)

    def _new_claims(self) -> Claims:
        return Claims(
            self._datastore,
            blocks=self._blocks,
            node=self._node,
            retries=self._retries,
            clock_ns=self._clock_ns,
            cooldown=self._cooldown,
        )

    # --- giving ---------------------------------------------------------------------------------

    async def assign(self, request: AssignRequest) -> Assignment:
        """Give the addresses asked for, all or none.

        Raises `Exhausted` when no pool has one left, `AlreadyExists` when a particular address
        is in use, `InvalidInput` for pools and addresses that do not exist.
        """
        given: list[Given] = []
        wants = request.wants
        try:
            if request.is_first:
                given += await self._assign_first(request, wants[0])
            for want in wants[len(given) :]:
                # One by one: when a later one fails, those before it have to be given back.
                is_new = request.is_first and not given
                given.append(await self._assign_one(request, want, is_new=is_new))
        except BaseException as exc:
            addresses = [address for address, _ in given]
            if addresses:
                undo = partial(self._releases.give_back, addresses, request.handle_id)
                await undoing(exc, undo)
            raise
        return Assignment(
            addresses=tuple(address for address, _ in given),
            borrowed=frozenset(one.interface.ip for one, is_borrowed in given if is_borrowed),
        )

    async def assign_in(self, cidr: IPNetwork, request: AssignRequest) -> AssignedAddress | None:
        """Give an address of just this block of the node's; None when it has none left."""
        own = await self._own.serving(request, cidr.version)
        given = await self._give(cidr, await self._any(request, own), request.handle_id)
        return given[0] if given else None

    async def _assign_first(self, request: AssignRequest, want: IPAddress | int) -> Sequence[Given]:
        """Go ahead as if nothing had been left under the handle; or else release it, give none.

        Going ahead is safe where the handle proves to be new before anything else is written.
        """
        if isinstance(want, int):
            own = await self._serving(request, want)
            if given := await self._assign_own(request, own, is_first=True):
                return (given,)
        await self._firsts.clear(request)
        return ()

    async def _assign_one(
        self, request: AssignRequest, want: IPAddress | int, *, is_new: bool
    ) -> Given:
        if isinstance(want, int):
            return await self._assign_any(request, want, is_new=is_new)
        return await self._assign_particular(request, want)

    async def _assign_any(self, request: AssignRequest, version: int, *, is_new: bool) -> Given:
        own = await self._serving(request, version)
        if given := await self._assign_own(request, own):
            return given
        if not request.pools_for(version):
            await self._release_unselected(own.affinities, own.known)
        choose, choose_any = [
            await self._any(request, own, may_borrow=may_borrow) for may_borrow in (False, True)
        ]
        return await self._beyond.assign(
            Wanted(request, own, version, choose, choose_any, is_new=is_new)
        )

    async def _serving(self, request: AssignRequest, version: int) -> Own:
        """Return what may serve; where no pool means this node any more, let go of what it has."""
        try:
            return await self._own.serving(request, version)
        except Exhausted:
            if not request.pools_for(version):
                affinities = await self._truth.affinities(self._node)
                await self._release_unselected(affinities, await self._truth.pools())
            raise

    async def _assign_own(
        self, request: AssignRequest, own: Own, *, is_first: bool = False
    ) -> Given | None:
        """Give an address of the first of the node's blocks that has one.

        Those that are remembered as full are read last, so that an ADD costs the same however
        many of them there are; before going beyond its own, a node knows the truth of each.
        """
        choose = await self._any(request, own)
        last: list[IPNetwork] = []
        for cidr in own.cidrs:
            recalled = self._blocks.recall(cidr)
            if recalled is not None and not self._may_serve(recalled.value):
                last.append(cidr)
                continue
            stored = recalled or await self._blocks.get(cidr)
            if stored is None:
                continue
            if is_first:
                # Whoever goes ahead comes back if that fails, and must not skip a block.
                return await self._firsts.give(stored, choose, request)
            if given := await self._giving.give(stored, choose, request.handle_id):
                return given
            if recalled is not None:
                last.append(cidr)  # reserved or resting, as far as is remembered
        # Whoever goes ahead comes back, and then without memory.
        for cidr in () if is_first else last:
            if given := await self._give(cidr, choose, request.handle_id):
                return given
        return None

    async def _any(self, request: AssignRequest, own: Own, *, may_borrow: bool = False) -> Choose:
        return any_address(
            request,
            only_of=None if may_borrow else self._node,
            reserved=own.reserved,
            rested=await self._cooldown.rested(),
        )

    def _may_serve(self, block: Block) -> bool:
        return arithmetic.may_have_room(block) and block.affinity == self._node

    async def _give(self, cidr: IPNetwork, choose: Choose, handle_id: str) -> Given | None:
        """Give an address of a block as it is now."""
        stored = await self._blocks.get(cidr)
        return None if stored is None else await self._giving.give(stored, choose, handle_id)

    async def _release_unselected(
        self, affinities: Sequence[BlockAffinity], known: Sequence[IPPool]
    ) -> None:
        """Give up empty blocks of pools that have turned away from this node."""
        labels = await node_labels(self._truth, known, self._node)
        for affinity in affinities:
            pool = pool_of(known, affinity.cidr)
            if pool is not None and turned_away(pool, labels):
                await self._claims.release(affinity.cidr, only_if_empty=True)

    async def _assign_particular(self, request: AssignRequest, address: IPAddress) -> Given:
        pool = await self._own.holding(request, address)
        cidr = block_of(address, block_size=pool.block_size)
        is_strict = (await self._truth.config()).is_strict_affinity
        choose = one_address(request, address, only_of=self._node if is_strict else None)
        for attempt in range(ATTEMPTS):
            await self._retries.pause(attempt)
            if stored := await self._blocks.get(cidr):
                if held := _held(stored, address, request):
                    return held, stored.value.affinity != self._node
                if given := await self._giving.give(stored, choose, request.handle_id):
                    return given
            elif other := await self._beyond.beside(cidr):
                if address not in other:
                    what = f"{address} to {request.handle_id}"
                    raise cut_otherwise(what, cidr=cidr, other=other)
                cidr = other
            else:
                # When somebody else claims it first, the address is borrowed.
                await self._claims.claim(cidr)
        raise gave_up(f"assign {address}")

    # --- taking back ----------------------------------------------------------------------------

    async def release(
        self, addresses: Sequence[AssignedAddress], *, handle_id: str, was_used: bool = False
    ) -> Released:
        """Take addresses back, each only if this handle has it with this sequence number.

        What is free already counts as done.  What `was_used` rests first, if that is configured.
        """
        since = await self._cooldown.resting_since() if was_used else None
        return await self._releases.release(addresses, handle_id=handle_id, resting_since=since)

    async def release_by_handle(
        self,
        handle_id: str,
        *,
        key: EndpointKey | None = None,
        addresses: Sequence[AssignedAddress] = (),
        was_used: bool = False,
    ) -> tuple[IPAddress, ...]:
        """Take back all that a handle holds, and the handle; an unknown one is success.

        With a `key`, what is not another attachment's.  `addresses` are taken back, as by
        `release`, even where no handle tells of them.
        """
        since = await self._cooldown.resting_since() if was_used else None
        return await self._releases.release_by_handle(
            handle_id, key=key, addresses=addresses, resting_since=since
        )

    async def release_affinity(self, cidr: IPNetwork, *, only_if_empty: bool = False) -> bool:
        """Give up one of the node's blocks; return whether it is no longer the node's."""
        return await self._claims.release(cidr, only_if_empty=only_if_empty)

    async def take_up_lost(self) -> list[IPNetwork]:
        """Claim the node's blocks that it has no affinity to, or uses without a confirmed one."""
        return [cidr for cidr in await self._claims.lost() if await self._claims.claim(cidr)]

    async def held_by(self, handle_id: str) -> tuple[arithmetic.Given, ...]:
        """Return what a handle holds, according to the blocks themselves."""
        return await self._releases.held_by(handle_id)


def _held(
    stored: Stored[Block], address: IPAddress, request: AssignRequest
) -> AssignedAddress | None:
    """Return an address that the handle holds already: repeating a request is no error."""
    for one in arithmetic.given_to(stored.value, request.handle_id):
        if one.address == address and key_of(one.attribute) in (None, request.key):
            return assigned(address, one.sequence_number)
    return None
