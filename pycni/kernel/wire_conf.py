"""Settings of an interface as rtnetlink writes them, which else are files below /proc/sys.

Two messages instead of a file each, and they need no writable /proc/sys.  IPv6 has such messages
for hardly any: its other settings stay files.
"""

import struct
from collections.abc import Mapping
from socket import AF_INET, AF_INET6

from pycni.kernel.wire import Request, attribute, nested, text, u32

RTM_SETNEIGHTBL = 67

_IFLA_AF_SPEC = 26
_IFLA_INET_CONF = 1
_IFLA_INET6_ADDR_GEN_MODE = 8
_IN6_ADDR_GEN_MODE_NONE = b"\x01"
# IPV4_DEVCONF_* of linux/ip.h, by the names of their files.
_IPV4_DEVCONF = {"forwarding": 1, "proxy_arp": 3, "rp_filter": 8, "route_localnet": 26}

_NDTA_NAME = 1
_NDTA_PARMS = 6
_NDTPA_IFINDEX = 1
_NDTPA_PROXY_DELAY = 13
_ARP_TABLE = struct.pack("=BxH", AF_INET, 0) + text(_NDTA_NAME, "arp_cache")
_U64 = struct.Struct("=Q")


def ipv4_conf(wanted: Mapping[str, str]) -> bytes:
    """Pack values of net.ipv4.conf.*.NAME, to go with `wire_link.set_link`."""
    values = (u32(_IPV4_DEVCONF[name], int(value)) for name, value in wanted.items())
    return nested(_IFLA_AF_SPEC, nested(AF_INET, nested(_IFLA_INET_CONF, *values)))


NO_LINK_LOCAL = nested(
    _IFLA_AF_SPEC,
    nested(AF_INET6, attribute(_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE)),
)
"""Packed for `wire_link.set_link`: the kernel gives the link no fe80:: address when it goes up.

A kernel without IPv6, or a link whose MTU is too small for it, refuses that (EAFNOSUPPORT).
"""


def set_proxy_delay(delay_ms: int, *, index: int) -> Request:
    """Set net.ipv4.neigh.*.proxy_delay, which the file counts in ticks of a hundredth second."""
    parms = nested(
        _NDTA_PARMS,
        u32(_NDTPA_IFINDEX, index),
        attribute(_NDTPA_PROXY_DELAY, _U64.pack(delay_ms)),
    )
    return Request(RTM_SETNEIGHTBL, 0, _ARP_TABLE + parms)
