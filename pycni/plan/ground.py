"""What judgements of many paths share: the sessions they came by, and this node's own prefixes.

It holds for one moment: made of the inputs for one pass, and thrown away before they change.
"""

from dataclasses import dataclass

from pycni.ipam.pools import holds
from pycni.model.network import IPAddress, IPNetwork, NextHop
from pycni.model.tunnels import TunnelKind
from pycni.plan.inputs import Inputs
from pycni.plan.overlay import FarEnd, far_ends, usable_kinds, why_unusable
from pycni.plan.peering import Session, session_with
from pycni.plan.prefixes import host_prefix
from pycni.plan.services import ranges_of


@dataclass(frozen=True, slots=True)
class Underlay:
    """This node's end of the underlay of one IP version.

    `ifname` is the interface that carries its address, None where none does; `is_broken` that it
    has no link, `is_ignored` that it is none for BGP.
    """

    address: IPAddress
    subnet: IPNetwork
    ifname: str | None
    is_broken: bool
    is_ignored: bool


FarEnds = dict[TunnelKind, dict[str, FarEnd | str]]


class Ground:
    """Works each thing out once, when it is first asked for.

    Of `ends`, what was found for a moment before, whoever keeps them answers that they hold still.
    """

    def __init__(self, inputs: Inputs, *, ends: FarEnds | None = None) -> None:
        self.inputs = inputs
        self._sessions: dict[IPAddress, Session] = {}
        self._underlays: dict[int, Underlay | None] = {}
        self._own: dict[IPNetwork, str] | None = None
        self._ends: FarEnds = {} if ends is None else ends
        self._unusable: dict[TunnelKind, str | None] = {}
        self._ends6: frozenset[IPNetwork] | None = None
        self._services = ranges_of(inputs).all
        self.has_services = bool(self._services)
        self.ways: dict[tuple[str, IPAddress], NextHop | str] = {}
        """By a pool's name and a next hop, how packets leave or why not (`pycni.plan.ways`)."""

    def session(self, peer: IPAddress) -> Session:
        """Return what this node's session with an address is."""
        known = self._sessions.get(peer)
        if known is None:
            known = self._sessions[peer] = session_with(self.inputs, peer)
        return known

    def underlay(self, version: int) -> Underlay | None:
        """Return this node's end of the underlay of one IP version, None before it has one."""
        if version not in self._underlays:
            self._underlays[version] = self._underlay(version)
        return self._underlays[version]

    def _underlay(self, version: int) -> Underlay | None:
        inputs = self.inputs
        own = inputs.own_interface(version)
        if own is None:
            return None
        ifname = inputs.underlay(version)
        return Underlay(
            own.ip,
            own.network,
            ifname,
            is_broken=inputs.broken_underlay(version) is not None,
            is_ignored=ifname is not None and inputs.bgp.ignores(ifname),
        )

    def far_ends(self, kind: TunnelKind) -> dict[str, FarEnd | str]:
        """Return the other nodes' ends of a VXLAN tunnel, or why they have none."""
        known = self._ends.get(kind)
        if known is None:
            known = self._ends[kind] = far_ends(self.inputs, kind)
        return known

    def why_unusable(self, kind: TunnelKind) -> str | None:
        """Say why nothing may go by a tunnel's device, None where it may."""
        if kind not in self._unusable:
            self._unusable[kind] = why_unusable(self.inputs, kind)
        return self._unusable[kind]

    def ends6(self) -> frozenset[IPNetwork]:
        """Return the far ends of the VXLAN tunnel for IPv6, each of which needs a route of its own.

        The kernel refuses a next hop, even one said to be on the link, to which another route leads
        by another device (ip6_route_check_nh_onlink): such is the block's own, while it is
        replaced.
        """
        if self._ends6 is None:
            kind = TunnelKind.VXLAN_V6
            is_usable = kind in usable_kinds(self.inputs)
            ends = self.far_ends(kind).values() if is_usable else ()
            found = (host_prefix(end.address) for end in ends if isinstance(end, FarEnd))
            self._ends6 = frozenset(found)
        return self._ends6

    def service_range_of(self, prefix: IPNetwork) -> IPNetwork | None:
        """Return the range of Services that a prefix lies in, None when it is in none."""
        return next((cidr for cidr in self._services if holds(cidr, prefix)), None)

    def interface_of(self, prefix: IPNetwork) -> str | None:
        """Return the interface whose address or subnet a prefix is, None when it is neither."""
        if self._own is None:
            self._own = {}
            for address in self.inputs.addresses:
                for own in (host_prefix(address.interface.ip), address.interface.network):
                    self._own[own] = address.ifname
        return self._own.get(prefix)
