"""Corners of the real kernel's adapters that no fake has."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pycni.errors import AlreadyExists, InvalidInput
from pycni.kernel.linux import LinuxKernel
from pycni.kernel.nft import Nftables
from pycni.kernel.podnet import LinuxPodNet
from pycni.model.network import Ruleset, SetRuleset, SetSysctl
from pycni.plan.nat import COUNTERS, NatInputs, render
from pycni.ports import PlugRequest

if TYPE_CHECKING:
    from conftest import Namespace

pytestmark = pytest.mark.netns


def request_for(fd: int) -> PlugRequest:
    return PlugRequest(
        netns_fd=fd,
        ifname="eth0",
        host_veth="cali0",
        alias="pycni a/b/eth0",
        addresses=(ip_interface("10.0.0.1/32"),),
        mtu=1480,
        route_protocol=3,
    )


def test_a_missing_nft_program_is_a_named_state(
    netns: Callable[[], Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    with netns().entered():
        kernel = LinuxKernel()
        monkeypatch.setenv("PATH", "/nonexistent")
        state = asyncio.run(kernel.snapshot([]))
        (failure,) = asyncio.run(kernel.apply([SetRuleset(render(NatInputs()))]))
        kernel.close()

    assert state.nat_unavailable is not None
    assert "no `nft` program" in state.nat_unavailable.reason
    assert failure.errno == errno.EOPNOTSUPP


def test_a_refused_ruleset_leaves_the_one_before(netns: Callable[[], Namespace]) -> None:
    good = render(NatInputs(nodes=frozenset({ip_address("10.0.0.1")})))
    with netns().entered():
        kernel, nftables = LinuxKernel(), Nftables()
        bad = Ruleset("add table inet pycni\ndelete table inet pycni\nnonsense\n", "x")
        failures = asyncio.run(kernel.apply([SetRuleset(good), SetRuleset(bad)]))
        state = asyncio.run(kernel.snapshot([]))
        counters = nftables.counters()
        kernel.close()
        nftables.close()

    assert [failure.errno for failure in failures] == [errno.EINVAL]
    assert state.ruleset == good.digest
    assert counters == dict.fromkeys(COUNTERS, 0)


def test_malformed_sysctls_are_refused(netns: Callable[[], Namespace]) -> None:
    with netns().entered():
        kernel = LinuxKernel()
        (failure,) = asyncio.run(kernel.apply([SetSysctl("net.//.//.kernel", "1")]))
        kernel.close()

    assert failure.errno == errno.EINVAL


def test_only_a_network_namespace_is_plugged(netns: Callable[[], Namespace]) -> None:
    with netns().entered():
        podnet = LinuxPodNet()
        one, other = socket.socketpair()
        with one, other, Path("/proc/self/ns/mnt").open("rb") as mounts:
            for fd in (one.fileno(), mounts.fileno()):
                with pytest.raises(InvalidInput, match="not a network namespace"):
                    podnet.plug(request_for(fd))
        podnet.close()


def test_a_pair_left_without_alias_by_a_crash_is_replaced(
    netns: Callable[[], Namespace],
) -> None:
    host, pod = netns(), netns()
    host.sh("ip link add cali0 address ee:ee:ee:ee:ee:ee type veth peer name left")
    with host.entered():
        podnet = LinuxPodNet()
        podnet.plug(request_for(pod.fd))
        told = podnet.check(request_for(pod.fd))
        podnet.close()

    assert told == []


def test_a_stranger_keeps_its_alias_after_a_refused_plug(
    netns: Callable[[], Namespace],
) -> None:
    host, pod = netns(), netns()
    host.sh("ip link add cali0 type veth peer name far; ip link set cali0 alias theirs up")
    with host.entered():
        podnet = LinuxPodNet()
        with pytest.raises(AlreadyExists, match="'theirs'"):
            podnet.plug(request_for(pod.fd))
        podnet.close()

    assert "alias theirs" in host.run("ip", "link", "show", "cali0").stdout
    assert "eth0" not in pod.run("ip", "link").stdout


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
                PlugRequest(
                    netns_fd=pod.fd,
                    ifname="eth0",
                    host_veth=f"cali{number}",
                    alias=f"pycni a/{number}/eth0",
                    addresses=addresses,
                    mtu=1480,
                    route_protocol=3,
                )
            )
        podnet.close()

    for target in ("192.168.0.2", "fd00::2"):
        pods[0].run("ping", "-c", "1", "-W", "2", target)
