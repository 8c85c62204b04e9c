"""The real kernel behind the `Kernel` door: one network namespace, this process's own.

It reads and writes what it is told; what belongs there is decided elsewhere.
"""

import asyncio
import errno
import os
from collections.abc import Collection, Sequence
from itertools import groupby
from socket import AF_INET, AF_INET6
from typing import assert_never

from pycni.errors import PycniError, TryAgain
from pycni.kernel import wire_link, wire_route
from pycni.kernel.linklike import no_such_kind, rival_of, unlike
from pycni.kernel.monitor import KernelEvents
from pycni.kernel.names import LinkIndexes
from pycni.kernel.neighbours import list_entries, write_entry
from pycni.kernel.netlink import (
    BATCH,
    DUMP_TRIES,
    DumpInterruptedError,
    KernelError,
    NetlinkSocket,
    still_interrupted,
)
from pycni.kernel.nft import Nftables
from pycni.kernel.routes import RouteWriter
from pycni.kernel.sysctl import read_sysctl, write_sysctl
from pycni.kernel.wire import Request
from pycni.model.network import (
    AddAddress,
    AddRoute,
    CreateTunnel,
    DeleteAddress,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    DeleteRuleset,
    Failure,
    IPAddress,
    KernelState,
    Op,
    ReplaceRoute,
    Route,
    RouteKey,
    SetLink,
    SetNeighbour,
    SetRuleset,
    SetSysctl,
    Tunnel,
)
from pycni.plan.iproute import route_text

# What a lookup says where no route leads on: none, or one of the types that refuse (unreachable,
# prohibit, blackhole).
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL}


class LinuxKernel:
    """Implements `pycni.ports.Kernel`; made and used inside the namespace that it is about."""

    def __init__(self) -> None:
        self._requests = NetlinkSocket()
        self._routes = RouteWriter(self._requests)
        # Listing has its own socket: it spans several turns of the event loop.
        self._listings = NetlinkSocket()
        self._listing = asyncio.Lock()
        self._nftables = Nftables()
        self._events: KernelEvents | None = None

    def close(self) -> None:
        """Close every socket; a running iterator of `events` ends with `EventsLost`."""
        if self._events is not None:
            self._events.close()
        self._requests.close()
        self._listings.close()
        self._nftables.close()

    def events(self) -> KernelEvents:
        """Subscribe now; an earlier subscription ends."""
        if self._events is not None:
            self._events.close()
        self._events = KernelEvents(nftables=self._nftables, own_ports=(self._requests.port(),))
        return self._events

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """Read some sysctls now; those that don't exist are left out."""
        return {n: v for n in names if (v := read_sysctl(n)) is not None}

    def source_to(self, destination: IPAddress) -> IPAddress | None:
        """Ask the kernel from which address it would send to a destination."""
        acks, replies = self._requests.exchange([wire_route.source_request(destination)])
        if acks[0].errno in _NO_WAY:
            return None
        if acks[0].errno:
            raise KernelError(acks[0].errno, acks[0].text)
        return wire_route.read_source(replies[0].body)

    def drop_counters(self) -> dict[str, int]:
        """Return how many packets each drop rule of our nftables table has met."""
        return self._nftables.counters()

    # --- reading --------------------------------------------------------------------------------

    async def snapshot(self, sysctls: Sequence[str]) -> KernelState:
        """Read the whole state, giving way to other tasks every few milliseconds."""
        async with self._listing:
            for _ in range(DUMP_TRIES):
                try:
                    return await self._read(sysctls)
                except DumpInterruptedError:
                    continue
                except BaseException:
                    # A listing broken off (cancelled) would block the next one on that socket.
                    self._listings.close()
                    self._listings = NetlinkSocket()
                    raise
        raise still_interrupted(wire_route.dump_request(AF_INET))

    async def _read(self, sysctls: Sequence[str]) -> KernelState:
        state = KernelState()
        names = LinkIndexes(self._listings)
        for part in self._listings.dump_parts(wire_link.dump_links()):
            for link in filter(None, (wire_link.read_link(message.body) for message in part)):
                state.links[link.name] = link
                names.learn(link.index, name=link.name)
            await asyncio.sleep(0)
        for part in self._listings.dump_parts(wire_link.dump_addresses()):
            read = (wire_link.read_address(m.body, name_of=names.name_of) for m in part)
            state.addresses.update(address for address in read if address is not None)
            await asyncio.sleep(0)
        state.neighbours = await list_entries(self._listings, state.links.values(), names=names)
        reader = wire_route.RouteReader(names.name_of)
        for family in (AF_INET, AF_INET6):
            await self._read_routes(family, reader=reader, into=state.routes)
        for name in sysctls:
            value = read_sysctl(name)
            if value is not None:
                state.sysctls[name] = value
        state.nat_unavailable = await self._nftables.unavailable()
        state.ruleset = self._nftables.digest() if state.nat_unavailable is None else None
        return state

    async def _read_routes(
        self,
        family: int,
        *,
        reader: wire_route.RouteReader,
        into: dict[RouteKey, tuple[Route, ...]],
    ) -> None:
        for part in self._listings.dump_parts(wire_route.dump_request(family)):
            for route in filter(None, (reader.read(message.body) for message in part)):
                before = into.setdefault(route.key, (route,))
                if before[0] is not route:
                    into[route.key] = (*before, route)
            await asyncio.sleep(0)

    # --- writing --------------------------------------------------------------------------------

    async def apply(self, ops: Sequence[Op]) -> Sequence[Failure]:
        """Perform the operations; the event loop gets a turn after each batch of routes."""
        failures: list[Failure] = []
        for _, lane in groupby(ops, key=_lane):
            run = list(lane)
            for start in range(0, len(run), BATCH):
                failures += await self._apply_batch(run[start : start + BATCH])
                await asyncio.sleep(0)
        return failures

    async def _apply_batch(self, batch: Sequence[Op]) -> list[Failure]:
        plain = [op for op in batch if isinstance(op, AddRoute | DeleteRoute)]
        if plain:
            return self._routes.add_or_delete(plain)
        replacements = [op for op in batch if isinstance(op, ReplaceRoute)]
        if replacements:
            return self._routes.replace(replacements)
        failures = []
        for op in batch:
            try:
                await self._perform(op)
            except OSError as exc:
                code = exc.errno or errno.EIO
                text = f"cannot {_attempt(op)}: {exc.strerror or os.strerror(code)}"
                failures.append(Failure(op, code, text))
            except PycniError as exc:
                code = errno.EAGAIN if isinstance(exc, TryAgain) else errno.EINVAL
                failures.append(Failure(op, code, f"cannot {_attempt(op)}: {exc}"))
        return failures

    async def _perform(self, op: Op) -> None:
        match op:
            case CreateTunnel() | SetLink() | DeleteLink():
                self._set_link(op)
            case AddAddress() | DeleteAddress():
                self._set_address(op)
            case SetNeighbour() | DeleteNeighbour():
                write_entry(self._requests, op)
            case SetSysctl(name=name, value=value):
                write_sysctl(name, value=value)
            case SetRuleset(ruleset=ruleset):
                await self._nftables.replace(ruleset)
            case DeleteRuleset():
                await self._nftables.delete()
            case AddRoute() | DeleteRoute() | ReplaceRoute():
                raise AssertionError("routes are performed in bulk")
            case _:
                assert_never(op)

    def _set_link(self, op: CreateTunnel | SetLink | DeleteLink) -> None:
        match op:
            case CreateTunnel(tunnel=wanted):
                self._create_tunnel(wanted)
            case SetLink(name=name, mtu=mtu):
                if op.tunnel is not None:
                    self._call(wire_link.change_tunnel(op.tunnel))
                self._call(wire_link.set_link(name=name, is_up=True, mtu=mtu))
            case DeleteLink(name=name):
                self._call(wire_link.delete_link(name=name), accept={errno.ENODEV})
                # The module's own `tunl0` stays, though the kernel calls that a success.
                self._call(wire_link.set_link(name=name, is_up=False), accept={errno.ENODEV})

    def _create_tunnel(self, wanted: Tunnel) -> None:
        try:
            # Loading the module makes a `tunl0` by itself, under our feet: it serves as well.
            is_new = self._call(wire_link.create_tunnel(wanted), accept={errno.EEXIST})
        except KernelError as exc:
            if exc.errno != errno.EOPNOTSUPP:
                raise
            raise KernelError(errno.EOPNOTSUPP, no_such_kind(wanted)) from exc
        if not is_new:
            self._require_like(wanted)

    def _require_like(self, wanted: Tunnel) -> None:
        acks, replies = self._requests.exchange([wire_link.get_link(name=wanted.name)])
        if acks[0].errno:
            raise KernelError(errno.EEXIST, rival_of(wanted))
        for link in filter(None, (wire_link.read_link(reply.body) for reply in replies)):
            why = unlike(link, wanted)
            if why is not None:
                raise KernelError(errno.EEXIST, why)

    def _set_address(self, op: AddAddress | DeleteAddress) -> None:
        address = op.address
        try:
            index = LinkIndexes(self._requests).index_of(address.ifname)
        except KernelError:
            if isinstance(op, DeleteAddress):
                return
            raise
        if isinstance(op, AddAddress):
            request = wire_link.add_address(address.interface, index=index)
            self._call(request, accept={errno.EEXIST})
        else:
            request = wire_link.delete_address(address.interface, index=index)
            self._call(request, accept={errno.EADDRNOTAVAIL, errno.ENODEV})

    def _call(self, request: Request, *, accept: Collection[int] = ()) -> bool:
        """Send one request; return False when its error is one of those that count as done."""
        ack = self._requests.send([request])[0]
        if ack.errno and ack.errno not in accept:
            raise KernelError(ack.errno, ack.text)
        return not ack.errno


def _lane(op: Op) -> str:
    """Name the kind of run that an operation can share with its neighbours."""
    if isinstance(op, ReplaceRoute):
        return "replace"
    return "route" if isinstance(op, AddRoute | DeleteRoute) else "single"


def _attempt(op: Op) -> str:
    """Say in words what an operation attempts."""
    match op:
        case CreateTunnel(tunnel=wanted):
            return f"create {wanted.kind} tunnel {wanted.name} with MTU {wanted.mtu}"
        case SetLink(name=name, mtu=mtu):
            return f"set {name} up with MTU {mtu}"
        case DeleteLink(name=name):
            return f"delete interface {name}"
        case AddAddress() | DeleteAddress() | SetNeighbour() | DeleteNeighbour():
            return _attempt_on_device(op)
        case SetSysctl(name=name, value=value):
            return f"set sysctl {name} to {value!r}"
        case SetRuleset(ruleset=ruleset):
            return f"load nftables ruleset {ruleset.digest}"
        case DeleteRuleset():
            return "delete our nftables table"
        case AddRoute(route=route) | DeleteRoute(route=route) | ReplaceRoute(new=route):
            return f"write route {route_text(route)}"
        case _:
            assert_never(op)


def _attempt_on_device(op: AddAddress | DeleteAddress | SetNeighbour | DeleteNeighbour) -> str:
    match op:
        case AddAddress(address=address):
            return f"add address {address.interface} to {address.ifname}"
        case DeleteAddress(address=address):
            return f"delete address {address.interface} from {address.ifname}"
        case SetNeighbour(entry=entry):
            return f"write {entry}"
        case DeleteNeighbour(entry=entry):
            return f"delete {entry}"
