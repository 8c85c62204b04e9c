"""What the real kernel says and we don't pass on; all the rest must arrive."""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_interface

import pytest

from pycni.kernel.event_filter import hear_what_matters
from pycni.kernel.monitor import latest_links
from pycni.kernel.netlink import join_group, open_socket
from pycni.kernel.wire import Message, messages
from pycni.kernel.wire_link import (
    RTM_DELLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    read_address,
)
from pycni.kernel.wire_neighbour import NUD_FAILED, RTM_NEWNEIGH, read_entry
from pycni.kernel.wire_route import RTM_DELROUTE, RTM_NEWROUTE, RouteReader
from pycni.model.network import (
    Address,
    AddressChanged,
    KernelEvent,
    LinkChanged,
    RouteChanged,
)
from tests.contract.kernel.conftest import RealWorld, ip

AF_BRIDGE = 7
GROUPS = (1, 3, 5, 7, 9, 11)  # links, neighbours, and both families' addresses and routes


def subscribed() -> socket.socket:
    raw = open_socket()
    raw.setblocking(False)
    for group in GROUPS:
        join_group(raw, group)
    return raw


def heard(raw: socket.socket) -> list[Message]:
    found: list[Message] = []
    while True:
        try:
            found += messages(raw.recv(1 << 16))
        except BlockingIOError:
            return found


def matters(message: Message) -> bool:
    """Judge by everything that the message says, as readers do."""
    if message.type in (RTM_NEWROUTE, RTM_DELROUTE):
        route = RouteReader(lambda _: "any").read(message.body)
        return route is not None and not (
            route.key.dst.version == 6 and route.key.dst.network_address.is_link_local
        )
    if message.type == RTM_NEWADDR:
        address = read_address(message.body, name_of=lambda _: "any")
        return address is None or not address.interface.ip.is_link_local
    if message.type == RTM_NEWNEIGH:
        read = read_entry(message.body, name_of=lambda _: "any")
        # A deletion is told as a failed entry first.
        return read is not None and (read[1] or is_failed(message))
    return True


def is_failed(message: Message) -> bool:
    (state,) = struct.unpack_from("=H", message.body, 8)
    return bool(state & NUD_FAILED)


def happen() -> None:
    """Make every kind of message, of both sorts."""
    for line in (
        "link add name veth0 type veth peer name veth1",
        "link set veth0 up",
        "link set veth1 up",  # both get fe80::/64 and an address in it
        "address add 10.0.0.1/24 dev veth0",
        "address add 10.0.0.2/32 dev veth0 scope link",
        "address add fd00::1/64 dev veth0 nodad",
        "address add fe80::5/64 dev veth0 nodad",
        "address add fe80::6/128 dev veth0 nodad",
        "route add 10.9.0.0/16 via 10.0.0.9",
        "route add blackhole 10.8.0.0/16 table 1000",
        "-6 route add default via fd00::9 dev veth0",
        "-6 route add fe00::/9 dev veth0",
        "-6 route add fe80::/10 dev veth0",
        "-6 route add fe80:1::/32 dev veth0 table 1000",
        "-6 route add fec0::/16 via fd00::9 dev veth0 table 1000",
        "-6 route add blackhole fd01::/64",
        "-6 route add fd02::/64 nexthop via fd00::9 dev veth0 nexthop via fd00::8 dev veth0",
        "address delete 10.0.0.1/24 dev veth0",
        "address delete fe80::5/64 dev veth0",
        "address delete fd00::1/64 dev veth0",
        "neigh add 10.7.0.1 lladdr 66:00:00:00:00:01 dev veth0 nud permanent",
        "neigh add 10.7.0.2 lladdr 66:00:00:00:00:02 dev veth0 nud stale",
        "neigh delete 10.7.0.1 dev veth0",
        "link delete veth0",
    ):
        ip(*line.split())


@pytest.mark.usefixtures("real_world")
def test_the_kernel_drops_what_nobody_looks_at_and_nothing_else() -> None:
    with ExitStack() as stack:
        plain, filtered = (stack.enter_context(subscribed()) for _ in range(2))
        hear_what_matters(filtered)

        happen()

        everything, passed = heard(plain), heard(filtered)
    assert [m.body for m in passed] == [m.body for m in everything if matters(m)]
    assert {m.type for m in everything if not matters(m)} == {
        RTM_NEWADDR,
        RTM_NEWNEIGH,
        RTM_NEWROUTE,
        RTM_DELROUTE,
    }


def told(world: RealWorld, act: Callable[[], None], *, until: KernelEvent) -> list[KernelEvent]:
    async def run() -> list[KernelEvent]:
        events = world.kernel.events()
        act()
        seen: list[KernelEvent] = []
        async with asyncio.timeout(20):
            async for event in events:
                seen.append(event)
                if event == until:
                    break
        return seen

    return asyncio.run(run())


def test_a_link_is_told_only_when_something_of_it_is_different(real_world: RealWorld) -> None:
    real_world.add_link("eth0")

    def act() -> None:
        for length in ("500", "600"):  # of the queue: reported, but nothing that we keep
            ip("link", "set", "eth0", "txqueuelen", length)
        for mtu in ("1400", "1400", "1300"):
            ip("link", "set", "eth0", "mtu", mtu)
        ip("address", "add", "10.0.0.1/32", "dev", "eth0")

    marker = Address("eth0", ip_interface("10.0.0.1/32"))
    events = told(real_world, act, until=AddressChanged(marker, is_present=True))

    links = [e.link for e in events if isinstance(e, LinkChanged) and e.link.name == "eth0"]
    # Those that come at once are told once, as they end.
    assert [link.mtu for link in links] in ([1400, 1300], [1300])


UP = 0x1


def link_message(
    index: int,
    name: str,
    tail: bytes,
    *,
    flags: int = 0,
    family: int = 0,
    kind: int = RTM_NEWLINK,
) -> Message:
    head = struct.pack("=BxHiII", family, 1, index, flags, 0)
    padded = name.encode().ljust(16, b"\0")
    return Message(kind, 0, 0, head + struct.pack("=HH", 20, 3) + padded + tail)


def test_of_messages_about_a_link_with_the_same_flags_and_name_the_latest_is_read() -> None:
    route = Message(RTM_NEWROUTE, 0, 0, b"route")
    batch = [
        link_message(5, "a", b"made"),
        link_message(5, "a", b"port", family=AF_BRIDGE),
        route,
        link_message(6, "b", b"other"),
        link_message(5, "a", b"aliased"),
        link_message(5, "a", b"up", flags=UP),
        link_message(5, "a", b"with carrier", flags=UP),
        link_message(5, "a", b"gone", kind=RTM_DELLINK),
        link_message(5, "a", b"made again", flags=UP),
    ]

    assert latest_links(batch) == [
        link_message(5, "a", b"aliased"),
        link_message(5, "a", b"port", family=AF_BRIDGE),
        route,
        link_message(6, "b", b"other"),
        link_message(5, "a", b"with carrier", flags=UP),
        link_message(5, "a", b"gone", kind=RTM_DELLINK),
        link_message(5, "a", b"made again", flags=UP),
    ]


def test_a_moment_down_and_a_name_taken_over_are_told() -> None:
    flapping = [link_message(5, "a", b"", flags=flags) for flags in (UP, 0, UP)]
    renamed = [
        link_message(7, "new", b""),
        link_message(5, "a", b"", kind=RTM_DELLINK),
        link_message(7, "a", b""),
    ]

    assert latest_links(flapping) == flapping
    assert latest_links(renamed) == renamed


def test_a_link_that_was_down_for_a_moment_is_told_as_down(real_world: RealWorld) -> None:
    """The kernel drops its routes without a word, so that is how we learn of it."""
    real_world.add_link("eth0")

    def act() -> None:
        ip("link", "set", "eth0", "down")
        ip("link", "set", "eth0", "up")
        ip("address", "add", "10.0.0.1/32", "dev", "eth0")

    marker = Address("eth0", ip_interface("10.0.0.1/32"))
    events = told(real_world, act, until=AddressChanged(marker, is_present=True))

    links = [e.link for e in events if isinstance(e, LinkChanged) and e.link.name == "eth0"]
    assert [link.is_up for link in links][-2:] == [False, True]


def test_link_local_addresses_and_routes_that_come_are_not_told(real_world: RealWorld) -> None:
    marker = Address("veth0", ip_interface("10.0.0.1/32"))

    def act() -> None:
        ip("link", "add", "name", "veth0", "type", "veth", "peer", "name", "veth1")
        ip("link", "set", "veth1", "up")
        ip("link", "set", "veth0", "up")
        ip("address", "add", "fe80::5/64", "dev", "veth0", "nodad")
        ip("address", "add", "10.0.0.1/32", "dev", "veth0")

    events = told(real_world, act, until=AddressChanged(marker, is_present=True))

    others = [e for e in events if isinstance(e, AddressChanged | RouteChanged)]
    assert others == [AddressChanged(marker, is_present=True)]


def test_link_local_address_that_goes_is_told(real_world: RealWorld) -> None:
    lost = Address("veth0", ip_interface("fe80::5/64"))

    def act() -> None:
        ip("link", "add", "name", "veth0", "type", "veth", "peer", "name", "veth1")
        ip("address", "add", "fe80::5/64", "dev", "veth0", "nodad")
        ip("address", "delete", "fe80::5/64", "dev", "veth0")

    events = told(real_world, act, until=AddressChanged(lost, is_present=False))

    assert [e for e in events if isinstance(e, AddressChanged)] == [
        AddressChanged(lost, is_present=False)
    ]
