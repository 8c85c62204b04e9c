"""Links and addresses as rtnetlink writes them."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from socket import AF_INET, AF_INET6

from pycni.kernel.wire import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Request,
    attribute,
    attributes,
    nested,
    parse_text,
    parse_u32,
    text,
    u32,
)
from pycni.model.linklayer import Vxlan
from pycni.model.network import Address, IPInterface, Link, Tunnel

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_GETNSID = 90

IFF_UP = 0x1

_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINK = 5
_IFLA_LINKINFO = 18
_IFLA_IFALIAS = 20
_IFLA_GROUP = 27
_IFLA_NET_NS_FD = 28
_IFLA_EXT_MASK = 29
_IFLA_NUM_TX_QUEUES = 31
_IFLA_NUM_RX_QUEUES = 32
_IFLA_CARRIER = 33
_IFLA_LINK_NETNSID = 37
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_VETH_INFO_PEER = 1
_VXLAN_ID = 1
_VXLAN_GROUP = 2
_VXLAN_LINK = 3
_VXLAN_LOCAL = 4
_VXLAN_LEARNING = 7
_VXLAN_PORT = 15
_VXLAN_GROUP6 = 16
_VXLAN_LOCAL6 = 17
_VXLAN_BINDINGS = frozenset({_VXLAN_GROUP, _VXLAN_LINK, _VXLAN_GROUP6})
_EXT_MASK_SKIP_STATS = 8
_AF_BRIDGE = 7

_NETNSA_NSID = 1
_NETNSA_FD = 3

_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_F_TEMPORARY = 0x01  # of an IPv6 address; of an IPv4 one the same bit says "secondary"
_IFA_F_NODAD = 0x02
_IPV6_LENGTH = 16

_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBI")
_RTGENMSG = struct.Struct("=Bxxx")


def _link_body(*attributes_: bytes, index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFOMSG.pack(0, 0, index, flags, change) + b"".join(attributes_)


# One queue: the default of one per CPU costs memory for every pod and a veth gains nothing.
_ONE_QUEUE = u32(_IFLA_NUM_TX_QUEUES, 1) + u32(_IFLA_NUM_RX_QUEUES, 1)
_KIND_VETH = attribute(_IFLA_INFO_KIND, b"veth")


def create_veth(
    *,
    host: str,
    host_mac: bytes,
    host_group: int,
    peer: str,
    peer_mac: bytes,
    peer_netns_fd: int,
    mtu: int,
) -> Request:
    """Make a pair whose peer appears at once in another namespace: no move, one RCU wait less."""
    alike = u32(_IFLA_MTU, mtu) + _ONE_QUEUE
    far_end = _link_body(
        text(_IFLA_IFNAME, peer),
        attribute(_IFLA_ADDRESS, peer_mac),
        u32(_IFLA_NET_NS_FD, peer_netns_fd),
        alike,
    )
    pair = nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, far_end))
    body = _link_body(
        text(_IFLA_IFNAME, host),
        attribute(_IFLA_ADDRESS, host_mac),
        u32(_IFLA_GROUP, host_group),
        alike,
        nested(_IFLA_LINKINFO, _KIND_VETH, pair),
    )
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def create_tunnel(tunnel: Tunnel) -> Request:
    """Make a tunnel device that takes packets from and sends to any address."""
    body = _tunnel_body(tunnel, is_new=True)
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def change_tunnel(tunnel: Tunnel) -> Request:
    """Give a VXLAN device other addresses in place, or another wish to learn.

    An empty MAC address stays as it is.  The kernel refuses any word of its port, and of the MTU in
    the same breath.
    """
    return Request(RTM_NEWLINK, 0, _tunnel_body(tunnel, is_new=False))


def _tunnel_body(tunnel: Tunnel, *, is_new: bool) -> bytes:
    kind = attribute(_IFLA_INFO_KIND, tunnel.kind.encode())
    vxlan = tunnel.vxlan
    parameters = b"" if vxlan is None else _vxlan_parameters(vxlan, is_new=is_new)
    return _link_body(
        text(_IFLA_IFNAME, tunnel.name),
        attribute(_IFLA_ADDRESS, bytes.fromhex(tunnel.mac.replace(":", ""))) if tunnel.mac else b"",
        u32(_IFLA_MTU, tunnel.mtu) if is_new else b"",
        nested(_IFLA_LINKINFO, kind, parameters),
    )


def _vxlan_parameters(vxlan: Vxlan, *, is_new: bool) -> bytes:
    local = b""
    if vxlan.local is not None:
        kind = _VXLAN_LOCAL if vxlan.local.version == 4 else _VXLAN_LOCAL6
        local = attribute(kind, vxlan.local.packed)
    return nested(
        _IFLA_INFO_DATA,
        u32(_VXLAN_ID, vxlan.vni),
        local,
        attribute(_VXLAN_LEARNING, bytes([vxlan.is_learning])),
        attribute(_VXLAN_PORT, vxlan.port.to_bytes(2, "big")) if is_new else b"",
    )


def _read_vxlan(linkinfo: dict[int, bytes]) -> Vxlan | None:
    """Read the parameters of a VXLAN device; None for one that is told without its network."""
    found = attributes(linkinfo.get(_IFLA_INFO_DATA, b""))
    if _VXLAN_ID not in found:
        return None
    local: IPv4Address | IPv6Address | None = None
    if _VXLAN_LOCAL in found:
        local = IPv4Address(found[_VXLAN_LOCAL])
    elif _VXLAN_LOCAL6 in found:
        local = IPv6Address(found[_VXLAN_LOCAL6])
    return Vxlan(
        vni=parse_u32(found[_VXLAN_ID]),
        port=int.from_bytes(found.get(_VXLAN_PORT, b""), "big"),
        local=local,
        is_learning=found.get(_VXLAN_LEARNING, b"\0") != b"\0",
        # The kernel tells of these only where they are set (vxlan_fill_info).
        is_bound=not _VXLAN_BINDINGS.isdisjoint(found),
    )


def set_link(
    *,
    name: str = "",
    index: int = 0,
    is_up: bool | None = None,
    mtu: int | None = None,
    alias: str | None = None,
    group: int | None = None,
    settings: bytes = b"",
) -> Request:
    """Change what is given of the link with that index or, without one, of that name.

    `settings` are those of `wire_conf.ipv4_conf`.  The kernel makes them last, after it has set
    the link up: what must be settled before that needs a request of its own.
    """
    parts = [
        # Beside an index a name would be a wish to rename.
        text(_IFLA_IFNAME, name) if not index else b"",
        u32(_IFLA_MTU, mtu) if mtu is not None else b"",
        # Not part of creation: the kernel reads IFLA_IFALIAS only when it changes a link.
        text(_IFLA_IFALIAS, alias) if alias is not None else b"",
        u32(_IFLA_GROUP, group) if group is not None else b"",
        settings,
    ]
    change = IFF_UP if is_up is not None else 0
    body = _link_body(*parts, index=index, flags=IFF_UP if is_up else 0, change=change)
    return Request(RTM_NEWLINK, 0, body)


def delete_link(*, name: str = "", index: int = 0) -> Request:
    """Delete the link with that index or, without one, of that name."""
    body = _link_body(index=index) if index else _link_body(text(_IFLA_IFNAME, name))
    return Request(RTM_DELLINK, 0, body)


def delete_group(group: int) -> Request:
    """Delete all links of a group in one transaction."""
    return Request(RTM_DELLINK, 0, _link_body(u32(_IFLA_GROUP, group)))


def get_link(*, name: str = "", index: int = 0) -> Request:
    """Ask for one link."""
    mask = u32(_IFLA_EXT_MASK, _EXT_MASK_SKIP_STATS)
    if index:
        return Request(RTM_GETLINK, 0, _link_body(mask, index=index))
    return Request(RTM_GETLINK, 0, _link_body(text(_IFLA_IFNAME, name), mask))


def dump_links() -> Request:
    """List all links, without their counters."""
    mask = u32(_IFLA_EXT_MASK, _EXT_MASK_SKIP_STATS)
    return Request(RTM_GETLINK, NLM_F_DUMP, _link_body(mask))


def gone_index(body: bytes) -> int | None:
    """Return the index of the link that an RTM_DELLINK is about; None for a mere bridge port."""
    family, _, index, _, _ = _IFINFOMSG.unpack_from(body)
    return None if family == _AF_BRIDGE else int(index)


def read_link(body: bytes) -> Link | None:
    """Decode a link; None when the message is about something else.

    A bridge speaks of its ports in the same messages: its RTM_DELLINK says that a port has left
    the bridge, not that the interface is gone.
    """
    family, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
    if family == _AF_BRIDGE:
        return None
    found = attributes(body, start=_IFINFOMSG.size)
    linkinfo = attributes(found[_IFLA_LINKINFO]) if _IFLA_LINKINFO in found else {}
    kind = parse_text(linkinfo.get(_IFLA_INFO_KIND, b""))
    return Link(
        name=parse_text(found.get(_IFLA_IFNAME, b"")),
        index=index,
        kind=kind,
        mtu=parse_u32(found[_IFLA_MTU]) if _IFLA_MTU in found else 0,
        mac=found[_IFLA_ADDRESS].hex(":") if _IFLA_ADDRESS in found else "",
        is_up=bool(flags & IFF_UP),
        has_carrier=found.get(_IFLA_CARRIER, b"\1") != b"\0",
        alias=parse_text(found.get(_IFLA_IFALIAS, b"")),
        vxlan=_read_vxlan(linkinfo) if kind == "vxlan" else None,
    )


def read_group(body: bytes) -> int:
    """Return a link's group (0 unless somebody set one)."""
    found = attributes(body, start=_IFINFOMSG.size)
    return parse_u32(found[_IFLA_GROUP]) if _IFLA_GROUP in found else 0


@dataclass(frozen=True, slots=True)
class FarEnd:
    """Where a link's peer is: its index, in the namespace that has this number here."""

    index: int
    netns_id: int


def read_far_end(body: bytes) -> FarEnd | None:
    """Return where the other end of a pair is; None where it is in the same namespace."""
    found = attributes(body, start=_IFINFOMSG.size)
    if not {_IFLA_LINK, _IFLA_LINK_NETNSID} <= found.keys():
        return None
    return FarEnd(parse_u32(found[_IFLA_LINK]), parse_u32(found[_IFLA_LINK_NETNSID]))


def get_netns_id(fd: int) -> Request:
    """Ask which number the namespace behind a descriptor has in the socket's own."""
    return Request(RTM_GETNSID, 0, _RTGENMSG.pack(0) + u32(_NETNSA_FD, fd))


def read_netns_id(body: bytes) -> int | None:
    """Return that number; None: no link of the socket's namespace leads there."""
    number = parse_u32(attributes(body, start=_RTGENMSG.size)[_NETNSA_NSID])
    return None if number >> 31 else number


def _address_body(interface: IPInterface, *, index: int, flags: int) -> bytes:
    ipv6 = interface.version == 6
    family = AF_INET6 if ipv6 else AF_INET
    head = _IFADDRMSG.pack(family, interface.network.prefixlen, flags, 0, index)
    packed = interface.packed
    return head + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)


def add_address(interface: IPInterface, *, index: int) -> Request:
    """Put an address on a link; an IPv6 one is usable at once (no duplicate detection).

    Our addresses come from one allocator, and a second of "tentative" would lose a pod's first
    packets.
    """
    flags = _IFA_F_NODAD if interface.version == 6 else 0
    body = _address_body(interface, index=index, flags=flags)
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)


def add_host_address(packed: bytes, *, index: int) -> Request:
    """Put an address, in network order, on a link: as `add_address`, alone in its network."""
    is_ipv6 = len(packed) == _IPV6_LENGTH
    family, flags = (AF_INET6, _IFA_F_NODAD) if is_ipv6 else (AF_INET, 0)
    head = _IFADDRMSG.pack(family, 8 * len(packed), flags, 0, index)
    body = head + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)


def delete_address(interface: IPInterface, *, index: int) -> Request:
    """Take an address from a link."""
    return Request(RTM_DELADDR, 0, _address_body(interface, index=index, flags=0))


def dump_addresses(*, index: int = 0) -> Request:
    """List all addresses of both families; only those of one interface if it is named."""
    return Request(RTM_GETADDR, NLM_F_DUMP, _IFADDRMSG.pack(0, 0, 0, 0, index))


def read_address(body: bytes, *, name_of: Callable[[int], str | None]) -> Address | None:
    """Decode an address; None for other families and for an interface that is gone."""
    family, prefix, flags, _, index = _IFADDRMSG.unpack_from(body)
    found = attributes(body, start=_IFADDRMSG.size)
    # With a peer, IFA_ADDRESS is the peer's and IFA_LOCAL ours.
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    name = name_of(index)
    if packed is None or name is None:
        return None
    if family == AF_INET:
        return Address(name, IPv4Interface((packed, prefix)))
    if family == AF_INET6:
        return Address(name, IPv6Interface((packed, prefix)), bool(flags & _IFA_F_TEMPORARY))
    return None
