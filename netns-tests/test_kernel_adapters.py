"""Corners of the real kernel's adapters that no fake has."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plugging import request_for
from pycni.errors import AlreadyExists, InvalidInput
from pycni.kernel import podplan
from pycni.kernel.birthmark import birth_group
from pycni.kernel.event_filter import hear_only
from pycni.kernel.hostend import HostEnd
from pycni.kernel.linux import LinuxKernel
from pycni.kernel.names import LinkIndexes
from pycni.kernel.neighbours import list_entries
from pycni.kernel.netlink import NetlinkSocket, join_group, open_socket
from pycni.kernel.nft import Nftables
from pycni.kernel.podnet import LinuxPodNet
from pycni.kernel.unplug import RTNLGRP_LINK
from pycni.kernel.wire import Ack, Message, Request, messages
from pycni.kernel.wire_conf import RTM_SETNEIGHTBL, ipv4_conf
from pycni.kernel.wire_link import RTM_DELLINK, RTM_NEWLINK
from pycni.model.linklayer import FdbEntry, Vxlan
from pycni.model.network import (
    CreateTunnel,
    Failure,
    Op,
    Ruleset,
    SetNeighbour,
    SetRuleset,
    SetSysctl,
    Tunnel,
)
from pycni.plan.delta import plan_tunnels
from pycni.plan.desired import Desired
from pycni.plan.nat import COUNTERS, NatInputs, render
from pycni.plan.podsysctls import IPV4_CONF

if TYPE_CHECKING:
    from conftest import Namespace

pytestmark = [pytest.mark.netns]


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


def test_kind_of_tunnel_that_the_kernel_lacks_is_told_with_the_way_out(
    netns: Callable[[], Namespace],
) -> None:
    with netns().entered():
        kernel = LinuxKernel()
        (failure,) = asyncio.run(kernel.apply([CreateTunnel(Tunnel("tunl0", "nosuch", 1480))]))
        kernel.close()

    assert failure.errno == errno.EOPNOTSUPP
    assert failure.message == (
        "cannot create nosuch tunnel tunl0 with MTU 1480: this kernel has no nosuch tunnels: load"
        " the module (modprobe nosuch), or give every pool ipipMode: Never"
    )


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


def leave_half_made(host: Namespace, *, alias: str) -> None:
    """Leave what a crash between a pair's making and its naming leaves."""
    group = birth_group(alias)
    host.sh(f"ip link add cali0 address ee:ee:ee:ee:ee:ee group {group} type veth peer name left")


def test_a_pair_left_without_alias_by_a_crash_is_replaced(
    netns: Callable[[], Namespace],
) -> None:
    host, pod = netns(), netns()
    request = request_for(pod.fd)
    leave_half_made(host, alias=request.alias)
    with host.entered():
        podnet = LinuxPodNet()
        podnet.plug(request)
        told = podnet.check(request)
        podnet.close()

    assert told == []
    assert " group default" in host.run("ip", "link", "show", "cali0").stdout


def test_a_pair_left_without_alias_by_a_crash_is_removed(
    netns: Callable[[], Namespace],
) -> None:
    host = netns()
    leave_half_made(host, alias="pycni a/b/eth0")

    async def story() -> list[bool]:
        podnet = LinuxPodNet()
        try:
            aliases = ("pycni another/b/eth0", "pycni a/b/eth0")
            return [await podnet.unplug(host_veth="cali0", alias=alias) for alias in aliases]
        finally:
            podnet.close()

    with host.entered():
        assert asyncio.run(story()) == [False, True]

    assert "cali0" not in host.run("ip", "link").stdout


@pytest.mark.parametrize("group", [0, birth_group("pycni another/b/eth0")])
def test_a_pair_without_alias_that_another_made_is_left_alone(
    netns: Callable[[], Namespace], group: int
) -> None:
    host, pod = netns(), netns()
    host.sh(f"ip link add cali0 address ee:ee:ee:ee:ee:ee group {group} type veth peer name left")
    with host.entered():
        podnet = LinuxPodNet()
        with pytest.raises(AlreadyExists, match="without alias is not this pod's; delete it, or"):
            podnet.plug(request_for(pod.fd))
        podnet.close()

    assert "left" in host.run("ip", "link").stdout


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


def test_a_socket_hears_only_what_it_asked_for(netns: Callable[[], Namespace]) -> None:
    host = netns()
    with host.entered():
        raw = open_socket()
    with raw:
        hear_only(raw, RTM_DELLINK)
        join_group(raw, RTNLGRP_LINK)
        raw.setblocking(False)
        host.sh("ip link add cali0 type veth peer name far; ip link set cali0 up")
        with pytest.raises(BlockingIOError):
            raw.recv(1 << 16)
        host.sh("ip link del cali0")
        heard = [next(messages(raw.recv(1 << 16))).type for _ in range(2)]
        with pytest.raises(BlockingIOError):
            raw.recv(1 << 16)

    assert heard == [RTM_DELLINK, RTM_DELLINK]


class OlderKernel(NetlinkSocket):
    """Answers as a kernel that doesn't know a message; the rest goes to the real one."""

    def __init__(self, unknown: Callable[[Request], bool], *, code: int) -> None:
        super().__init__()
        self._unknown = unknown
        self._code = code
        self.asked = 0

    def exchange(self, requests: Sequence[Request]) -> tuple[list[Ack], list[Message]]:
        acks, replies = [], []
        for request in requests:
            if self._unknown(request):
                self.asked += 1
                acks.append(Ack(0, self._code, "never heard of"))
            else:
                done, brought = super().exchange([request])
                acks += done
                replies += brought
        return acks, replies


def has_settings(request: Request) -> bool:
    return request.type == RTM_NEWLINK and ipv4_conf(IPV4_CONF) in request.body


def sets_neighbours(request: Request) -> bool:
    return request.type == RTM_SETNEIGHTBL


def pair_with_contrary_settings(host: Namespace) -> int:
    host.sh(
        "cd /proc/sys/net/ipv4/conf/default\n"
        "echo 1 > route_localnet; echo 0 > rp_filter; echo 0 > forwarding\n"
        "ip link add cali0 type veth peer name far\n"
    )
    return int(host.sh("ip -o link show cali0").split(":")[0])


def settled(host: Namespace) -> None:
    """Assert that alias and all settings are made, and that nothing is up yet."""
    wanted = podplan.host_sysctls(request_for(-1))
    have = {name: host.sh(f"sysctl -n {name}").strip() for name in wanted}
    assert have == wanted
    shown = host.sh("ip link show cali0")
    assert "alias pycni a/b/eth0" in shown
    assert "state DOWN" in shown
    assert ",UP" not in shown


def test_a_host_end_is_settled_before_it_goes_up(netns: Callable[[], Namespace]) -> None:
    host = netns()
    index = pair_with_contrary_settings(host)
    with host.entered(), NetlinkSocket() as kernel:
        HostEnd(kernel).settle(request_for(-1), index=index)

    settled(host)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENOENT])
@pytest.mark.parametrize("unknown", [has_settings, sets_neighbours])
def test_settings_that_netlink_does_not_know_go_by_files(
    netns: Callable[[], Namespace], unknown: Callable[[Request], bool], code: int
) -> None:
    host = netns()
    index = pair_with_contrary_settings(host)
    with host.entered(), OlderKernel(unknown, code=code) as kernel:
        host_end = HostEnd(kernel)
        host_end.settle(request_for(-1), index=index)
        host_end.settle(request_for(-1), index=index)

    settled(host)
    assert kernel.asked == 1


@pytest.mark.parametrize(
    ("unknown", "code", "told"),
    [
        (sets_neighbours, errno.ENOMEM, "cannot set its proxy_delay: never heard of"),
        # The loopback takes the alias, but of cali0 there are no files.
        (has_settings, errno.EINVAL, r"cannot set sysctl net\.ipv4\S+cali0\S+ to"),
    ],
)
def test_a_setting_that_cannot_be_made_is_named(
    netns: Callable[[], Namespace], unknown: Callable[[Request], bool], code: int, told: str
) -> None:
    with (
        netns().entered(),
        OlderKernel(unknown, code=code) as kernel,
        pytest.raises(OSError, match=told),
    ):
        HostEnd(kernel).settle(request_for(-1), index=1)


PLUG = """
import sys
from ipaddress import ip_interface
from pycni.kernel.podnet import LinuxPodNet
from pycni.ports import PlugRequest
address = (ip_interface("10.0.0.1/32"),)
request = PlugRequest(int(sys.argv[1]), "eth0", "cali0", "pycni a/b/eth0", address, 1480, 3)
podnet = LinuxPodNet()
try:
    podnet.plug(request)
except Exception as exc:
    sys.exit(str(exc))
print(*podnet.check(request))
"""


@pytest.mark.parametrize(
    ("forwarding", "told"), [("0", ""), ("1", "cannot set sysctl net.ipv4.ip_forward to 0: Read-")]
)
def test_a_read_only_proc_sys_is_no_obstacle_where_values_are_right(
    netns: Callable[[], Namespace], forwarding: str, told: str
) -> None:
    host, pod = netns(), netns()
    pod.sh(f"sysctl -qw net.ipv4.ip_forward={forwarding}")
    seal = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"

    with host.entered():
        sealed = ["unshare", "--mount", "sh", "-euc", f'{seal}; exec "$@"', "sealed"]
        ran = subprocess.run(
            [*sealed, sys.executable, "-c", PLUG, str(pod.fd)],
            pass_fds=[pod.fd],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )

    assert ran.stdout.strip() == ""
    assert told in ran.stderr
    assert bool(ran.returncode) is bool(told)
    assert ("cali0" in host.sh("ip link")) is not bool(told)


@pytest.mark.parametrize("bound", ["dev va", "remote 10.0.0.2"])
def test_a_device_bound_to_the_interface_before_is_made_anew(
    netns: Callable[[], Namespace], bound: str
) -> None:
    """As Calico makes it (`dev`): the kernel would refuse it the MTU of another interface."""
    host = netns()
    host.sh("ip link add va mtu 1500 type veth; ip link set va up; ip addr add 10.0.0.1/24 dev va")
    host.sh("ip link add vb mtu 9000 type veth; ip link set vb up; ip addr add 10.1.0.1/24 dev vb")
    parameters = f"id 4096 dstport 4789 nolearning local 10.0.0.1 {bound}"
    host.sh(f"ip link add vxlan.calico up type vxlan {parameters}")
    after = Vxlan(4096, 4789, ip_address("10.1.0.1"))
    tunnel = Tunnel("vxlan.calico", "vxlan", 8950, "66:00:00:00:00:01", after)

    async def pass_over() -> tuple[list[Op], list[Failure]]:
        kernel = LinuxKernel()
        ops = plan_tunnels(Desired(tunnels={tunnel.name: tunnel}), await kernel.snapshot([]))
        failures = list(await kernel.apply(ops))
        kernel.close()
        return ops, failures

    with host.entered():
        assert asyncio.run(pass_over())[1] == []
        assert asyncio.run(pass_over()) == ([], [])
    assert bound not in host.sh("ip -d link show vxlan.calico")


def test_listing_many_entries_of_a_vxlan_device_lets_others_have_their_turn(
    netns: Callable[[], Namespace],
) -> None:
    parameters = Vxlan(4096, 4789, ip_address("10.0.0.1"))
    device = Tunnel("vxlan.calico", "vxlan", 1450, "66:00:00:00:00:01", parameters)

    async def turns_while_listing(entries: int) -> int:
        kernel, socket_ = LinuxKernel(), NetlinkSocket()
        macs = (f"66:00:00:01:{n // 256:02x}:{n % 256:02x}" for n in range(entries))
        far = [FdbEntry(device.name, mac, ip_address("10.0.0.2")) for mac in macs]
        assert await kernel.apply([CreateTunnel(device), *map(SetNeighbour, far)]) == []
        links = (await kernel.snapshot([])).links.values()
        kernel.close()
        listing = asyncio.create_task(list_entries(socket_, links, names=LinkIndexes(socket_)))
        turns = 0
        while not listing.done():
            turns += 1
            await asyncio.sleep(0)
        socket_.close()
        assert len(listing.result()) == entries
        return turns

    with netns().entered():
        # Each datagram of a listing holds a few hundred.
        assert asyncio.run(turns_while_listing(2000)) > 5
