"""Make this node known: its Node object, and the address of its tunnel; or take both back."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from pycni.agent.departure import Departure
from pycni.agent.messages import Changed, Listed
from pycni.agent.tunnel_change import LINGER_S
from pycni.agent.tunnel_ends import TunnelEnds
from pycni.errors import AlreadyExists, Conflict, Exhausted, NotFound, PycniError, TryAgain
from pycni.ipam.allocator import Allocator
from pycni.ipam.estates import show_presence
from pycni.ipam.retries import Sleep, asyncio_sleep
from pycni.ipam.tunnel import ensure_tunnel_addresses
from pycni.model.network import IPAddress, IPInterface
from pycni.model.resources import IPPool, Node
from pycni.model.tunnels import TunnelKind, address_in, with_address
from pycni.plan.underlay import OwnAddresses
from pycni.ports import Datastore

_log = logging.getLogger(__name__)

RETRY_S = 1.0
ATTEMPTS = 10
_Change = Callable[[Node], Node]
_TunnelAddresses = Mapping[TunnelKind, IPAddress | None]


class Registration:
    """Keeps this node's object true; it is to `heed` what the datastore tells.

    `addresses` are those of the underlay that the configuration states; `look_at` tells of those
    that follow from the host's, or from an object that is the kubelet's to make (where it is not us
    who `makes_node`).  What is neither stays as it is.  `look_at_devices` tells which VXLAN devices
    serve: others are told of no other's address.
    """

    def __init__(
        self,
        datastore: Datastore,
        allocator: Allocator,
        *,
        node: str,
        addresses: Sequence[IPInterface],
        report: Callable[[str, str], None],
        makes_node: bool = True,
        departure: Departure | None = None,
        sleep: Sleep = asyncio_sleep,
    ) -> None:
        self._datastore = datastore
        self._allocator = allocator
        self._node = node
        self._own = OwnAddresses(tuple(addresses))
        self._has_looked = False
        self._report = report
        self._makes_node = makes_node
        self._departure = departure
        self._sleep = sleep
        # Whoever makes the object: others may have taken us for gone until then.
        self._was_absent = not makes_node
        self._uid = ""
        self._kept_until: dict[TunnelKind, float] = {}
        self._ends = TunnelEnds()
        self._wanted = asyncio.Event()
        self._wanted.set()

    def wake(self) -> None:
        """Look again soon."""
        self._wanted.set()

    def heed(self, message: Listed | Changed) -> None:
        """Look again where a change concerns this node: its object, also one deleted, and pools.

        Each look asks the datastore several times, and in a cluster each kubelet writes its Node
        every few minutes: all agents at each of these would be too much for an API server.
        """
        is_others = isinstance(message, Changed) and message.name != self._node
        if message.kind is IPPool or (message.kind is Node and not is_others):
            self.wake()

    def look_at(self, own: OwnAddresses) -> None:
        """Learn under which addresses the node is to be known; write them where they are others."""
        if own != self._own or not self._has_looked:
            self._own, self._has_looked = own, True
            self.wake()

    def look_at_devices(self, devices: Mapping[TunnelKind, bool]) -> None:
        """Learn which of the wanted VXLAN devices serve; tell others where that has changed."""
        if self._ends.look_at(devices, now=_now()):
            self.wake()

    async def run(self) -> None:
        """Bring node and tunnel address about, again whenever woken, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_time()):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._turn()
                self._report("registration", "")
            except (PycniError, OSError) as exc:
                self._report("registration", str(exc))
                await self._sleep(RETRY_S)
                self._wanted.set()

    def _next_time(self) -> float | None:
        ends = self._ends.deadline(now=_now())
        return min((*self._kept_until.values(), *(() if ends is None else (ends,))), default=None)

    async def _turn(self) -> None:
        if self._departure is None or not self._departure.is_wanted:
            try:
                await self.once()
            finally:
                # True also where something else is amiss, as a pool that is full.
                self._report("vxlan", self._ends.complaint(now=_now()))
            return
        self._kept_until = {}
        await self._departure.give_up()
        if self._departure.is_wanted:  # still: somebody may have changed his mind
            # Last: until then the object proves to others that what is here is nobody else's to
            # take.
            await self._unregister()
        self._departure.conclude()

    async def once(self) -> None:
        """Write the Node object, the tunnel's address included."""
        try:
            # The address first: peers that see the node see it whole.
            tunnels, lacking = await self._tunnel_addresses()
        except PycniError:
            # Others take a node without object for gone, and this one serves pods all the same.
            await self._appear(self._without_dead_ends)
            raise
        if await self._appear(self._told(tunnels)):
            tunnels, lacking = await self._tunnel_addresses()
            await self._write(self._told(tunnels))
        if lacking is not None:
            raise lacking

    async def _tunnel_addresses(self) -> tuple[_TunnelAddresses, Exhausted | None]:
        before, self._kept_until = self._kept_until, {}
        return await ensure_tunnel_addresses(
            self._allocator,
            self._datastore,
            node=self._node,
            keeps=partial(self._keeps, before=before),
        )

    def _keeps(self, kind: TunnelKind, *, before: Mapping[TunnelKind, float]) -> bool:
        """Tell whether others may still send to an address that no pool asks for any more.

        By VXLAN they send to the address, and hear of a pool's change one after another.
        """
        now = _now()
        until = before.get(kind, now + LINGER_S)
        if not kind.is_vxlan or now >= until:
            return False
        self._kept_until[kind] = until
        return True

    def _told(self, tunnels: _TunnelAddresses) -> _Change:
        def change(node: Node) -> Node:
            told = {
                kind: address if address is None or self._may_tell(node, kind) else None
                for kind, address in tunnels.items()
            }
            return _tunnelled(told)(node)

        return change

    def _without_dead_ends(self, node: Node) -> Node:
        told = {kind: address_in(node, kind) for kind in TunnelKind}
        return self._told(told)(node)

    def _may_tell(self, node: Node, kind: TunnelKind) -> bool:
        if not kind.is_vxlan:
            return True
        is_told = address_in(node, kind) is not None
        return self._ends.may_tell(kind, is_told=is_told, now=_now())

    async def _appear(self, change: _Change) -> bool:
        """Write what is so; return whether there was no object, so that things may have changed."""
        is_new = await self._write(change)
        if is_new:
            # Another may be taking back just now what it takes for a gone node's.
            await show_presence(self._datastore, node=self._node, sleep=self._sleep)
        return is_new

    async def _write(self, change: _Change) -> bool:
        for _ in range(ATTEMPTS):
            try:
                return await self._write_object(change)
            except (Conflict, AlreadyExists, NotFound):
                continue
        raise Conflict(f"cannot write node {self._node}: somebody else keeps writing it")

    async def _write_object(self, change: _Change) -> bool:
        stored = await self._datastore.get(Node, self._node)
        if stored is None:
            return await self._make_object(change)
        wanted = change(_addressed(stored.value, self._own))
        if wanted != stored.value:
            await self._datastore.update(wanted, if_revision=stored.revision)
        self._report("node address", self._complaint(wanted))
        # A Node of another identity: it was absent, though nobody may have looked in between.
        was_absent = self._was_absent or self._uid not in ("", stored.value.uid)
        self._was_absent, self._uid = False, stored.value.uid
        return was_absent

    async def _make_object(self, change: _Change) -> bool:
        if not self._makes_node:
            self._was_absent = True
            raise TryAgain(
                f"there is no Node {self._node} in the cluster: does the kubelet run, and is it"
                " registered under this name? (`node` in agent.yaml states another)"
            )
        await self._datastore.create(change(_addressed(Node(self._node), self._own)))
        return True

    async def _unregister(self) -> None:
        """Delete the Node object; one of the kubelet's loses what we have written."""
        for _ in range(ATTEMPTS):
            stored = await self._datastore.get(Node, self._node)
            if stored is None:
                return
            bare = _bare(stored.value)
            try:
                if self._makes_node:
                    await self._datastore.delete(Node, self._node, if_revision=stored.revision)
                elif bare != stored.value:
                    await self._datastore.update(bare, if_revision=stored.revision)
            except (Conflict, NotFound):
                continue
            return
        raise Conflict(f"cannot take back node {self._node}: somebody else keeps writing it")

    def _complaint(self, node: Node) -> str:
        """Say what keeps the node from having the addresses that it is to have."""
        if self._own.complaints:
            return "; ".join(self._own.complaints)
        if self._makes_node or not self._has_looked:
            return ""
        if self._own.absent:
            absent = " or ".join(map(str, self._own.absent))
            return (
                f"no interface has {absent}, the InternalIP of Node {self._node}: is the kubelet's"
                " --node-ip right? (node_address and node_address6 in agent.yaml state others)"
            )
        if node.ipv4 is None and node.ipv6 is None and not node.internal_ips:
            return (
                f"Node {self._node} has no InternalIP: does the kubelet run? (node_address in"
                " agent.yaml states an address)"
            )
        return ""


def _now() -> float:
    return asyncio.get_running_loop().time()


def _addressed(node: Node, own: OwnAddresses) -> Node:
    said = own.of(node)
    return replace(node, ipv4=said.get(4), ipv6=said.get(6))


def _tunnelled(tunnels: _TunnelAddresses) -> _Change:
    def change(node: Node) -> Node:
        for kind, address in tunnels.items():
            node = with_address(node, kind, address)
        return node

    return change


def _bare(node: Node) -> Node:
    none: _TunnelAddresses = dict.fromkeys(TunnelKind)
    return _tunnelled(none)(replace(node, ipv4=None, ipv6=None))
