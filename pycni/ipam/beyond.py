"""Going beyond the node's own blocks when they are full: a new block, or another node's address.

Requests come in bursts, and all of them find the last block full at the same moment.  One of them
claims the next block while the others wait, and that block then serves them too: claims of one
process that ran at the same time would only refuse each other's writes.  Other processes are not
held up; between them the revisions decide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from pycni.ipam import block as arithmetic
from pycni.ipam.blocks import Blocks
from pycni.ipam.books import sound
from pycni.ipam.choices import Choose
from pycni.ipam.claims import Claims
from pycni.ipam.firsts import Firsts
from pycni.ipam.giving import Given, Giving
from pycni.ipam.own import Own, first_unclaimed, within
from pycni.ipam.pools import holds, overlapping, pool_of
from pycni.ipam.refusals import limit_reached, nothing_free
from pycni.ipam.requests import AssignRequest, View
from pycni.ipam.retries import ATTEMPTS, Retries, gave_up
from pycni.ipam.selection import rank
from pycni.ipam.turns import Turns
from pycni.model.network import IPNetwork
from pycni.model.resources import Block, IPAMConfig
from pycni.ports import Datastore

DEFAULT_MAX_BLOCKS = 20


@dataclass(slots=True)
class Wanted:
    """One request's address of one version, and which blocks have been tried for it in vain.

    `choose` takes from the node's blocks, `choose_any` from others' too.  `is_new`: its handle
    holds nothing yet.
    """

    request: AssignRequest
    own: Own
    version: int
    choose: Choose
    choose_any: Choose
    is_new: bool
    tried: set[IPNetwork] = field(default_factory=set)

    def __str__(self) -> str:
        return f"an IPv{self.version} address to {self.request.handle_id}"


class Beyond:
    """Finds an address where a node's own blocks have none."""

    def __init__(
        self,
        datastore: Datastore,
        *,
        node: str,
        truth: View,
        blocks: Blocks,
        claims: Claims,
        giving: Giving,
        firsts: Firsts,
        retries: Retries,
        clock_ns: Callable[[], int],
    ) -> None:
        self._datastore = datastore
        self._node = node
        self._truth = truth
        self._blocks = blocks
        self._claims = claims
        self._giving = giving
        self._firsts = firsts
        self._retries = retries
        self._clock_ns = clock_ns
        self._turns = Turns[int]()
        self._claimed: dict[int, IPNetwork] = {}

    async def assign(self, wanted: Wanted) -> Given:
        """Give an address of a block that was claimed just now, by whomever; or go and claim one.

        Raises `Exhausted` where there is none, in no block of the pools.
        """
        while True:
            async with self._turns.at(wanted.version):
                cidr = self._claimed_meanwhile(wanted)
                if cidr is None:
                    return await self._go(wanted)
            # Not in turn: those who have waited share the block's writes.
            if given := await self._give(cidr, wanted):
                return given

    def _claimed_meanwhile(self, wanted: Wanted) -> IPNetwork | None:
        """Return the block that was claimed last, if it may serve and was not tried yet."""
        cidr = self._claimed.get(wanted.version)
        if cidr is None or cidr in wanted.tried or pool_of(wanted.own.pools, cidr) is None:
            return None
        recalled = self._blocks.recall(cidr)
        if recalled is not None and not arithmetic.may_have_room(recalled.value):
            return None
        return cidr

    async def _give(self, cidr: IPNetwork, wanted: Wanted) -> Given | None:
        """Give an address of a block of the node's, with all who ask for one now if it can be."""
        wanted.tried.add(cidr)
        if wanted.is_new:
            stored = self._blocks.recall(cidr) or await self._blocks.get(cidr)
            request = wanted.request
            if stored is not None and (
                given := await self._firsts.give(stored, wanted.choose, request)
            ):
                return given
            # It may have been the handle: then something is under it now.
            await self._firsts.clear(request)
        return await self._give_of(cidr, wanted.choose, wanted)

    async def _give_of(self, cidr: IPNetwork, choose: Choose, wanted: Wanted) -> Given | None:
        """Give an address of a block as it is now."""
        stored = await self._blocks.get(cidr)
        if stored is None:
            return None
        return await self._giving.give(stored, choose, wanted.request.handle_id)

    async def _go(self, wanted: Wanted) -> Given:
        """Take up unfinished claims, then claim new blocks, then borrow."""
        own = wanted.own
        # The truth, not the view: a block claimed a moment ago must not cost another one.
        affinities = within(await self._truth.affinities(self._node), own.pools)
        lost = [cidr for cidr in await self._claims.lost() if pool_of(own.pools, cidr) is not None]
        for cidr in dict.fromkeys([*(affinity.cidr for affinity in affinities), *lost]):
            if cidr in own.cidrs or cidr in wanted.tried or await self.beside(cidr):
                continue
            if await self._claim(cidr, wanted) and (given := await self._give(cidr, wanted)):
                return given
        config = await self._truth.config()
        if config.is_auto_allocating_blocks and (
            given := await self._from_new_block(wanted, config)
            or (None if config.is_strict_affinity else await self._borrow(wanted))
        ):
            return given
        raise nothing_free(
            str(wanted),
            node=self._node,
            pools=own.pools,
            config=config,
            blocks=await self._all_blocks(),
            reserved=own.reserved,
        )

    async def _claim(self, cidr: IPNetwork, wanted: Wanted) -> bool:
        is_ours = await self._claims.claim(cidr)
        if is_ours:
            self._claimed[wanted.version] = cidr
        return is_ours

    async def beside(self, cidr: IPNetwork) -> IPNetwork | None:
        """Return a block of another size with addresses of this one, which can't be made then."""
        if await self._blocks.get(cidr):  # it has been: spare a listing
            return None
        return overlapping(cidr, (block.cidr for block in await self._all_blocks()))

    async def _all_blocks(self) -> list[Block]:
        return [stored.value for stored in (await self._datastore.list(Block)).items]

    async def _from_new_block(self, wanted: Wanted, config: IPAMConfig) -> Given | None:
        own = wanted.own
        for _ in range(ATTEMPTS):
            blocks = await self._all_blocks()
            await self._require_leave(wanted, config, blocks)
            existing = {block.cidr for block in blocks}
            cidr = first_unclaimed(own, existing, node=self._node, now_ns=self._clock_ns())
            if cidr is None:
                return None
            if await self._claim(cidr, wanted):
                self._retries.count("claim")
                if given := await self._give(cidr, wanted):
                    return given
            else:
                self._retries.count("claim-conflict")
        raise gave_up(f"claim a block for {self._node}")

    async def _require_leave(
        self, wanted: Wanted, config: IPAMConfig, blocks: Sequence[Block]
    ) -> None:
        """Raise `Exhausted` where the node has as many blocks as it may.

        As in Calico before anything is looked for: the limit is there to stop a node from taking
        more, borrowed addresses of others' blocks included.  As there, the owner of LoadBalancer
        addresses counts as one.
        """
        limit = config.max_blocks_per_host or DEFAULT_MAX_BLOCKS
        affinities = await self._truth.affinities(self._node)
        owned = sum(affinity.cidr.version == wanted.version for affinity in affinities)
        if owned >= limit:
            raise limit_reached(
                str(wanted),
                node=self._node,
                pools=wanted.own.pools,
                owned=owned,
                limit=limit,
                blocks=blocks,
                reserved=wanted.own.reserved,
            )

    async def _borrow(self, wanted: Wanted) -> Given | None:
        blocks = sound(await self._all_blocks())
        for pool in wanted.own.pools:
            inside = [
                block.cidr
                for block in blocks
                if holds(pool.cidr, block.cidr) and arithmetic.may_have_room(block)
            ]
            order = partial(rank, pool=pool.cidr, host=self._node)
            for cidr in sorted(inside, key=order):
                if given := await self._give_of(cidr, wanted.choose_any, wanted):
                    self._retries.count("borrow")
                    return given
        return None
