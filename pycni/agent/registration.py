"""Make this node known: its Node object, and the address of its tunnel."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from pycni.errors import AlreadyExists, Conflict, NotFound, PycniError
from pycni.ipam.allocator import Allocator
from pycni.ipam.estates import show_presence
from pycni.ipam.retries import Sleep, asyncio_sleep
from pycni.ipam.tunnel import ensure_tunnel_address
from pycni.model.network import IPAddress, IPInterface
from pycni.model.resources import Node
from pycni.ports import Datastore

_log = logging.getLogger(__name__)

RETRY_S = 1.0
ATTEMPTS = 10


class Registration:
    """Keeps this node's object true; `wake` it when pools change.

    `addresses` are those of the underlay that the configuration states; others stay as they are.
    """

    def __init__(
        self,
        datastore: Datastore,
        allocator: Allocator,
        *,
        node: str,
        addresses: Sequence[IPInterface],
        report: Callable[[str, str], None],
        sleep: Sleep = asyncio_sleep,
    ) -> None:
        self._datastore = datastore
        self._allocator = allocator
        self._node = node
        self._addresses = tuple(addresses)
        self._report = report
        self._sleep = sleep
        self._wanted = asyncio.Event()
        self._wanted.set()

    def wake(self) -> None:
        """Look again soon."""
        self._wanted.set()

    async def run(self) -> None:
        """Bring node and tunnel address about, again whenever woken, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self.once()
                self._report("registration", "")
            except (PycniError, OSError) as exc:
                self._report("registration", str(exc))
                await self._sleep(RETRY_S)
                self._wanted.set()

    async def once(self) -> None:
        """Write the Node object, the tunnel's address included."""
        try:
            # The address first: peers that see the node see it whole.
            tunnel = await self._tunnel_address()
        except PycniError:
            # Others take a node without object for gone, and this one serves pods all the same.
            if await self._datastore.get(Node, self._node) is None:
                await self._appear(None)
            raise
        if await self._appear(tunnel):
            await self._write(await self._tunnel_address())

    async def _tunnel_address(self) -> IPAddress | None:
        assigned = await ensure_tunnel_address(self._allocator, self._datastore, node=self._node)
        return None if assigned is None else assigned.interface.ip

    async def _appear(self, tunnel: IPAddress | None) -> bool:
        """Write what is so; return whether there was no object, so that things may have changed."""
        is_new = await self._write(tunnel)
        if is_new:
            # Another may be taking back just now what it takes for a gone node's.
            await show_presence(self._datastore, node=self._node, sleep=self._sleep)
        return is_new

    async def _write(self, tunnel: IPAddress | None) -> bool:
        for _ in range(ATTEMPTS):
            try:
                return await self._write_object(tunnel)
            except (Conflict, AlreadyExists, NotFound):
                continue
        raise Conflict(f"cannot write node {self._node}: somebody else keeps writing it")

    async def _write_object(self, tunnel: IPAddress | None) -> bool:
        stored = await self._datastore.get(Node, self._node)
        if stored is None:
            await self._datastore.create(self._merged(Node(self._node), tunnel))
            return True
        wanted = self._merged(stored.value, tunnel)
        if wanted != stored.value:
            await self._datastore.update(wanted, if_revision=stored.revision)
        return False

    def _merged(self, node: Node, tunnel: IPAddress | None) -> Node:
        merged = replace(node, ipip_tunnel_address=tunnel)
        for address in self._addresses:
            if address.version == 4:
                merged = replace(merged, ipv4=address)
            else:
                merged = replace(merged, ipv6=address)
        return merged
