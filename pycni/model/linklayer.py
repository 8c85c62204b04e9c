"""What stands between an IP address and a frame: VXLAN's parameters, and who is behind a device.

Values only, named as in ip-link(8), ip-neighbour(8) and bridge(8).
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address


@dataclass(frozen=True, slots=True)
class Vxlan:
    """The parameters of a VXLAN device that can't be left to the kernel.

    `local` is the source of what it sends; `is_learning`: it believes senders' MAC addresses.
    `is_bound`: it sends by one interface alone, or to a group (`dev` and `group` of ip-link(8)).
    Calico makes it so; it serves like another, and nobody asks for it.
    """

    vni: int
    port: int
    local: IPv4Address | IPv6Address | None
    is_learning: bool = False
    is_bound: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class NeighbourEntry:
    """A permanent neighbour: the MAC address that an IP address has behind an interface.

    `is_ours`: it says of itself that a routing daemon wrote it (NTF_EXT_LEARNED).
    """

    ifname: str
    address: IPv4Address | IPv6Address
    mac: str
    is_ours: bool = True

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what makes it unique."""
        return ("neighbour", self.ifname, str(self.address))

    def __str__(self) -> str:
        return f"neighbour {self.address} ({self.mac}) of {self.ifname}"


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """An entry of a VXLAN device's forwarding database: whither frames to a MAC go.

    `is_ours` as of a neighbour; one that is not permanent is another's.
    """

    ifname: str
    mac: str
    remote: IPv4Address | IPv6Address | None
    is_ours: bool = True

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what makes it unique."""
        return ("fdb", self.ifname, self.mac)

    def __str__(self) -> str:
        return f"forwarding entry {self.mac} (to {self.remote}) of {self.ifname}"


LinkLayerEntry = NeighbourEntry | FdbEntry
EntryKey = tuple[str, str, str]
