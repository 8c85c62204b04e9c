"""Our nftables table on real packets: who is masqueraded, who is dropped, and what is counted.

One node with two pods (192.168.39.193 and .194 of the blackholed block 192.168.39.192/26), beside
it a stranger on the underlay, behind it the outside.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest

from pycni.kernel.linux import LinuxKernel
from pycni.kernel.nft import Nftables
from pycni.kernel.podnet import LinuxPodNet
from pycni.model.network import AddRoute, Route, RouteKey, RouteType, SetRuleset
from pycni.plan.nat import NatInputs, render
from pycni.ports import PlugRequest

if TYPE_CHECKING:
    from conftest import Namespace

pytestmark = pytest.mark.netns

POOL = ip_network("192.168.0.0/16")
NODE, OTHER_NODE, STRANGER = "10.0.0.1", "10.0.0.2", "10.0.0.66"
SERVICE, NO_SERVICE = "10.96.0.7", "10.96.0.8"
POD_A, POD_B, FREE = "192.168.39.193", "192.168.39.194", "192.168.39.200"
OUTSIDE = "203.0.113.9"


@dataclass
class Lab:
    """The namespaces, and the node's adapters (made inside the node)."""

    node: Namespace
    pods: list[Namespace]
    outside: Namespace
    kernel: LinuxKernel
    nftables: Nftables

    def counters(self) -> dict[str, int]:
        return self.nftables.counters()


@pytest.fixture
def lab(netns: Callable[[], Namespace]) -> Iterator[Lab]:
    node, outside, pods = netns(), netns(), [netns(), netns()]
    node.run(
        "ip", "link", "add", "name", "eth0", "type", "veth",
        "peer", "name", "out", "netns", outside.path,
    )  # fmt: skip
    node.sh(
        f"ip addr add {NODE}/24 dev eth0; ip link set eth0 up; sysctl -qw net.ipv4.ip_forward=1\n"
    )
    outside.sh(
        "ip link set out up\n"
        f"for a in {OTHER_NODE}/24 {STRANGER}/24 {OUTSIDE}/32; do ip addr add $a dev out; done\n"
        f"ip route add {POOL} via {NODE}; ip route add 10.96.0.0/24 via {NODE}\n"
    )
    node.sh(f"ip route add default via {OTHER_NODE}")
    with node.entered():
        podnet, kernel, nftables = LinuxPodNet(), LinuxKernel(), Nftables()
        block = RouteKey(ip_network("192.168.39.192/26"))
        blackhole = Route(block, RouteType.BLACKHOLE, protocol=12)
        asyncio.run(kernel.apply([AddRoute(blackhole)]))
        for number, (pod, address) in enumerate(zip(pods, (POD_A, POD_B), strict=True)):
            podnet.plug(
                PlugRequest(
                    netns_fd=pod.fd,
                    ifname="eth0",
                    host_veth=f"cali{number}",
                    alias=f"pycni nat/{number}/eth0",
                    addresses=(ip_interface(address),),
                    mtu=1480,
                    route_protocol=3,
                )
            )
        # What follows must be nftables' doing alone.
        for name in ("all", "cali0", "cali1", "eth0"):
            node.run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0")
    inputs = NatInputs(
        pools=frozenset({POOL}),
        nat_pools=frozenset({POOL}),
        nodes=frozenset({ip_address(NODE), ip_address(OTHER_NODE)}),
        vxlan_port=4789,
        services=frozenset({ip_network("10.96.0.0/24")}),
    )
    with node.entered():
        failures = asyncio.run(kernel.apply([SetRuleset(render(inputs))]))
    assert list(failures) == []
    try:
        yield Lab(node, pods, outside, kernel, nftables)
    finally:
        podnet.close()
        kernel.close()
        nftables.close()


def udp_source_seen(
    sender: Namespace, receiver: Namespace, *, bound: str, to: str, at: str | None = None
) -> str | None:
    """Send a datagram and return the source that the receiver saw, None when nothing came.

    `at` is the receiver's address, where it isn't the one that the datagram is sent to.
    """
    with receiver.entered():
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender.entered():
        source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sink, source:
        sink.bind((at or to, 9999))
        sink.settimeout(20)
        source.bind((bound, 0))
        source.sendto(b"hello", (to, 9999))
        try:
            seen: str = sink.recvfrom(64)[1][0]
        except TimeoutError:
            return None
        return seen


def send_raw(sender: Namespace, *, src: str, dst: str, protocol: int, payload: bytes) -> None:
    """Send one IPv4 packet with any source address."""
    header = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0,
        socket.inet_aton(src), socket.inet_aton(dst),
    )  # fmt: skip
    with sender.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        raw.sendto(header + payload, (dst, 0))


UDP = struct.pack(">HHHH", 40000, 9999, 8, 0)
VXLAN = struct.pack(">HHHH", 40000, 4789, 8, 0)


def test_pods_are_hidden_towards_the_outside(lab: Lab) -> None:
    assert udp_source_seen(lab.pods[0], lab.outside, bound=POD_A, to=OUTSIDE) == NODE


def test_pods_see_each_other_as_they_are(lab: Lab) -> None:
    assert udp_source_seen(lab.pods[0], lab.pods[1], bound=POD_A, to=POD_B) == POD_A


@pytest.mark.parametrize("source", [FREE, POD_B, NODE, STRANGER, "127.0.0.1"])
def test_a_pod_cannot_speak_for_another(lab: Lab, source: str) -> None:
    lab.pods[0].sh("sysctl -qw net.ipv4.conf.eth0.route_localnet=1")
    # The gateway must be known already: ARP asked for in a foreign name stays without answer.
    udp_source_seen(lab.pods[0], lab.outside, bound=POD_A, to=OUTSIDE)
    before = lab.counters()["spoofed"]

    send_raw(lab.pods[0], src=source, dst=OUTSIDE, protocol=17, payload=UDP)

    wait_for(lab, "spoofed", above=before)


def test_a_pod_may_speak_for_itself(lab: Lab) -> None:
    send_raw(lab.pods[0], src=POD_A, dst=OUTSIDE, protocol=17, payload=UDP)

    assert udp_source_seen(lab.pods[0], lab.outside, bound=POD_A, to=OUTSIDE) == NODE
    assert lab.counters()["spoofed"] == 0


@pytest.mark.parametrize(("protocol", "payload"), [(4, b"\x45" + bytes(19)), (17, VXLAN)])
def test_a_pod_cannot_send_tunnel_packets_to_nodes(lab: Lab, protocol: int, payload: bytes) -> None:
    send_raw(lab.pods[0], src=POD_A, dst=OTHER_NODE, protocol=protocol, payload=payload)

    wait_for(lab, "pod_tunnel", above=0)


@pytest.mark.parametrize(
    ("protocol", "payload", "counter"),
    [(4, b"\x45" + bytes(19), "foreign_ipip"), (17, VXLAN, "foreign_vxlan")],
)
def test_tunnel_packets_of_strangers_are_dropped(
    lab: Lab, protocol: int, payload: bytes, counter: str
) -> None:
    send_raw(lab.outside, src=OTHER_NODE, dst=NODE, protocol=protocol, payload=payload)
    send_raw(lab.outside, src=STRANGER, dst=NODE, protocol=protocol, payload=payload)

    wait_for(lab, counter, above=0)
    assert lab.counters()[counter] == 1


def test_what_no_service_has_is_not_sent_back_to_the_router(lab: Lab) -> None:
    # As kube-proxy does it: for packets that come, and for the node's own.
    rule = f"ip daddr {SERVICE} dnat to {POD_A}"
    lab.node.sh(
        "nft add table ip proxy\n"
        "nft 'add chain ip proxy in { type nat hook prerouting priority dstnat; }'\n"
        "nft 'add chain ip proxy own { type nat hook output priority -100; }'\n"
        f"nft add rule ip proxy in {rule}; nft add rule ip proxy own {rule}\n"
    )

    send_raw(lab.outside, src=OUTSIDE, dst=NO_SERVICE, protocol=17, payload=UDP)

    wait_for(lab, "no_service", above=0)
    pod = lab.pods[0]
    assert udp_source_seen(lab.outside, pod, bound=OUTSIDE, to=SERVICE, at=POD_A) == OUTSIDE
    assert udp_source_seen(lab.node, pod, bound=NODE, to=SERVICE, at=POD_A) == NODE
    assert lab.counters()["no_service"] == 1


def wait_for(lab: Lab, counter: str, *, above: int) -> None:
    """Wait until a packet was counted: it passes after ARP was answered, not when it was sent."""
    deadline = time.monotonic() + 30
    while lab.counters()[counter] <= above:
        assert time.monotonic() < deadline, f"{counter} stayed at {above}"
        time.sleep(0.01)
