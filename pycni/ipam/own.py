"""Which pools may serve a request, and which of the node's blocks lie in them.

Both follow from the view alone.  A long-lived engine's view hands out the same objects until
something changes, so the answer is computed once for all requests of a kind.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from pycni.errors import Exhausted, InvalidInput
from pycni.ipam.pools import (
    describe,
    eligible,
    named,
    need_labels,
    overlapping,
    pool_of,
    turned_away,
)
from pycni.ipam.requests import FAMILIES, AssignRequest, View
from pycni.ipam.reserved import NOTHING, Reserved
from pycni.ipam.selection import candidates
from pycni.model.endpoints import Subnet
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import AffinityState, BlockAffinity, IPPool, PoolUse
from pycni.model.selector import Labels

# As many kinds of requests as configurations and families make; a bound for the odd case.
_REMEMBERED = 64
_NO_LABELS: Labels = {}
_Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Own:
    """What the view says, the pools that may serve, and the confirmed blocks inside of these.

    `reserved` is all that is not given unasked.
    """

    reserved: Reserved
    known: Sequence[IPPool]
    affinities: Sequence[BlockAffinity]
    pools: tuple[IPPool, ...]
    cidrs: tuple[IPNetwork, ...]


class OwnBlocks:
    """Answers for one node."""

    __slots__ = (
        "_affinities",
        "_answers",
        "_known",
        "_labels",
        "_node",
        "_reserved",
        "_truth",
        "_view",
    )

    def __init__(self, view: View, *, truth: View, node: str) -> None:
        self._view = view
        self._truth = truth
        self._node = node
        self._labels: Labels = {}
        self._known: Sequence[IPPool] = ()
        self._affinities: Sequence[BlockAffinity] = ()
        self._reserved = NOTHING
        self._answers: dict[tuple[int, PoolUse, _Names, _Names, Subnet], Own] = {}

    async def serving(self, request: AssignRequest, version: int) -> Own:
        """Return what may serve a request; raise `Exhausted` when no pool does."""
        try:
            return await self._serving(request, version)
        except (InvalidInput, Exhausted):
            if self._view is self._truth:
                raise
            # A pool may have been added a moment ago: nobody is refused on what may be behind.
            own = OwnBlocks(self._truth, truth=self._truth, node=self._node)
            return await own.serving(request, version)

    async def _serving(self, request: AssignRequest, version: int) -> Own:
        known = await self._view.pools()
        affinities = await self._view.affinities(self._node)
        labels = await node_labels(self._view, known, self._node)
        reserved = await self._view.reserved()
        is_news = (
            known is not self._known
            or affinities is not self._affinities
            or labels is not self._labels
            or reserved is not self._reserved
        )
        if is_news or len(self._answers) > _REMEMBERED:
            self._known, self._affinities, self._labels = known, affinities, labels
            self._reserved = reserved
            self._answers.clear()
        key = (version, request.use, request.ipv4_pools, request.ipv6_pools, request.subnet)
        answer = self._answers.get(key)
        if answer is None:
            pools = self._eligible(request, known, version)
            cidrs = tuple(
                affinity.cidr
                for affinity in within(affinities, pools)
                if affinity.state is AffinityState.CONFIRMED
            )
            kept = _kept(reserved, pools, request.subnet)
            answer = self._answers[key] = Own(kept, known, affinities, pools, cidrs)
        return answer

    def _eligible(
        self, request: AssignRequest, known: Iterable[IPPool], version: int
    ) -> tuple[IPPool, ...]:
        _require_usable_names(request, known)
        pools = eligible(
            known,
            labels=self._labels,
            use=request.use,
            version=version,
            requested=request.pools_for(version),
        )
        if not pools:
            raise Exhausted(
                f"cannot assign an IPv{version} address to {request.handle_id}: no enabled pool"
                f" serves {request.use.value} addresses on {self._node}"
                f"{self._turned_away(known, version)}; add one by `pycnictl apply -f`"
            )
        return pools

    async def holding(self, request: AssignRequest, address: IPAddress) -> IPPool:
        """Return the pool that a particular address lies in, as pools are now.

        Who asks for an address in particular may have it wherever pods of other nodes live.
        """
        enabled = [pool for pool in await self._truth.pools() if not pool.is_disabled]
        _require_usable_names(request, enabled)
        texts = request.pools_for(address.version)
        pools = named(enabled, texts, version=address.version) if texts else enabled
        pool = pool_of(pools, address)
        if pool is None or request.use not in pool.allowed_uses:
            names = ", ".join(describe(one) for one in enabled) or "none"
            raise InvalidInput(
                f"cannot assign {address} to {request.handle_id}: it lies in no enabled pool for"
                f" {request.use.value} addresses that the request allows; enabled are {names}"
            )
        return pool

    def _turned_away(self, known: Iterable[IPPool], version: int) -> str:
        """Say which pools would serve if they meant this node."""
        pools = [
            f"{describe(pool)} is for nodes with {pool.node_selector}"
            for pool in known
            if pool.cidr.version == version and turned_away(pool, self._labels)
        ]
        return f" ({'; '.join(pools)})" if pools else ""


def _kept(reserved: Reserved, pools: Iterable[IPPool], subnet: Subnet) -> Reserved:
    """Return what is not given unasked to who shares that with its neighbours."""
    match subnet:
        case Subnet.NONE:
            return reserved
        case Subnet.BLOCK:
            return reserved.on_links((pool.cidr, pool.block_size) for pool in pools)
        case Subnet.POOL:
            return reserved.on_links((pool.cidr, pool.cidr.prefixlen) for pool in pools)
        case _:
            assert_never(subnet)


def _require_usable_names(request: AssignRequest, known: Iterable[IPPool]) -> None:
    """Refuse a bad name before an address of the other family is given."""
    for version in FAMILIES:
        named(known, request.pools_for(version), version=version)


async def node_labels(view: View, pools: Iterable[IPPool], node: str) -> Labels:
    """Return a node's labels where any of these pools asks for them; else nothing is read."""
    return await view.labels(node) if need_labels(pools) else _NO_LABELS


def within(affinities: Iterable[BlockAffinity], pools: Sequence[IPPool]) -> list[BlockAffinity]:
    """Return the affinities for blocks of these pools."""
    return [affinity for affinity in affinities if pool_of(pools, affinity.cidr) is not None]


def first_unclaimed(
    own: Own, existing: set[IPNetwork], *, node: str, now_ns: int
) -> IPNetwork | None:
    """Return the first block of a node's order that does not exist; None when all do.

    One of which a block of another size has addresses does, too.
    """
    for pool in own.pools:
        others = [one for one in existing if one.prefixlen != pool.block_size]
        is_single = pool.block_size == pool.cidr.max_prefixlen
        order = candidates(
            pool.cidr,
            pool.block_size,
            node,
            # Blocks of one address would otherwise send a node through all of its used ones.
            seed=now_ns if is_single else None,
            passed_over=own.reserved.whole_blocks,
        )
        for cidr in order:
            if cidr not in existing and overlapping(cidr, others) is None:
                return cidr
    return None
