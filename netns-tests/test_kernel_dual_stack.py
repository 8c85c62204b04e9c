"""Pods with addresses of both families, and with IPv4 alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

import pytest

from plugging import request_for
from pycni.kernel.podnet import LinuxPodNet

if TYPE_CHECKING:
    from conftest import Namespace

pytestmark = pytest.mark.netns


def test_pods_reach_each_other_in_both_families(netns: Callable[[], Namespace]) -> None:
    host, pods = netns(), [netns(), netns()]
    host.sh(
        "ip link add name up0 type veth peer name up1; ip link set up0 up; ip link set up1 up\n"
        "ip addr add 10.9.0.1/24 dev up0\n"
        # Proxy ARP answers for the gateway only where the node has a route to it: the default.
        "ip route add default via 10.9.0.2\n"
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n"
    )
    with host.entered():
        podnet = LinuxPodNet()
        for number, pod in enumerate(pods, start=1):
            addresses = (
                ip_interface(f"192.168.0.{number}/32"),
                ip_interface(f"fd00::{number}/128"),
            )
            podnet.plug(
                replace(
                    request_for(pod.fd),
                    host_veth=f"cali{number}",
                    alias=f"pycni a/{number}/eth0",
                    addresses=addresses,
                )
            )
        podnet.close()

    for target in ("192.168.0.2", "fd00::2"):
        pods[0].run("ping", "-c", "1", "-W", "2", target)


def test_only_a_pod_with_ipv6_addresses_has_ipv6_on_its_link(
    netns: Callable[[], Namespace],
) -> None:
    host, plain, dual = netns(), netns(), netns()
    both = (ip_interface("10.0.0.2/32"), ip_interface("fd00::2/128"))
    with host.entered():
        podnet = LinuxPodNet()
        podnet.plug(request_for(plain.fd))
        podnet.plug(replace(request_for(dual.fd), host_veth="cali1", alias="2", addresses=both))
        podnet.close()

    assert host.sh("ip -6 -o addr show dev cali0") == ""
    assert plain.sh("ip -6 -o addr show dev eth0") == ""
    assert "fe80::ecee" in host.sh("ip -6 -o addr show dev cali1")
    assert "fe80::" in dual.sh("ip -6 -o addr show dev eth0 scope link")


def test_pods_are_plugged_where_links_have_no_ipv6(netns: Callable[[], Namespace]) -> None:
    host, pod, small = netns(), netns(), netns()
    for namespace in (host, pod):
        namespace.sh(
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"
        )
    wanted = request_for(pod.fd)
    # Below 1280 bytes the kernel takes a link for one without IPv6 at all.
    another = (ip_interface("10.0.0.3/32"),)
    tiny = replace(wanted, netns_fd=small.fd, host_veth="cali1", alias="2", mtu=1000)
    tiny = replace(tiny, addresses=another)
    with host.entered():
        podnet = LinuxPodNet()
        for request in (wanted, tiny):
            podnet.plug(request)
        told = [*podnet.check(wanted), *podnet.check(tiny)]
        podnet.close()

    assert told == []


def test_an_address_counts_while_it_is_looked_for_duplicates(
    netns: Callable[[], Namespace],
) -> None:
    host = netns()
    host.sh("ip link add br0 type bridge; ip link set br0 up; ip addr add fd98::1/64 dev br0")
    with host.entered():
        podnet = LinuxPodNet()
        has_address = podnet.has_address(ip_address("fd98::1"))
        podnet.close()

    assert "tentative" in host.sh("ip addr show dev br0 to fd98::1")
    assert has_address
