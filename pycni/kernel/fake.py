"""An in-memory kernel with the real one's contract, for tests and for predictions.

It behaves like Linux where the agent depends on it: keys are exclusive, gateways must be
reachable, connected routes come and go with addresses, IPv4 routes vanish silently.  The same
contract suite runs over it and over the real kernel.
"""

import asyncio
import errno
import os
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from pycni.errors import EventsLost
from pycni.kernel.fake_tables import FakeTables, Refused
from pycni.kernel.linklike import unlike
from pycni.model.linklayer import LinkLayerEntry
from pycni.model.network import (
    AddAddress,
    Address,
    AddRoute,
    CreateTunnel,
    DeleteAddress,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    DeleteRuleset,
    Failure,
    IPAddress,
    KernelEvent,
    KernelState,
    Link,
    LinkGone,
    NatUnavailable,
    Op,
    ReplaceRoute,
    Route,
    RulesetChanged,
    SetLink,
    SetNeighbour,
    SetRuleset,
    SetSysctl,
    Tunnel,
)

__all__ = ["FakeKernel"]


class FakeEvents:
    """What `FakeKernel.events` returns."""

    def __init__(self) -> None:
        self._queue: deque[KernelEvent] = deque()
        self._arrived = asyncio.Event()
        self._is_lost = False
        self._is_held = False

    def put(self, event: KernelEvent) -> None:
        """Deliver an event."""
        self._queue.append(event)
        self._arrived.set()

    def hold(self, *, is_held: bool) -> None:
        """Keep what comes from the listener for a while, as if it were too busy to read."""
        self._is_held = is_held
        self._arrived.set()

    def lose(self) -> None:
        """End with `EventsLost`; what was not read yet is lost too."""
        self._queue.clear()
        self._is_lost = True
        self._arrived.set()

    def __aiter__(self) -> "FakeEvents":
        return self

    async def __anext__(self) -> KernelEvent:
        """Return the next event."""
        while self._is_held or not self._queue:
            if self._is_lost:
                raise EventsLost("the kernel dropped events: its buffer for them was full")
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()


class FakeKernel:
    """Implements `pycni.ports.Kernel`.

    The methods beyond the door act as other programs and other machines would: links appear and
    vanish, strangers write routes, operations fail, events are lost.
    """

    def __init__(self) -> None:
        self._sysctls: dict[str, str] = {}
        self._ruleset: str | None = None
        self._events: FakeEvents | None = None
        self._is_own_route = False
        self._planned_failures: dict[type, deque[int]] = defaultdict(deque)
        self.nat_unavailable: NatUnavailable | None = None
        self.applied: list[Op] = []
        """Every operation that was attempted, for tests that care about order."""
        self._tables = FakeTables(tell=self._tell)
        self._tables.add_link(Link("lo", 1, mtu=65536, mac="00:00:00:00:00:00", is_up=True))

    # --- the door -------------------------------------------------------------------------------

    async def snapshot(self, sysctls: Sequence[str]) -> KernelState:
        """Read the whole state."""
        await asyncio.sleep(0)
        values = {name: self.sysctl(name) for name in sysctls}
        return KernelState(
            links=dict(self._tables.links),
            addresses=set(self._tables.addresses),
            routes=self._tables.snapshot_routes(),
            neighbours=dict(self._tables.neighbours),
            sysctls={name: value for name, value in values.items() if value is not None},
            ruleset=self._ruleset,
            nat_unavailable=self.nat_unavailable,
        )

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """Read some sysctls now."""
        return {n: v for n in names if (v := self.sysctl(n)) is not None}

    def source_to(self, destination: IPAddress) -> IPAddress | None:
        """Look a destination up in the main table."""
        return self._tables.source_to(destination)

    async def apply(self, ops: Sequence[Op]) -> Sequence[Failure]:
        """Perform the operations in order and go on after a failing one."""
        failures = []
        for op in ops:
            self.applied.append(op)
            try:
                if self._planned_failures[type(op)]:
                    code = self._planned_failures[type(op)].popleft()
                    raise Refused(code, os.strerror(code))
                self._perform(op)
            except Refused as exc:
                failures.append(Failure(op, exc.errno, f"cannot apply {op}: {exc.text}"))
        await asyncio.sleep(0)
        return failures

    def events(self) -> FakeEvents:
        """Subscribe now; an earlier subscription ends."""
        self.close()
        self._events = FakeEvents()
        return self._events

    def close(self) -> None:
        """End a running subscription."""
        if self._events is not None:
            self._events.lose()
            self._events = None

    # --- switches -------------------------------------------------------------------------------

    def fail_next(self, op_type: type, code: int, *, times: int = 1) -> None:
        """Refuse the next operations of a type with this errno."""
        self._planned_failures[op_type].extend([code] * times)

    def lose_events(self) -> None:
        """Overrun the listener's buffer."""
        self.close()

    def hold_events(self, *, is_held: bool = True) -> None:
        """Let the listener read late what comes from now on, or (False) all that has come."""
        if self._events is not None:
            self._events.hold(is_held=is_held)

    def is_subscribed(self) -> bool:
        """Say whether somebody listens."""
        return self._events is not None

    # --- what others do -------------------------------------------------------------------------

    def add_link(
        self,
        name: str,
        *,
        kind: str = "veth",
        mtu: int = 1500,
        mac: str = "",
        is_up: bool = True,
        alias: str = "",
    ) -> Link:
        """Make an interface."""
        link = Link(name, self._tables.next_index(), kind, mtu, mac, is_up, alias=alias)
        self._tables.add_link(link)
        return link

    def change_link(self, name: str, *, is_up: bool | None = None, mtu: int | None = None) -> None:
        """Set an interface up or down, or give it another MTU."""
        link = self._tables.links[name]
        changed = replace(
            link,
            is_up=link.is_up if is_up is None else is_up,
            mtu=link.mtu if mtu is None else mtu,
        )
        self._tables.change_link(changed)

    def rename_link(self, name: str, *, to: str) -> None:
        """Rename an interface."""
        self._tables.rename_link(name, to=to)

    def delete_link(self, name: str) -> None:
        """Delete an interface with all that depends on it."""
        self._tables.delete_link(name)

    def add_address(self, address: Address) -> None:
        """Add an address, with the routes that the kernel makes for it."""
        self._tables.add_address(address)

    def delete_address(self, address: Address) -> None:
        """Delete an address and what depends on it."""
        self._tables.delete_address(address)

    def addresses(self) -> list[Address]:
        """Return all addresses."""
        return list(self._tables.addresses)

    def link(self, name: str) -> Link | None:
        """Return an interface, or None."""
        return self._tables.links.get(name)

    def links(self) -> list[Link]:
        """Return all interfaces."""
        return list(self._tables.links.values())

    def routes(self) -> list[Route]:
        """Return all routes."""
        return [route for routes in self._tables.snapshot_routes().values() for route in routes]

    def create_route(self, route: Route) -> None:
        """Create a route exclusively; raises `Refused`."""
        self._tables.add_route(route)

    def append_route(self, route: Route) -> None:
        """Write a route behind those of the same key, as `ip route append` does."""
        self._tables.append_route(route)

    def overwrite_route(self, route: Route) -> None:
        """Write a route over the first of its key, as `ip route replace` does."""
        self._tables.overwrite_route(route)

    def delete_route(self, route: Route) -> None:
        """Delete a route; KeyError when there is none like it."""
        if not self._tables.delete_route(route):
            raise KeyError(route)

    def flush_routes(self, *, protocol: int) -> None:
        """Delete all routes of a protocol, as `ip route flush proto N` does."""
        self._tables.flush(protocol=protocol)

    def neighbours(self) -> list[LinkLayerEntry]:
        """Return the entries of VXLAN devices."""
        return list(self._tables.neighbours.values())

    def set_neighbour(self, entry: LinkLayerEntry) -> None:
        """Write an entry, as `ip neighbour replace` or `bridge fdb replace` does."""
        self._tables.set_neighbour(entry)

    def delete_neighbour(self, entry: LinkLayerEntry) -> None:
        """Delete an entry."""
        self._tables.delete_neighbour(entry)

    def write_sysctl(self, name: str, value: str) -> None:
        """Set a sysctl, silently."""
        self._sysctls[name] = value

    def write_ruleset(self, digest: str | None) -> None:
        """Put something else in our table's place, or remove it."""
        self._ruleset = digest
        self._tell(RulesetChanged(digest))

    def sysctl(self, name: str) -> str | None:
        """Return a sysctl's value; one of an interface exists as long as the interface."""
        if not self._sysctl_exists(name):
            return None
        return self._sysctls.get(name, "80" if name.endswith(".proxy_delay") else "0")

    # --- inside ---------------------------------------------------------------------------------

    def _sysctl_exists(self, name: str) -> bool:
        parts = name.split(".")
        if len(parts) == 5 and parts[2] in {"conf", "neigh"}:
            ifname = parts[3].replace("/", ".")
            return ifname in {"all", "default"} or ifname in self._tables.links
        return name.startswith("net.")

    def _tell(self, event: KernelEvent) -> None:
        if isinstance(event, LinkGone):
            marker = f".{event.name.replace('.', '/')}."
            self._sysctls = {k: v for k, v in self._sysctls.items() if marker not in k}
        if self._events is not None and not self._is_own_route:
            self._events.put(event)

    def _perform(self, op: Op) -> None:
        match op:
            case CreateTunnel() | SetLink() | DeleteLink():
                self._perform_on_link(op)
            case AddAddress() | DeleteAddress() | SetNeighbour() | DeleteNeighbour():
                self._perform_on_device(op)
            case AddRoute() | ReplaceRoute() | DeleteRoute():
                self._is_own_route = True
                try:
                    self._perform_on_route(op)
                finally:
                    self._is_own_route = False
            case SetSysctl(name=name, value=value):
                if not self._sysctl_exists(name):
                    raise Refused(errno.ENOENT, "no such sysctl")
                self._sysctls[name] = value
            case SetRuleset(ruleset=ruleset):
                self._set_ruleset(ruleset.digest)
            case DeleteRuleset():
                self._set_ruleset(None)
            case _:
                assert_never(op)

    def _perform_on_link(self, op: CreateTunnel | SetLink | DeleteLink) -> None:
        match op:
            case CreateTunnel(tunnel=tunnel):
                self._create_tunnel(tunnel)
            case SetLink(name=name, mtu=mtu):
                self._tables.require_link(name)
                if op.tunnel is not None:
                    self._tables.change_tunnel(op.tunnel)
                self.change_link(name, is_up=True, mtu=mtu)
            case DeleteLink(name=name):
                if name in self._tables.links:
                    self._tables.delete_link(name)

    def _perform_on_device(
        self, op: AddAddress | DeleteAddress | SetNeighbour | DeleteNeighbour
    ) -> None:
        match op:
            case AddAddress(address=address):
                self._tables.add_address(address)
            case DeleteAddress(address=address):
                self._tables.delete_address(address)
            case SetNeighbour(entry=entry):
                self._tables.set_neighbour(entry)
            case DeleteNeighbour(entry=entry):
                self._tables.delete_neighbour(entry)

    def _perform_on_route(self, op: AddRoute | ReplaceRoute | DeleteRoute) -> None:
        match op:
            case AddRoute(route=route):
                self._tables.add_route(route)
            case ReplaceRoute(old=old, new=new):
                self._tables.replace_route(old, new=new)
            case DeleteRoute(route=route):
                self._tables.delete_route(route)

    def _create_tunnel(self, wanted: Tunnel) -> None:
        present = self._tables.links.get(wanted.name)
        if present is not None:
            why = unlike(present, wanted)
            if why is not None:
                raise Refused(errno.EEXIST, why)
            return
        self._tables.require_no_rival(wanted.vxlan)
        index = self._tables.next_index()
        link = Link(wanted.name, index, wanted.kind, wanted.mtu, wanted.mac, vxlan=wanted.vxlan)
        self._tables.add_link(link)

    def _set_ruleset(self, digest: str | None) -> None:
        if digest is not None and self.nat_unavailable is not None:
            raise Refused(errno.EOPNOTSUPP, self.nat_unavailable.reason)
        if digest != self._ruleset:
            self._ruleset = digest
            self._tell(RulesetChanged(digest))
