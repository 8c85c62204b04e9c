"""The event socket: what the kernel tells about links, addresses, routes and our nftables table.

Of neighbours, those of VXLAN devices.

What it does NOT tell: IPv4 routes vanish silently when their link goes down, loses its last
address or is deleted, and when their source address goes; sysctls change silently.  Whoever
listens lists again after an event about such a link.

What is not passed on: the `local` table, link-local addresses and routes of IPv6, a link's event
that changes nothing of its `Link`, as when only its operational state or counters did, and routes
that were written by way of the listener's own sockets.

The kernel's socket buffer is the only queue: a listener too slow for it is told `EventsLost`.
"""

import asyncio
import errno
from collections import deque
from collections.abc import Collection, Sequence

from pycni.errors import EventsLost
from pycni.kernel import wire_link, wire_neighbour, wire_route
from pycni.kernel.event_filter import hear_what_matters
from pycni.kernel.names import LinkIndexes
from pycni.kernel.neighbours import VXLAN_KIND
from pycni.kernel.netlink import NetlinkSocket, join_group, open_socket
from pycni.kernel.nft import Nftables
from pycni.kernel.wire import NLM_F_REPLACE, Message, messages
from pycni.model.network import (
    AddressChanged,
    KernelEvent,
    Link,
    LinkChanged,
    LinkGone,
    NeighbourChanged,
    RouteChanged,
    RulesetChanged,
)
from pycni.model.tunnels import VXLAN_DEVICES

# RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
_GROUPS = (1, 5, 7, 9, 11)
# RTNLGRP_NEIGH: joined with the first VXLAN device, for it tells of every pod's neighbours, too.
_NEIGHBOURS = 3
# A burst of 20,000 routes fits; the kernel accounts only for what is really queued.
_BUFFER = 64 << 20
_DATAGRAM = 1 << 16
# Between two turns of the event loop: about 5 ms of decoding.
_BURST = 256
# A pod's events come one by one within a millisecond: the rest of them is worth one look.
_PAUSE_S = 0.002
# Family, type and index tell one link from another (struct ifinfomsg); then come flags and change
# mask, and the kernel puts the name first of all attributes (4 bytes of head, 16 of text at most).
_LINK_HEAD = 8
_LINK_FLAGS = slice(8, 12)
_LINK_NAME = slice(16, 16 + 4 + 16)


class KernelEvents:
    """An async iterator of `KernelEvent`; it is subscribed from its construction on."""

    def __init__(
        self,
        *,
        nftables: Nftables | None = None,
        own_ports: Collection[int] = (),
        buffer: int = _BUFFER,
    ) -> None:
        self._raw = open_socket(buffer=buffer)
        self._own_ports = own_ports
        self._nftables = nftables
        self._filter_raw = nftables.subscribe() if nftables is not None else None
        self._digest = nftables.digest() if nftables is not None else None
        hear_what_matters(self._raw, own_ports=own_ports)
        for group in _GROUPS:
            join_group(self._raw, group)
        self._raw.setblocking(False)
        self._asking = NetlinkSocket()
        self._names = LinkIndexes(self._asking)
        self._routes = wire_route.RouteReader(self._names.name_of)
        self._links: dict[int, Link] = {}
        self._hears_neighbours = False
        # Subscribed first, listed second: a rename in between is then told by an event.
        for message in self._asking.dump(wire_link.dump_links()):
            self._link(message)
        self._ready: deque[KernelEvent] = deque()
        self._since_turn = 0
        self._is_series = False
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False

    def close(self) -> None:
        """Unsubscribe; a task that waits for the next event gets `EventsLost`."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._waiter is not None:
            self._unwatch(self._waiter.get_loop())
            self._wake()
        self._raw.close()
        self._asking.close()
        if self._filter_raw is not None:
            self._filter_raw.close()

    def __aiter__(self) -> "KernelEvents":
        return self

    async def __anext__(self) -> KernelEvent:
        """Return the next event; raise `EventsLost` after an overrun and from then on."""
        while not self._ready:
            if self._is_closed:
                raise EventsLost("the kernel's events are no longer subscribed to: subscribe again")
            if self._receive() or self._check_ruleset():
                self._is_series = True
            elif self._is_series:
                self._is_series = False
                self._since_turn = 0
                await asyncio.sleep(_PAUSE_S)
            else:
                await self._readable()
        self._since_turn += 1
        if self._since_turn >= _BURST:
            self._since_turn = 0
            await asyncio.sleep(0)
        return self._ready.popleft()

    def _receive(self) -> bool:
        """Read what is there, a good deal of it at most; tell whether there was anything."""
        batch: list[Message] = []
        try:
            while len(batch) < _BURST:
                batch.extend(messages(self._raw.recv(_DATAGRAM)))
        except BlockingIOError:
            pass
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:
                raise
            self.close()
            raise EventsLost("the kernel dropped events: its buffer for them was full") from exc
        for message in latest_links(batch):
            self._ready.extend(self._read(message))
        return bool(batch)

    def _check_ruleset(self) -> bool:
        if self._nftables is None or self._filter_raw is None:
            return False
        if not self._nftables.drain(self._filter_raw):
            return False
        digest = self._nftables.digest()
        if digest != self._digest:
            self._digest = digest
            self._ready.append(RulesetChanged(digest))
        return True

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._since_turn = 0
        loop.add_reader(self._raw, self._wake)
        if self._filter_raw is not None:
            loop.add_reader(self._filter_raw, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if not self._is_closed:
                self._unwatch(loop)

    def _unwatch(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._raw)
        if self._filter_raw is not None:
            loop.remove_reader(self._filter_raw)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _read(self, message: Message) -> Sequence[KernelEvent]:
        match message.type:
            case wire_link.RTM_NEWLINK:
                return self._link(message)
            case wire_link.RTM_DELLINK:
                return self._link_gone(message)
            case wire_link.RTM_NEWADDR | wire_link.RTM_DELADDR:
                address = wire_link.read_address(message.body, name_of=self._names.name_of)
                is_present = message.type == wire_link.RTM_NEWADDR
                return () if address is None else (AddressChanged(address, is_present),)
            case wire_route.RTM_NEWROUTE | wire_route.RTM_DELROUTE:
                route = self._routes.read(message.body)
                is_present = message.type == wire_route.RTM_NEWROUTE
                is_replacement = is_present and bool(message.flags & NLM_F_REPLACE)
                return () if route is None else (RouteChanged(route, is_present, is_replacement),)
            case wire_neighbour.RTM_NEWNEIGH | wire_neighbour.RTM_DELNEIGH:
                return self._neighbour(message)
            case _:
                return ()

    def _neighbour(self, message: Message) -> Sequence[KernelEvent]:
        link = self._links.get(wire_neighbour.read_index(message.body))
        if link is None or link.kind != VXLAN_KIND:
            return ()
        read = wire_neighbour.read_entry(message.body, name_of=self._names.name_of)
        if read is None:
            return ()
        entry, has_place = read
        # A deletion is told as a failed entry first.
        is_present = message.type == wire_neighbour.RTM_NEWNEIGH and has_place
        return (NeighbourChanged(entry, is_present),)

    def _link(self, message: Message) -> Sequence[KernelEvent]:
        link = wire_link.read_link(message.body)
        if link is None:
            return ()
        before = self._links.get(link.index)
        if before == link:
            return ()
        self._links[link.index] = link
        self._names.learn(link.index, name=link.name)
        if link.kind == VXLAN_KIND:
            self._hear_neighbours()
        if before is None or before.name == link.name:
            return (LinkChanged(link),)
        self._routes = wire_route.RouteReader(self._names.name_of)
        return (LinkGone(before.name), LinkChanged(link))

    def _hear_neighbours(self) -> None:
        """Hear of entries that are there to stay, and of all of the devices that may be ours."""
        ours = VXLAN_DEVICES.values()
        devices = {link.index for link in self._links.values() if link.name in ours}
        hear_what_matters(self._raw, devices=devices, own_ports=self._own_ports)
        if not self._hears_neighbours:
            self._hears_neighbours = True
            join_group(self._raw, _NEIGHBOURS)

    def _link_gone(self, message: Message) -> Sequence[KernelEvent]:
        index = wire_link.gone_index(message.body)
        link = self._links.pop(index, None) if index is not None else None
        if link is None:
            return ()
        self._names.forget(link.index)
        # A next hop remembered by the index would outlive the name.
        self._routes = wire_route.RouteReader(self._names.name_of)
        return (LinkGone(link.name),)


def latest_links(batch: Sequence[Message]) -> Sequence[Message]:
    """Leave out what is told of a link and told again with the same flags and name.

    Another flag or name is never left out: a link that was down for a moment has lost its routes,
    and one that took another's name comes after that one's end.
    """
    kept: list[Message] = []
    latest: dict[bytes, tuple[int, bytes]] = {}
    for message in batch:
        body = message.body
        link, rest = body[:_LINK_HEAD], body[_LINK_FLAGS] + body[_LINK_NAME]
        if message.type == wire_link.RTM_NEWLINK:
            place, before = latest.get(link, (0, b""))
            if rest == before:
                kept[place] = message
                continue
            latest[link] = (len(kept), rest)
        elif message.type == wire_link.RTM_DELLINK:
            latest.pop(link, None)
        kept.append(message)
    return kept
