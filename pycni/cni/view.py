"""Pools, affinities and labels remembered by watching, for the allocator of a long-lived engine.

Serving these from memory spares every ADD two listings.  The view may be a little behind; the
allocator decides on the block itself, so that costs a detour at most.
"""

import asyncio
from collections.abc import Sequence

from pycni.errors import EventsLost, PycniError
from pycni.ipam.requests import DatastoreView
from pycni.ipam.reserved import NOTHING, Reserved
from pycni.model.resources import (
    BlockAffinity,
    IPAMConfig,
    IPPool,
    IPReservation,
    Node,
    Resource,
    resource_name,
)
from pycni.model.selector import Labels
from pycni.ports import Datastore

RETRY_S = 1.0


class WatchedView:
    """Implements `pycni.ipam.requests.View`; asks the datastore while it can't be watched."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._truth = DatastoreView(datastore)
        self._known: dict[type[Resource], dict[str, Resource]] = {}
        self._pools: tuple[IPPool, ...] = ()
        self._of_node: dict[str, tuple[BlockAffinity, ...]] = {}
        self._labels: dict[str, Labels] = {}
        self._reserved = NOTHING
        self._config = IPAMConfig()

    async def pools(self) -> Sequence[IPPool]:
        """Return all pools."""
        return self._pools if IPPool in self._known else await self._truth.pools()

    async def affinities(self, node: str) -> Sequence[BlockAffinity]:
        """Return a node's affinities."""
        if BlockAffinity not in self._known:
            return await self._truth.affinities(node)
        if node not in self._of_node:
            ordered = (value for _, value in sorted(self._known[BlockAffinity].items()))
            self._of_node[node] = tuple(
                one for one in ordered if isinstance(one, BlockAffinity) and one.node == node
            )
        return self._of_node[node]

    async def config(self) -> IPAMConfig:
        """Return the settings for all nodes."""
        if IPAMConfig not in self._known:
            return await self._truth.config()
        return self._config

    async def reserved(self) -> Reserved:
        """Return what is given to those only who ask for it in particular."""
        is_known = IPReservation in self._known
        return self._reserved if is_known else await self._truth.reserved()

    async def labels(self, node: str) -> Labels:
        """Return a node's labels."""
        if Node not in self._known:
            return await self._truth.labels(node)
        if node not in self._labels:
            known = self._known[Node].get(node)
            self._labels[node] = dict(known.labels) if isinstance(known, Node) else {}
        return self._labels[node]

    async def nodes(self) -> frozenset[str]:
        """Return the names of all nodes that have an object."""
        known = self._known.get(Node)
        return await self._truth.nodes() if known is None else frozenset(known)

    async def run(self) -> None:
        """Follow each kind until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind in (IPPool, IPReservation, IPAMConfig, BlockAffinity, Node):
                group.create_task(self._follow(kind))

    async def _follow(self, kind: type[Resource]) -> None:
        while True:
            try:
                listing = await self._datastore.list(kind)
                self._remember(kind, {resource_name(s.value): s.value for s in listing.items})
                async for change in self._datastore.watch(kind, after=listing.cursor):
                    objects = self._known[kind]
                    objects.pop(change.name, None)
                    if change.stored is not None:
                        objects[change.name] = change.stored.value
                    self._remember(kind, objects)
            except EventsLost:
                continue
            except (PycniError, OSError):
                # The agent watches the same datastore and reports; whoever asks meets the error.
                self._known.pop(kind, None)
                await asyncio.sleep(RETRY_S)

    def _remember(self, kind: type[Resource], objects: dict[str, Resource]) -> None:
        self._known[kind] = objects
        values = [value for _, value in sorted(objects.items())]
        if kind is Node:
            self._labels.clear()
        elif kind is IPAMConfig:
            config = objects.get("default")
            self._config = config if isinstance(config, IPAMConfig) else IPAMConfig()
        elif kind is IPReservation:
            self._reserved = Reserved(v for v in values if isinstance(v, IPReservation))
        else:
            self._of_node.clear()
        if kind is IPPool:
            self._pools = tuple(value for value in values if isinstance(value, IPPool))
