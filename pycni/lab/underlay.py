"""The lab's underlay: a router with a leg in every subnet, nodes and hosts behind it.

The commands are composed by pure functions; one `ip -batch` per namespace performs them, because
a process costs 50 ms in user-mode Linux.
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network

from pycni.kernel import netns, sysctl, wire_link
from pycni.kernel.netlink import NetlinkSocket
from pycni.lab import commands
from pycni.lab.layout import ROUTER, netns_path, pod_place
from pycni.topology.model import UNDERLAY, Topology, TopologyHost, TopologyNode

Member = TopologyNode | TopologyHost


@dataclass(frozen=True, slots=True)
class Leg:
    """One cable of the router: its name there, and who is at the far end."""

    port: str
    member: Member
    subnet: IPv4Network


def members_of(topology: Topology) -> tuple[Member, ...]:
    """Return all who hang on the router."""
    return (*topology.nodes, *topology.hosts)


def legs_of(topology: Topology) -> tuple[Leg, ...]:
    """Return the router's cables, named by their order: to0, to1 and so on."""
    return tuple(
        Leg(f"to{number}", member, member.address.network)
        for number, member in enumerate(members_of(topology))
    )


def mtu_of(member: Member) -> int:
    """Return the MTU of a member's cable."""
    return member.mtu if isinstance(member, TopologyNode) else 1500


def places(topology: Topology) -> list[str]:
    """Return the names of all network namespaces of a lab."""
    members = [m.name for m in members_of(topology)]
    return [ROUTER, *members, *(pod_place(p.full_name) for p in topology.pods)]


def router_commands(topology: Topology) -> Iterator[str]:
    """Compose the router's cables; members of one subnet share a bridge."""
    subnets: dict[IPv4Network, list[Leg]] = defaultdict(list)
    for leg in legs_of(topology):
        subnets[leg.subnet].append(leg)
        yield (
            f"link add {leg.port} mtu {mtu_of(leg.member)} type veth"
            f" peer name {UNDERLAY} mtu {mtu_of(leg.member)} netns {leg.member.name}"
        )
        yield f"link set {leg.port} up"
    for number, (subnet, legs) in enumerate(subnets.items()):
        device = legs[0].port
        if len(legs) > 1:
            device = f"net{number}"
            yield f"link add {device} type bridge"
            yield from (f"link set {leg.port} master {device}" for leg in legs)
            yield f"link set {device} up"
        for gateway in dict.fromkeys(leg.member.gateway for leg in legs):
            yield f"addr add {gateway}/{subnet.prefixlen} dev {device}"


def member_commands(member: Member) -> Iterator[str]:
    """Compose one member's side."""
    yield "link set lo up"
    yield f"addr add {member.address} dev {UNDERLAY}"
    yield f"link set {UNDERLAY} up"
    yield f"route add default via {member.gateway} dev {UNDERLAY}"


async def build(topology: Topology) -> None:
    """Make all namespaces and cables."""
    names = "".join(f"netns add {place}\n" for place in places(topology))
    await commands.must("ip", "-batch", "-", stdin=names)
    router = "\n".join(["link set lo up", *router_commands(topology), ""])
    await commands.must("ip", "-n", ROUTER, "-batch", "-", stdin=router)
    for member in members_of(topology):
        lines = "\n".join([*member_commands(member), ""])
        await commands.must("ip", "-n", member.name, "-batch", "-", stdin=lines)
    write_sysctl(ROUTER, name="net.ipv4.ip_forward", value="1")
    for pod in topology.pods:
        bring_up_loopback(pod_place(pod.full_name))


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
