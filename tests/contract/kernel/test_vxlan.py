"""What every implementation of the `Kernel` door does with VXLAN devices and who is behind them."""

import asyncio
import errno
from dataclasses import replace
from ipaddress import ip_address

import pytest

from pycni.model.linklayer import FdbEntry, LinkLayerEntry, NeighbourEntry, Vxlan
from pycni.model.network import (
    AddRoute,
    CreateTunnel,
    DeleteLink,
    DeleteNeighbour,
    KernelEvent,
    LinkChanged,
    NeighbourChanged,
    ReplaceRoute,
    RouteChanged,
    RouteType,
    SetLink,
    SetNeighbour,
    Tunnel,
)
from tests.contract.kernel.worlds import (
    BLOCK6,
    World,
    apply,
    codes,
    lines,
    outside,
    route,
    table,
    watch,
)

NAME = "vxlan.calico"
DEVICE = Tunnel(NAME, "vxlan", 1450, "66:00:00:00:00:01", Vxlan(4096, 4789, ip_address("10.0.0.1")))
DEVICE6 = Tunnel(
    "vxlan-v6.calico", "vxlan", 1430, "66:00:00:00:00:06", Vxlan(4096, 4789, ip_address("fd00::1"))
)
REMOTE = FdbEntry(NAME, "66:00:00:00:00:02", ip_address("10.0.0.2"))
NEIGHBOUR = NeighbourEntry(NAME, ip_address("192.168.0.64"), "66:00:00:00:00:02")
REMOTE6 = FdbEntry(DEVICE6.name, "66:00:00:00:00:07", ip_address("fd00::2"))
NEIGHBOUR6 = NeighbourEntry(DEVICE6.name, ip_address("fd10::40"), "66:00:00:00:00:07")
ENTRIES: list[LinkLayerEntry] = [REMOTE, NEIGHBOUR, REMOTE6, NEIGHBOUR6]


@pytest.fixture
def vtep(node: World) -> World:
    """A node with both VXLAN devices, up."""
    made = (DEVICE, DEVICE6)
    assert apply(node, *map(CreateTunnel, made), *(SetLink(t.name, t.mtu) for t in made)) == []
    return node


def entries(world: World) -> set[LinkLayerEntry]:
    return set(world.snapshot().neighbours.values())


def test_a_device_has_what_it_was_made_with(vtep: World) -> None:
    links = vtep.snapshot().links

    for made in (DEVICE, DEVICE6):
        link = links[made.name]
        assert (link.kind, link.mtu, link.mac, link.vxlan) == (
            "vxlan",
            made.mtu,
            made.mac,
            made.vxlan,
        )


def test_a_device_is_made_once_and_not_over_another_of_its_name(vtep: World) -> None:
    network = Vxlan(42, 4789, ip_address("10.0.0.1"))
    other = replace(DEVICE, mac="66:00:00:00:00:42", vxlan=network)

    assert apply(vtep, CreateTunnel(DEVICE)) == []
    assert apply(vtep, DeleteLink(NAME), CreateTunnel(other)) == []
    (failure,) = apply(vtep, CreateTunnel(DEVICE))

    assert failure.errno == errno.EEXIST
    assert "it exists, and is another's" in failure.message
    assert vtep.snapshot().links[NAME].vxlan == other.vxlan


def test_one_that_has_come_meanwhile_and_can_serve_is_taken_and_changed_in_place(
    vtep: World,
) -> None:
    """Entries stay as far as they don't hang on the MAC address."""
    network = Vxlan(4096, 4789, ip_address("10.0.0.7"))
    wanted = replace(DEVICE, mac="66:00:00:00:00:08", vxlan=network)
    assert apply(vtep, SetNeighbour(REMOTE), SetNeighbour(NEIGHBOUR)) == []
    index = vtep.snapshot().links[NAME].index

    assert apply(vtep, CreateTunnel(wanted), SetLink(NAME, 1400, wanted)) == []

    link = vtep.snapshot().links[NAME]
    found = (link.index, link.mac, link.vxlan, link.mtu, link.is_up)
    assert found == (index, wanted.mac, network, 1400, True)
    assert entries(vtep) == {REMOTE}


@pytest.mark.parametrize("is_learning", [True, False])
def test_learning_and_the_local_address_change_in_place(vtep: World, *, is_learning: bool) -> None:
    networks = [Vxlan(4096, 4789, ip_address(f"10.0.0.{n}"), is_learning) for n in (1, 7)]
    assert apply(vtep, *map(SetNeighbour, ENTRIES)) == []

    for network in networks:
        change = replace(DEVICE, mac="", vxlan=network)
        assert apply(vtep, SetLink(NAME, 1450, change)) == []
        link = vtep.snapshot().links[NAME]
        assert (link.mac, link.vxlan) == (DEVICE.mac, network)

    assert entries(vtep) == set(ENTRIES)


def test_a_network_can_not_be_changed_in_place(vtep: World) -> None:
    other = replace(DEVICE, vxlan=Vxlan(42, 4789, ip_address("10.0.0.1")))

    assert codes(apply(vtep, SetLink(NAME, 1450, other))) == [errno.EOPNOTSUPP]


def test_two_devices_can_not_have_one_network(vtep: World) -> None:
    assert codes(apply(vtep, CreateTunnel(replace(DEVICE, name="vxlan7")))) == [errno.EEXIST]
    assert "vxlan7" not in vtep.snapshot().links


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_entries_are_written_over_what_is_there_and_deleted_once(
    vtep: World, entry: LinkLayerEntry
) -> None:
    other: LinkLayerEntry
    if isinstance(entry, FdbEntry):
        other = replace(entry, remote=entry.remote + 7 if entry.remote is not None else None)
    else:
        other = replace(entry, mac="66:00:00:00:00:09")

    assert apply(vtep, SetNeighbour(entry), SetNeighbour(entry)) == []
    assert entries(vtep) == {entry}
    assert apply(vtep, SetNeighbour(other)) == []
    assert entries(vtep) == {other}
    assert apply(vtep, DeleteNeighbour(entry), DeleteNeighbour(entry)) == []
    assert entries(vtep) == set()


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_others_entries_are_told_apart_from_ours(vtep: World, entry: LinkLayerEntry) -> None:
    others = replace(entry, is_ours=False)
    vtep.set_neighbour(others)
    assert entries(vtep) == {others}

    assert apply(vtep, DeleteNeighbour(others), SetNeighbour(entry)) == []

    assert entries(vtep) == {entry}


def test_a_forwarding_entry_that_is_written_over_anothers_stays_anothers(vtep: World) -> None:
    vtep.set_neighbour(replace(REMOTE, remote=ip_address("10.0.0.9"), is_ours=False))

    assert apply(vtep, SetNeighbour(REMOTE)) == []

    assert entries(vtep) == {replace(REMOTE, is_ours=False)}


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_a_device_that_is_down_takes_entries(node: World, entry: LinkLayerEntry) -> None:
    made = (DEVICE, DEVICE6)

    assert apply(node, *map(CreateTunnel, made), SetNeighbour(entry)) == []
    assert apply(node, *(SetLink(t.name, t.mtu) for t in made)) == []

    assert entries(node) == {entry}


def test_an_ipv6_next_hop_may_be_reached_by_no_other_device(vtep: World) -> None:
    """Even one that is said to be on the link; a route of its own settles it."""
    direct = route(BLOCK6, via="fd00::9", dev="eth0")
    tunnelled = route(BLOCK6, via="fd02::1", dev=DEVICE6.name, onlink=True)
    own = route("fd02::1/128", dev=DEVICE6.name)
    assert apply(vtep, AddRoute(direct)) == []

    assert codes(apply(vtep, ReplaceRoute(direct, tunnelled))) == [errno.EINVAL]
    assert apply(vtep, AddRoute(own), ReplaceRoute(direct, tunnelled)) == []

    assert table(vtep, tunnelled.key) == lines(tunnelled)


def test_an_ipv6_next_hop_in_what_is_refused_is_taken(vtep: World) -> None:
    blackhole = route("fd03::/64", kind=RouteType.BLACKHOLE)
    tunnelled = route(BLOCK6, via="fd03::1", dev=DEVICE6.name, onlink=True)

    assert apply(vtep, AddRoute(blackhole), AddRoute(tunnelled)) == []


@pytest.mark.parametrize("entry", [REMOTE, NEIGHBOUR], ids=str)
def test_an_entry_needs_its_device(node: World, entry: LinkLayerEntry) -> None:
    assert codes(apply(node, SetNeighbour(entry))) == [errno.ENODEV]
    assert apply(node, DeleteNeighbour(entry)) == []


def test_neighbours_go_when_the_device_goes_down_and_forwarding_entries_stay(vtep: World) -> None:
    apply(vtep, *map(SetNeighbour, ENTRIES))

    for name in (NAME, DEVICE6.name):
        vtep.set_up(name, is_up=False)

    assert entries(vtep) == {REMOTE, REMOTE6}


def test_entries_go_with_their_device(vtep: World) -> None:
    apply(vtep, *map(SetNeighbour, ENTRIES))

    apply(vtep, DeleteLink(NAME))

    assert entries(vtep) == {REMOTE6, NEIGHBOUR6}


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_an_entry_that_somebody_writes_or_deletes_is_told(
    vtep: World, entry: LinkLayerEntry
) -> None:
    def ends(event: KernelEvent) -> bool:
        return (
            isinstance(event, NeighbourChanged)
            and event.entry.key == entry.key
            and not event.is_present
        )

    def act() -> None:
        vtep.set_neighbour(entry)
        vtep.delete_neighbour(entry)

    events = watch(vtep, outside(act), until=ends)

    assert NeighbourChanged(entry, is_present=True) in events


def test_entries_of_a_device_that_is_made_later_are_told(node: World) -> None:
    async def story() -> None:
        events = node.kernel.events()
        await node.kernel.apply([CreateTunnel(DEVICE), SetLink(NAME, 1450)])
        async with asyncio.timeout(20):
            async for event in events:
                if isinstance(event, LinkChanged) and event.link.name == NAME:
                    node.set_neighbour(REMOTE)
                    break
            async for event in events:
                if event == NeighbourChanged(REMOTE, is_present=True):
                    break

    asyncio.run(story())


def test_with_a_device_too_routes_that_we_write_are_not_told_to_us(node: World) -> None:
    """From the first device on its neighbours are told, which needs the filter set anew."""
    own = route("192.168.84.128/26", kind=RouteType.BLACKHOLE)
    marker = route("192.168.99.0/26", kind=RouteType.BLACKHOLE, proto=4)

    async def run() -> list[KernelEvent]:
        events = node.kernel.events()
        assert await node.kernel.apply([CreateTunnel(DEVICE), SetLink(NAME, 1450)]) == []
        async with asyncio.timeout(5):
            async for event in events:
                if isinstance(event, LinkChanged) and event.link.name == NAME:
                    break
            assert await node.kernel.apply([AddRoute(own), SetNeighbour(REMOTE)]) == []
            node.append(marker)
            seen: list[KernelEvent] = []
            while RouteChanged(marker, is_present=True) not in seen:
                seen.append(await anext(aiter(events)))
        return seen

    seen = asyncio.run(run())

    assert NeighbourChanged(REMOTE, is_present=True) in seen
    assert RouteChanged(own, is_present=True) not in seen
