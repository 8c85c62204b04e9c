"""The lab's underlay: a router with a leg in every subnet; nodes, hosts and others' routers behind.

The commands are composed by pure functions; one `ip -batch` per namespace performs them, because
a process costs 50 ms in user-mode Linux.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from pycni.kernel import netns, sysctl, wire_link
from pycni.kernel.netlink import NetlinkSocket
from pycni.lab import commands
from pycni.lab.layout import ROUTER, netns_path, pod_place
from pycni.model.network import IPAddress, IPInterface, IPNetwork
from pycni.topology.model import (
    UNDERLAY,
    Member,
    Topology,
    TopologyNode,
    TopologyRouter,
    addresses_of,
)

UPLINK = "eth1"
"""Another's router has a second interface, for a subnet in which the one in the middle is not."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One cable of the router: its place among them, and who is at the far end."""

    number: int
    member: Member
    interface: str = UNDERLAY

    @property
    def port(self) -> str:
        """Return its name at the router."""
        return f"to{self.number}"

    @property
    def gateways(self) -> list[tuple[IPInterface, IPAddress]]:
        """Return the member's addresses at the far end, with the router's own beside each."""
        return addresses_of(self.member) if self.interface == UNDERLAY else []

    @property
    def subnets(self) -> set[IPNetwork]:
        """Return the subnets of the far end."""
        if self.interface == UNDERLAY:
            return {address.network for address, _ in addresses_of(self.member)}
        return {uplink.network for uplink in uplinks_of(self.member)}


def uplinks_of(member: Member) -> list[IPInterface]:
    """Return the address at the second interface, of those that have one."""
    uplink = member.uplink if isinstance(member, TopologyRouter) else None
    return [] if uplink is None else [uplink]


def legs_of(topology: Topology) -> tuple[Leg, ...]:
    """Return the router's cables, named by their order: to0, to1 and so on."""
    ends = [(member, UNDERLAY) for member in topology.members]
    ends += [(member, UPLINK) for member in topology.members if uplinks_of(member)]
    return tuple(Leg(number, *end) for number, end in enumerate(ends))


def segments_of(topology: Topology) -> list[list[Leg]]:
    """Return the cables by segment: who has a subnet in common, of either IP version, shares one.

    So nodes of three IPv4 subnets and a single one of IPv6 are on one segment with three routers'
    addresses, and their IPv4 passes the router all the same.
    """
    segments: list[list[Leg]] = []
    for leg in legs_of(topology):
        near = [one for one in segments if any(_are_near(leg, other) for other in one)]
        far = [one for one in segments if one not in near]
        joined = sorted((leg, *chain(*near)), key=lambda each: each.number)
        segments = sorted([*far, joined], key=lambda legs: legs[0].number)
    return segments


def _are_near(one: Leg, other: Leg) -> bool:
    return bool(one.subnets & other.subnets)


def has_ipv6(topology: Topology) -> bool:
    """Say whether anybody has an IPv6 address."""
    owned = (own for member in topology.members for own, _ in addresses_of(member))
    return any(own.version == 6 for own in owned)


def mtu_of(member: Member) -> int:
    """Return the MTU of a member's cable."""
    return member.mtu if isinstance(member, TopologyNode) else 1500


def places(topology: Topology) -> list[str]:
    """Return the names of all network namespaces of a lab."""
    members = [m.name for m in topology.members]
    return [ROUTER, *members, *(pod_place(p.full_name) for p in topology.pods)]


def router_commands(topology: Topology) -> Iterator[str]:
    """Compose the router's cables; members of one segment share a bridge."""
    for leg in legs_of(topology):
        yield (
            f"link add {leg.port} mtu {mtu_of(leg.member)} type veth"
            f" peer name {leg.interface} mtu {mtu_of(leg.member)} netns {leg.member.name}"
        )
        yield f"link set {leg.port} up"
    for number, legs in enumerate(segments_of(topology)):
        device = legs[0].port
        if len(legs) > 1:
            device = f"net{number}"
            yield f"link add {device} type bridge"
            yield from (f"link set {leg.port} master {device}" for leg in legs)
            yield f"link set {device} up"
        owned = (own for leg in legs for own in leg.gateways)
        gateways = {f"{gateway}/{own.network.prefixlen}": gateway for own, gateway in owned}
        for text, gateway in gateways.items():
            yield f"addr add {text} dev {device}{_at_once(gateway)}"


def _at_once(address: IPAddress) -> str:
    """Spare an IPv6 address the probing for duplicates, which takes a second or two."""
    return " nodad" if address.version == 6 else ""


def member_commands(member: Member) -> Iterator[str]:
    """Compose one member's side."""
    yield "link set lo up"
    for address, _ in addresses_of(member):
        yield f"addr add {address} dev {UNDERLAY}{_at_once(address.ip)}"
    yield f"link set {UNDERLAY} up"
    for address in uplinks_of(member):
        yield f"addr add {address} dev {UPLINK}"
        yield f"link set {UPLINK} up"
    for _, gateway in addresses_of(member):
        yield f"route add default via {gateway} dev {UNDERLAY}"


def sysctls(topology: Topology, place: str) -> dict[str, str]:
    """Return what holds in a namespace of the underlay before it has any cable."""
    wanted = {}
    if has_ipv6(topology):
        # Link-local addresses, by which neighbours are asked for, are of use at once.
        wanted["net.ipv6.conf.default.accept_dad"] = "0"
    if place in (ROUTER, *(router.name for router in topology.routers)):
        wanted["net.ipv4.ip_forward"] = "1"
        if has_ipv6(topology):
            wanted["net.ipv6.conf.all.forwarding"] = "1"
            # A cable that is out for a while costs a port none of its addresses, as with IPv4.
            wanted["net.ipv6.conf.all.keep_addr_on_down"] = "1"
            # Subnets that share a segment are to stay apart: no short cuts.
            wanted["net.ipv4.conf.all.send_redirects"] = "0"
            wanted["net.ipv4.conf.default.send_redirects"] = "0"
    return wanted


async def build(topology: Topology) -> None:
    """Make all namespaces and cables."""
    names = "".join(f"netns add {place}\n" for place in places(topology))
    await commands.must("ip", "-batch", "-", stdin=names)
    for place in (ROUTER, *(member.name for member in topology.members)):
        for name, value in sysctls(topology, place).items():
            write_sysctl(place, name=name, value=value)
    router = "\n".join(["link set lo up", *router_commands(topology), ""])
    await commands.must("ip", "-n", ROUTER, "-batch", "-", stdin=router)
    for member in topology.members:
        lines = "\n".join([*member_commands(member), ""])
        await commands.must("ip", "-n", member.name, "-batch", "-", stdin=lines)
    for pod in topology.pods:
        bring_up_loopback(pod_place(pod.full_name))


async def set_cable(topology: Topology, member: str, *, is_up: bool) -> None:
    """Plug a cable in or out, at the router's end: the member only loses its carrier."""
    legs = {leg.member.name: leg.port for leg in legs_of(topology) if leg.interface == UNDERLAY}
    state = "up" if is_up else "down"
    await commands.must("ip", "-n", ROUTER, "link", "set", legs[member], state)


async def make_place(place: str) -> None:
    """Make one more namespace, for a pod that was not on paper."""
    await commands.must("ip", "netns", "add", place)
    bring_up_loopback(place)


def bring_up_loopback(place: str) -> None:
    """Do what a runtime does for its pods before the plugin comes."""
    with entered(place), NetlinkSocket() as netlink:
        netlink.call(wire_link.set_link(name="lo", is_up=True))


def write_sysctl(place: str, *, name: str, value: str) -> None:
    """Write a sysctl of a namespace."""
    with entered(place):
        sysctl.write_sysctl(name, value=value)


@contextlib.contextmanager
def entered(place: str) -> Iterator[None]:
    """Run a synchronous stretch in a namespace of the lab."""
    home, there = netns.open_own(), os.open(netns_path(place), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with netns.inside(there, home=home):
            yield
    finally:
        os.close(there)
        os.close(home)
