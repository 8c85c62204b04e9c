"""Pools and affinities as the agent's watches know them, for the allocator.

Serving these from memory spares every ADD two listings.  The view may be a little behind; the
allocator decides on the block itself, so that costs a detour at most.
"""

from collections.abc import Sequence

from pycni.agent.facts import Facts
from pycni.ipam.requests import DatastoreView
from pycni.model.resources import BlockAffinity, IPPool


class FactsView:
    """Implements `pycni.ipam.requests.View`; asks the datastore until the facts are complete."""

    def __init__(self, facts: Facts, fallback: DatastoreView) -> None:
        self._facts = facts
        self._fallback = fallback

    async def pools(self) -> Sequence[IPPool]:
        """Return all pools."""
        if not self._facts.has_datastore:
            return await self._fallback.pools()
        return list(self._facts.inputs.pools.values())

    async def affinities(self, node: str) -> Sequence[BlockAffinity]:
        """Return a node's affinities."""
        if not self._facts.has_datastore:
            return await self._fallback.affinities(node)
        return self._facts.claims_of(node)
