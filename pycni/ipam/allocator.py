"""The loops around blocks: read, decide by `pycni.ipam.block`, compare-and-swap, or read again.

One address is found in three stages: in the node's own blocks; in a new block, the first of the
node's order that does not exist; in another node's block (borrowed), unless forbidden.

Writes, in this order: handle, block.  What a crash or a cancelled task leaves between two writes:

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
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from ipaddress import ip_interface

from pycni.errors import Conflict, Exhausted, InvalidInput, NotFound
from pycni.ipam import block as arithmetic
from pycni.ipam.choices import Choose, any_address, one_address
from pycni.ipam.claims import Claims, get_block
from pycni.ipam.handles import Handles
from pycni.ipam.pools import Selects, describe, eligible, holds, pool_of, selects_all_or_none
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
from pycni.ipam.selection import block_of, candidates, rank
from pycni.model.endpoints import AssignedAddress
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    IPAMConfig,
    IPPool,
    PoolUse,
    TunnelMode,
)
from pycni.ports import Datastore, Stored

DEFAULT_MAX_BLOCKS = 20
TUNNEL_VERSION = 4
_SHOW = "see `pycnictl ipam show`"

_Given = tuple[AssignedAddress, bool]


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
        selects: Selects = selects_all_or_none,
    ) -> None:
        self._datastore = datastore
        self._node = node
        self._truth = DatastoreView(datastore)
        self._view: View = self._truth if view is None else view
        self._clock_ns = clock_ns
        self._selects = selects
        self._retries = Retries(sleep=sleep, observe=observe)
        self._handles = Handles(datastore, retries=self._retries)
        self._releases = Releases(datastore, handles=self._handles, retries=self._retries)
        self._claims = Claims(datastore, node=node, retries=self._retries, clock_ns=clock_ns)

    # --- giving ---------------------------------------------------------------------------------

    async def assign(self, request: AssignRequest) -> Assignment:
        """Give the addresses asked for, all or none.

        Raises `Exhausted` when no pool has one left, `AlreadyExists` when a particular address
        is in use, `InvalidInput` for pools and addresses that do not exist.
        """
        given: list[_Given] = []
        try:
            for want in request.wants:
                # One by one: when a later one fails, those before it have to be given back.
                given.append(await self._assign_one(request, want))  # noqa: PERF401
        except BaseException as exc:
            addresses = [address for address, _ in given]
            await undoing(exc, self._release_given(addresses, request.handle_id))
            raise
        return Assignment(
            addresses=tuple(address for address, _ in given),
            borrowed=frozenset(one.interface.ip for one, is_borrowed in given if is_borrowed),
        )

    async def _assign_one(self, request: AssignRequest, want: IPAddress | int) -> _Given:
        if isinstance(want, int):
            return await self._assign_any(request, want)
        return await self._assign_particular(request, want)

    async def _release_given(self, given: Sequence[AssignedAddress], handle_id: str) -> None:
        if given:
            await self.release(given, handle_id=handle_id)

    async def _assign_any(self, request: AssignRequest, version: int) -> _Given:
        known = await self._view.pools()
        pools = self._eligible(request, known, version)
        affinities = await self._view.affinities(self._node)
        choose = any_address(request, only_of=self._node)
        tried: set[IPNetwork] = set()
        for affinity in _within(affinities, pools):
            if affinity.state is AffinityState.CONFIRMED:
                tried.add(affinity.cidr)
                if given := await self._write(affinity.cidr, choose, request.handle_id):
                    return given
        if not request.pools:
            await self._release_unselected(affinities, known)
        return await self._assign_beyond(request, pools, version=version, tried=tried)

    def _eligible(
        self, request: AssignRequest, known: Iterable[IPPool], version: int
    ) -> tuple[IPPool, ...]:
        chosen = eligible(
            known,
            node=self._node,
            use=request.use,
            requested=request.pools,
            selects=self._selects,
        )
        pools = tuple(pool for pool in chosen if pool.cidr.version == version)
        if not pools:
            raise Exhausted(
                f"cannot assign an IPv{version} address to {request.handle_id}: no enabled pool"
                f" serves {request.use.value} addresses on {self._node};"
                " add one by `pycnictl apply -f`"
            )
        return pools

    async def _release_unselected(
        self, affinities: Sequence[BlockAffinity], known: Sequence[IPPool]
    ) -> None:
        """Give up empty blocks of pools that have turned away from this node."""
        for affinity in affinities:
            pool = pool_of((pool for pool in known if not pool.is_disabled), affinity.cidr)
            if pool is not None and not self._selects(pool, self._node):
                await self._claims.release(affinity.cidr, only_if_empty=True)

    async def _assign_beyond(
        self,
        request: AssignRequest,
        pools: Sequence[IPPool],
        *,
        version: int,
        tried: set[IPNetwork],
    ) -> _Given:
        """Take up unfinished claims, then claim new blocks, then borrow."""
        choose = any_address(request, only_of=self._node)
        # The truth, not the view: a block claimed a moment ago must not cost another one.
        for affinity in _within(await self._truth.affinities(self._node), pools):
            if affinity.cidr in tried or not await self._claims.claim(affinity.cidr):
                continue
            if given := await self._write(affinity.cidr, choose, request.handle_id):
                return given
        config = await self._config()
        if config.is_auto_allocating_blocks and (
            given := await self._assign_from_new_block(request, pools, version, config)
            or (None if config.is_strict_affinity else await self._borrow(request, pools))
        ):
            return given
        names = ", ".join(describe(pool) for pool in pools)
        raise Exhausted(
            f"cannot assign an IPv{version} address to {request.handle_id} on {self._node}:"
            f" nothing is free in {names}{_why(config)}; add a pool, or {_SHOW}"
        )

    async def _assign_from_new_block(
        self, request: AssignRequest, pools: Sequence[IPPool], version: int, config: IPAMConfig
    ) -> _Given | None:
        choose = any_address(request, only_of=self._node)
        limit = config.max_blocks_per_host or DEFAULT_MAX_BLOCKS
        for _ in range(ATTEMPTS):
            blocks = await self._datastore.list(Block)
            cidr = self._first_unclaimed(pools, {stored.value.cidr for stored in blocks.items})
            if cidr is None:
                return None
            owned = await self._truth.affinities(self._node)
            if sum(affinity.cidr.version == version for affinity in owned) >= limit:
                # No borrowing here: the limit is there to stop a node from taking more.
                raise Exhausted(
                    f"cannot assign an IPv{version} address to {request.handle_id}:"
                    f" {self._node} owns {limit} blocks, the limit (maxBlocksPerHost of"
                    f" IPAMConfiguration), and they are full; {_SHOW}"
                )
            if await self._claims.claim(cidr):
                self._retries.count("claim")
                if given := await self._write(cidr, choose, request.handle_id):
                    return given
            else:
                self._retries.count("claim-conflict")
        raise gave_up(f"claim a block for {self._node}")

    def _first_unclaimed(
        self, pools: Sequence[IPPool], existing: set[IPNetwork]
    ) -> IPNetwork | None:
        for pool in pools:
            order = candidates(pool.cidr, pool.block_size, self._node, seed=self._seed(pool))
            for cidr in order:
                if cidr not in existing:
                    return cidr
        return None

    def _seed(self, pool: IPPool) -> int | None:
        # Blocks of one address would otherwise send a node through all of its used ones.
        return self._clock_ns() if pool.block_size == pool.cidr.max_prefixlen else None

    async def _borrow(self, request: AssignRequest, pools: Sequence[IPPool]) -> _Given | None:
        choose = any_address(request, only_of=None)
        blocks = [stored.value for stored in (await self._datastore.list(Block)).items]
        for pool in pools:
            inside = [
                block
                for block in blocks
                if holds(pool.cidr, block.cidr) and arithmetic.free_count(block)
            ]
            order = partial(self._rank, pool)
            for block in sorted(inside, key=order):
                if given := await self._write(block.cidr, choose, request.handle_id):
                    self._retries.count("borrow")
                    return given
        return None

    def _rank(self, pool: IPPool, block: Block) -> int:
        return rank(block.cidr, pool=pool.cidr, host=self._node)

    async def _assign_particular(self, request: AssignRequest, address: IPAddress) -> _Given:
        pools = [pool for pool in await self._view.pools() if not pool.is_disabled]
        pool = pool_of(pools, address)
        if request.pools:
            named = eligible(pools, node=self._node, use=request.use, requested=request.pools)
            pool = pool_of(named, address)
        if pool is None or request.use not in pool.allowed_uses:
            names = ", ".join(describe(one) for one in pools) or "none"
            raise InvalidInput(
                f"cannot assign {address} to {request.handle_id}: it lies in no enabled pool for"
                f" {request.use.value} addresses that the request allows; enabled are {names}"
            )
        cidr = block_of(address, block_size=pool.block_size)
        is_strict = (await self._config()).is_strict_affinity
        choose = one_address(request, address, only_of=self._node if is_strict else None)
        for attempt in range(ATTEMPTS):
            await self._retries.pause(attempt)
            if held := await self._held(cidr, address, request.handle_id):
                return held
            if given := await self._write(cidr, choose, request.handle_id):
                return given
            # No such block yet.  When somebody else claims it first, the address is borrowed.
            await self._claims.claim(cidr)
        raise gave_up(f"assign {address}")

    async def _held(self, cidr: IPNetwork, address: IPAddress, handle_id: str) -> _Given | None:
        """Return an address that the handle holds already: repeating a request is no error."""
        stored = await get_block(self._datastore, cidr)
        if stored is None:
            return None
        for one in arithmetic.given_to(stored.value, handle_id):
            if one.address == address:
                is_borrowed = stored.value.affinity != self._node
                return assigned(address, one.sequence_number), is_borrowed
        return None

    # --- writing --------------------------------------------------------------------------------

    async def _write(self, cidr: IPNetwork, choose: Choose, handle_id: str) -> _Given | None:
        """Raise the handle, then write what `choose` decides; None when it passes it over."""
        stored = await get_block(self._datastore, cidr)
        if stored is None:
            return None
        chosen = choose(stored.value)
        if chosen is None:
            return None
        # The address that may have been written, for the case that we never hear the answer.
        planned: dict[IPAddress, int | None] = {}
        try:
            await self._handles.increment(handle_id, cidr=cidr)
            if given := await self._swap(stored, chosen, choose, planned):
                return given
        except BaseException as exc:
            await undoing(exc, self._releases.take_back(cidr, planned, handle_id))
            raise
        await self._handles.decrement(handle_id, cidr=cidr, count=1)
        return None

    async def _swap(
        self,
        first: Stored[Block],
        first_choice: tuple[Block, IPAddress],
        choose: Choose,
        planned: dict[IPAddress, int | None],
    ) -> _Given | None:
        stored: Stored[Block] | None = first
        chosen: tuple[Block, IPAddress] | None = first_choice
        for attempt in range(ATTEMPTS):
            await self._retries.pause(attempt)
            if attempt:
                stored = await get_block(self._datastore, first.value.cidr)
                chosen = None if stored is None else choose(stored.value)
            if stored is None or chosen is None:
                return None
            after, address = chosen
            planned[address] = stored.value.sequence_number
            try:
                await self._datastore.update(after, if_revision=stored.revision)
            except (Conflict, NotFound):
                planned.clear()
                continue
            return assigned(address, planned[address]), after.affinity != self._node
        raise gave_up(f"assign from block {first.value.cidr}")

    # --- taking back ----------------------------------------------------------------------------

    async def release(self, addresses: Sequence[AssignedAddress], *, handle_id: str) -> Released:
        """Take addresses back, each only if this handle has it with this sequence number.

        What is free already counts as done.
        """
        return await self._releases.release(addresses, handle_id=handle_id)

    async def release_by_handle(self, handle_id: str) -> tuple[IPAddress, ...]:
        """Take back all that a handle holds, and the handle; an unknown one is success."""
        return await self._releases.release_by_handle(handle_id)

    async def release_affinity(self, cidr: IPNetwork, *, only_if_empty: bool = False) -> bool:
        """Give up one of the node's blocks; return whether it is no longer the node's."""
        return await self._claims.release(cidr, only_if_empty=only_if_empty)

    # --- the tunnel's address -------------------------------------------------------------------

    async def ensure_tunnel_address(self) -> AssignedAddress | None:
        """Return the address of the node's IP-in-IP tunnel, giving one if it has none.

        One that lies in no enabled pool with IP-in-IP any more, or is not what it says to be, is
        replaced.  None: no such pool exists, so nothing is to be tunnelled.
        """
        attributes = (("node", self._node), ("type", "ipipTunnelAddress"))
        handle_id = tunnel_handle(self._node)
        pools = [
            pool
            for pool in eligible(
                await self._truth.pools(),
                node=self._node,
                use=PoolUse.TUNNEL,
                selects=self._selects,
            )
            if pool.cidr.version == TUNNEL_VERSION and pool.ipip_mode is not TunnelMode.NEVER
        ]
        held = await self._releases.held_by(handle_id)
        described = [one.attribute.secondary for one in held if pool_of(pools, one.address)]
        if len(held) == 1 and described == [attributes]:
            return assigned(held[0].address, held[0].sequence_number)
        await self.release_by_handle(handle_id)
        if not pools:
            return None
        request = AssignRequest(
            handle_id=handle_id,
            attributes=attributes,
            pools=tuple(pool.name for pool in pools),
            use=PoolUse.TUNNEL,
        )
        return (await self.assign(request)).addresses[0]

    async def _config(self) -> IPAMConfig:
        stored = await self._datastore.get(IPAMConfig, "default")
        return IPAMConfig() if stored is None else stored.value


def tunnel_handle(node: str) -> str:
    """Return the handle that holds the address of a node's IP-in-IP tunnel."""
    return f"ipip-tunnel-addr-{node}"


def assigned(address: IPAddress, sequence_number: int | None) -> AssignedAddress:
    """Return an address as a pod gets it: alone in its subnet."""
    return AssignedAddress(ip_interface(address), sequence_number)


def _within(affinities: Iterable[BlockAffinity], pools: Sequence[IPPool]) -> list[BlockAffinity]:
    return [affinity for affinity in affinities if pool_of(pools, affinity.cidr) is not None]


def _why(config: IPAMConfig) -> str:
    if not config.is_auto_allocating_blocks:
        return " within this node's blocks (autoAllocateBlocks is off)"
    if config.is_strict_affinity:
        return " within this node's blocks (strictAffinity is on)"
    return ""
