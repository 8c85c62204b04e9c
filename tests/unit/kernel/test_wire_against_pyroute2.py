"""Our bytes against pyroute2, which encodes and decodes the same messages on its own."""

import sys
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.ndtmsg import ndtmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from pycni.kernel import wire_conf, wire_link, wire_neighbour, wire_route
from pycni.kernel.wire import messages
from pycni.model.linklayer import FdbEntry, NeighbourEntry, Vxlan
from pycni.model.network import (
    Address,
    IPNetwork,
    Link,
    NextHop,
    Route,
    RouteKey,
    RouteType,
    Scope,
    Tunnel,
)
from pycni.plan.iproute import hop_order

Version = Literal[4, 6]

INDEXES = {"eth0": 2, "tunl0": 3, "cali0": 70_000}
NAMES = {index: name for name, index in INDEXES.items()}


def index_of(name: str) -> int:
    return INDEXES[name]


@st.composite
def networks(draw: st.DrawFn, *, version: int) -> IPNetwork:
    bits = 32 if version == 4 else 128
    address, length = draw(st.integers(0, 2**bits - 1)), draw(st.integers(0, bits))
    masked = address >> (bits - length) << (bits - length)
    return IPv4Network((masked, length)) if version == 4 else IPv6Network((masked, length))


@st.composite
def next_hops(draw: st.DrawFn, *, version: Version) -> frozenset[NextHop]:
    count = draw(st.integers(1, 3))
    ways = st.tuples(
        st.sampled_from(sorted(INDEXES)),
        st.none() | st.ip_addresses(v=version) | st.ip_addresses(v=6),
        st.booleans(),
        st.integers(1, 256) if count > 1 else st.just(1),
    )
    drawn = draw(st.lists(ways, min_size=count, max_size=count, unique_by=lambda w: w[:2]))
    return frozenset(NextHop(*way) for way in drawn)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    version: Version = draw(st.sampled_from([4, 6]))
    kind = draw(st.sampled_from([RouteType.UNICAST, RouteType.BLACKHOLE, RouteType.UNREACHABLE]))
    is_unicast = kind is RouteType.UNICAST
    return Route(
        RouteKey(
            draw(networks(version=version)),
            draw(st.integers(1, 254) | st.integers(256, 2**32 - 1)),
            draw(st.sampled_from([0, 8, 16])),
            draw(st.integers(0, 2**32 - 1)),
        ),
        kind,
        draw(st.sampled_from([Scope.UNIVERSE, Scope.LINK, Scope(100)])),
        draw(next_hops(version=version)) if is_unicast else frozenset(),
        draw(st.none() | st.ip_addresses(v=version)),
        draw(st.integers(0, 255)),
        draw(st.none() | st.integers(68, 65535)),
    )


@given(routes())
def test_pyroute2_reads_what_we_meant(route: Route) -> None:
    request = wire_route.add_request(route, index_of=index_of)

    seen = rtmsg(request.packed(7))
    seen.decode()

    header = seen["header"]
    assert (header["type"], header["sequence_number"]) == (24, 7)
    assert header["flags"] == 0x601
    assert (seen["type"], seen["proto"], seen["scope"]) == (
        route.type,
        route.protocol,
        route.scope,
    )
    assert (seen["dst_len"], seen["tos"]) == (route.key.dst.prefixlen, route.key.tos)
    dst = seen.get_attr("RTA_DST")
    assert (ip_address(dst) if dst else None) == (
        route.key.dst.network_address if route.key.dst.prefixlen else None
    )
    assert (seen.get_attr("RTA_TABLE") or seen["table"]) == route.key.table
    assert (seen.get_attr("RTA_PRIORITY") or 0) == route.key.priority
    source = seen.get_attr("RTA_PREFSRC")
    assert (ip_address(source) if source else None) == route.src
    metrics = seen.get_attr("RTA_METRICS")
    assert (metrics.get_attr("RTAX_MTU") if metrics else None) == route.mtu
    assert hops_of(seen) == [
        (index_of(hop.oif), hop.gateway, hop.is_onlink, hop.weight)
        for hop in hop_order(route.next_hops)
    ]


def hops_of(seen: rtmsg) -> list[tuple[int, object, bool, int]]:
    def gateway(part: rtmsg) -> object:
        text = part.get_attr("RTA_GATEWAY") or (part.get_attr("RTA_VIA") or {}).get("addr")
        return ip_address(text) if text else None

    multipath = seen.get_attr("RTA_MULTIPATH")
    if multipath:
        return [
            (part["oif"], gateway(part), bool(part["flags"] & 4), part["hops"] + 1)
            for part in multipath
        ]
    oif = seen.get_attr("RTA_OIF")
    return [(oif, gateway(seen), bool(seen["flags"] & 4), 1)] if oif else []


@given(routes())
def test_we_read_what_we_wrote(route: Route) -> None:
    request = wire_route.append_request(route, index_of=index_of)

    (message,) = messages(request.packed(1))

    assert wire_route.RouteReader(NAMES.get).read(message.body) == route


@given(routes())
def test_we_read_what_pyroute2_writes(route: Route) -> None:
    theirs = rtmsg(wire_route.add_request(route, index_of=index_of).packed(1))
    theirs.decode()
    again = rtmsg()
    again.setvalue(theirs)
    again.encode()

    (message,) = messages(bytes(again.data))

    assert wire_route.RouteReader(NAMES.get).read(message.body) == route


def test_pyroute2_reads_our_addresses() -> None:
    for text, flags in (("10.1.2.3/32", 0), ("fd00::1/128", 2)):
        seen = ifaddrmsg(wire_link.add_address(ip_interface(text), index=9).packed(1))
        seen.decode()

        assert f"{seen.get_attr('IFA_LOCAL')}/{seen['prefixlen']}" == text
        assert (seen["index"], seen["flags"]) == (9, flags)


def test_pyroute2_reads_our_veth_pair() -> None:
    request = wire_link.create_veth(
        host="cali0",
        host_mac=b"\xee" * 6,
        host_group=0x4000_0001,
        peer="eth0",
        peer_mac=b"\x02\0\0\0\0\x07",
        peer_netns_fd=5,
        mtu=1480,
    )

    seen = ifinfmsg(request.packed(1))
    seen.decode()

    assert seen.get_attr("IFLA_IFNAME") == "cali0"
    assert seen.get_attr("IFLA_ADDRESS") == "ee:ee:ee:ee:ee:ee"
    assert seen.get_attr("IFLA_GROUP") == 0x4000_0001
    assert seen.get_attr("IFLA_MTU") == 1480
    peer = seen.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert peer.get_attr("IFLA_IFNAME") == "eth0"
    assert peer.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:07"
    assert peer.get_attr("IFLA_NET_NS_FD") == 5
    assert peer.get_attr("IFLA_MTU") == 1480


def test_pyroute2_reads_our_proxy_delay() -> None:
    seen = ndtmsg(wire_conf.set_proxy_delay(30, index=7).packed(1))
    seen.decode()

    assert (seen["header"]["type"], seen["family"]) == (67, 2)
    assert seen.get_attr("NDTA_NAME") == "arp_cache"
    parms = seen.get_attr("NDTA_PARMS")
    assert (parms.get_attr("NDTPA_IFINDEX"), parms.get_attr("NDTPA_PROXY_DELAY")) == (7, 30)


@pytest.mark.parametrize("kind", ["ipip", "bridge"])
def test_pyroute2_reads_our_tunnel(kind: str) -> None:
    seen = ifinfmsg(wire_link.create_tunnel(Tunnel("tunl0", kind, 1480)).packed(1))
    seen.decode()

    assert seen.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_KIND") == kind


@pytest.mark.parametrize(
    ("local", "attribute"), [("10.0.0.1", "IFLA_VXLAN_LOCAL"), ("fd00::1", "IFLA_VXLAN_LOCAL6")]
)
def test_pyroute2_reads_our_vxlan_device_and_we_read_it_as_a_link(
    local: str, attribute: str
) -> None:
    parameters = Vxlan(4096, 4789, ip_address(local))
    tunnel = Tunnel("vxlan.calico", "vxlan", 1450, "66:00:00:00:00:01", parameters)
    request = wire_link.create_tunnel(tunnel)

    seen = ifinfmsg(request.packed(1))
    seen.decode()

    assert (seen.get_attr("IFLA_ADDRESS"), seen.get_attr("IFLA_MTU")) == (tunnel.mac, 1450)
    told = seen.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    assert (told.get_attr("IFLA_VXLAN_ID"), told.get_attr("IFLA_VXLAN_PORT")) == (4096, 4789)
    assert (told.get_attr("IFLA_VXLAN_LEARNING"), told.get_attr(attribute)) == (0, local)
    assert wire_link.read_link(request.body) == Link(
        "vxlan.calico", 0, "vxlan", 1450, tunnel.mac, vxlan=parameters
    )


def test_a_change_in_place_says_nothing_of_what_the_kernel_refuses() -> None:
    parameters = Vxlan(4096, 4789, ip_address("10.0.0.7"))
    tunnel = Tunnel("vxlan.calico", "vxlan", 1450, vxlan=parameters)

    seen = ifinfmsg(wire_link.change_tunnel(tunnel).packed(1))
    seen.decode()

    assert (seen.get_attr("IFLA_ADDRESS"), seen.get_attr("IFLA_MTU")) == (None, None)
    told = seen.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    assert (told.get_attr("IFLA_VXLAN_ID"), told.get_attr("IFLA_VXLAN_PORT")) == (4096, None)
    assert told.get_attr("IFLA_VXLAN_LOCAL") == "10.0.0.7"


@pytest.mark.parametrize("kind", ["IFLA_VXLAN_LINK", "IFLA_VXLAN_GROUP", "IFLA_VXLAN_GROUP6"])
def test_a_vxlan_device_shows_that_it_is_bound(kind: str) -> None:
    value = {"IFLA_VXLAN_LINK": 2, "IFLA_VXLAN_GROUP": "10.0.0.2"}.get(kind, "ff05::1")
    message = ifinfmsg()
    parameters = {"attrs": [("IFLA_VXLAN_ID", 4096), (kind, value)]}
    kind_and_parameters = [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", parameters)]
    message["attrs"] = [("IFLA_LINKINFO", {"attrs": kind_and_parameters})]
    message.encode()

    link = wire_link.read_link(bytes(message.data[16:]))

    assert link is not None
    assert link.vxlan is not None
    assert link.vxlan.is_bound


def test_a_vxlan_device_that_is_told_without_parameters_has_none() -> None:
    (message,) = messages(wire_link.create_tunnel(Tunnel("vxlan7", "vxlan", 1450)).packed(1))

    link = wire_link.read_link(message.body)

    assert link is not None
    assert link.vxlan is None


@pytest.mark.parametrize("is_ours", [True, False])
@pytest.mark.parametrize("address", ["192.168.0.64", "fd10::40"])
def test_pyroute2_reads_our_neighbours(address: str, is_ours: bool) -> None:
    entry = NeighbourEntry("tunl0", ip_address(address), "66:00:00:00:00:02", is_ours)
    request = wire_neighbour.set_request(entry, index=3)

    seen = ndmsg(request.packed(1))
    seen.decode()

    assert (seen["ifindex"], seen["state"], seen["flags"]) == (3, 0x80, 0x10 * is_ours)
    assert (seen.get_attr("NDA_DST"), seen.get_attr("NDA_LLADDR")) == (address, entry.mac)
    assert wire_neighbour.read_entry(request.body, name_of=NAMES.get) == (entry, True)


@pytest.mark.parametrize("remote", ["10.0.0.2", "fd00::2"])
def test_pyroute2_reads_our_forwarding_entries(remote: str) -> None:
    entry = FdbEntry("tunl0", "66:00:00:00:00:02", ip_address(remote))
    request = wire_neighbour.set_request(entry, index=3)

    seen = ndmsg(request.packed(1))
    seen.decode()

    assert (seen["family"], seen["ifindex"], seen["flags"]) == (7, 3, 0x12)
    assert seen.get_attr("NDA_LLADDR") == entry.mac
    assert wire_neighbour.read_entry(request.body, name_of=NAMES.get) == (entry, True)
    assert wire_neighbour.read_index(request.body) == 3


@pytest.mark.parametrize("address", ["192.168.0.64", ""])
def test_of_what_is_not_permanent_forwarding_entries_alone_count_as_anothers(address: str) -> None:
    """A neighbour is written over as if it weren't there; such an entry has to go before."""
    mac = "66:00:00:00:00:02"
    neighbour = NeighbourEntry("tunl0", ip_address(address), mac) if address else None
    entry = neighbour or FdbEntry("tunl0", mac, ip_address("10.0.0.2"))
    body = bytearray(wire_neighbour.set_request(entry, index=3).body)
    reachable = 0x02
    body[8:10] = reachable.to_bytes(2, sys.byteorder)

    read = wire_neighbour.read_entry(bytes(body), name_of=NAMES.get)

    assert read == (replace(entry, is_ours=False), not address)


def test_entries_of_a_bridge_and_of_an_interface_that_is_gone_are_left_out() -> None:
    bridges = FdbEntry("tunl0", "66:00:00:00:00:02", None)
    gone = NeighbourEntry("tunl0", ip_address("10.0.0.1"), "66:00:00:00:00:02")

    for entry, index in ((bridges, 3), (gone, 99)):
        body = wire_neighbour.set_request(entry, index=index).body
        assert wire_neighbour.read_entry(body, name_of=NAMES.get) is None


def test_we_read_links_that_pyroute2_writes() -> None:
    theirs = ifinfmsg()
    theirs["index"], theirs["flags"] = 7, 1
    theirs["attrs"] = [
        ("IFLA_IFNAME", "cali0"),
        ("IFLA_MTU", 1480),
        ("IFLA_ADDRESS", "ee:ee:ee:ee:ee:ee"),
        ("IFLA_IFALIAS", "pycni a/b/eth0"),
        ("IFLA_CARRIER", 0),
        ("IFLA_GROUP", 9),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth")]}),
    ]
    theirs.encode()

    (message,) = messages(bytes(theirs.data))

    assert wire_link.read_link(message.body) == Link(
        "cali0", 7, "veth", 1480, "ee:ee:ee:ee:ee:ee", True, False, "pycni a/b/eth0"
    )
    assert wire_link.read_group(message.body) == 9


@pytest.mark.parametrize(
    ("family", "address", "flags", "is_temporary"),
    [
        (10, "fd00::5", 0x01, True),
        (10, "fd00::5", 0x80, False),
        (2, "10.0.0.5", 0x01, False),  # a second address of its subnet
    ],
)
def test_an_ipv6_address_may_be_temporary(
    family: int, address: str, flags: int, is_temporary: bool
) -> None:
    theirs = ifaddrmsg()
    theirs["family"], theirs["prefixlen"], theirs["index"] = family, 24, 3
    theirs["flags"], theirs["attrs"] = flags, [("IFA_ADDRESS", address)]
    theirs.encode()

    (message,) = messages(bytes(theirs.data))

    read = wire_link.read_address(message.body, name_of=NAMES.get)
    assert read == Address("tunl0", ip_interface(f"{address}/24"), is_temporary)


def test_a_peer_address_is_not_ours() -> None:
    theirs = ifaddrmsg()
    theirs["family"], theirs["prefixlen"], theirs["index"] = 2, 30, 3
    theirs["attrs"] = [("IFA_ADDRESS", "10.0.0.2"), ("IFA_LOCAL", "10.0.0.1")]
    theirs.encode()

    (message,) = messages(bytes(theirs.data))

    address = wire_link.read_address(message.body, name_of=NAMES.get)
    assert address == Address("tunl0", ip_interface("10.0.0.1/30"))
