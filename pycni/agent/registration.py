"""Make this node known: its Node object, and the address of its tunnel."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from pycni.errors import AlreadyExists, Conflict, NotFound, PycniError
from pycni.ipam.allocator import Allocator
from pycni.ipam.tunnel import ensure_tunnel_address
from pycni.model.network import IPInterface
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
    ) -> None:
        self._datastore = datastore
        self._allocator = allocator
        self._node = node
        self._addresses = tuple(addresses)
        self._report = report
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
                await asyncio.sleep(RETRY_S)
                self._wanted.set()

    async def once(self) -> None:
        """Write the Node object, the tunnel's address included."""
        # The address first: peers that see the node see it whole.
        assigned = await ensure_tunnel_address(self._allocator, self._datastore, node=self._node)
        tunnel = assigned.interface.ip if assigned is not None else None
        for _ in range(ATTEMPTS):
            try:
                await self._write(tunnel)
            except (Conflict, AlreadyExists, NotFound):
                continue
            return
        raise Conflict(f"cannot write node {self._node}: somebody else keeps writing it")

    async def _write(self, tunnel: IPv4Address | IPv6Address | None) -> None:
        stored = await self._datastore.get(Node, self._node)
        if stored is None:
            await self._datastore.create(self._merged(Node(self._node), tunnel))
            return
        wanted = self._merged(stored.value, tunnel)
        if wanted != stored.value:
            await self._datastore.update(wanted, if_revision=stored.revision)

    def _merged(self, node: Node, tunnel: IPv4Address | IPv6Address | None) -> Node:
        merged = replace(node, ipip_tunnel_address=tunnel)
        for address in self._addresses:
            if address.version == 4:
                merged = replace(merged, ipv4=address)
            else:
                merged = replace(merged, ipv6=address)
        return merged
