"""VXLAN tunnels as Calico makes them (RFC 7348): figures, and one node's end of a tunnel."""

import re
from dataclasses import dataclass
from functools import lru_cache

from pycni.errors import InvalidInput
from pycni.model.network import IPAddress

VNI = 4096
"""The network identifier of all our packets (Calico's `vxlanVNI`, its default)."""
PORT = 4789
"""The UDP port to which nodes send them (IANA's for VXLAN, and Calico's `vxlanPort`)."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_GROUP_BIT = 1
# The letter f: 0x66 is the first byte of a locally administered address of a single station.
_FIRST_BYTE = b"f"
_HASH_BYTES = 5


@dataclass(frozen=True, slots=True)
class VxlanEnd:
    """A node's own end: the address inside the tunnel, and the MAC where it isn't the usual one."""

    address: IPAddress | None = None
    mac: str | None = None


NO_VXLAN = VxlanEnd()


def parse_mac(text: str, *, path: str) -> str:
    """Return a single station's MAC address in lower case."""
    mac = text.lower()
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & _GROUP_BIT or mac == "00:00:00:00:00:00":
        raise InvalidInput(f"{path}: {text!r} is no MAC address of a single interface")
    return mac


@lru_cache(maxsize=1 << 14)  # 5,000 nodes with both IP versions, and some more
def usual_mac(node: str, *, version: int) -> str:
    """Return the MAC that a node's end has unless its object states another, as in Calico.

    It follows from the node's name, so that all nodes know it (felix/calc/vxlan_resolver.go).
    """
    # Imported late: this module is on the path of every ADD, and needs it not.
    from hashlib import sha1

    name = node if version == 4 else f"{node}-v6"
    digest = sha1(name.encode(), usedforsecurity=False).digest()
    return (_FIRST_BYTE + digest[:_HASH_BYTES]).hex(":")
