"""MTU, sysctls and route of a pod's interface."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from pycni.model.resources import TunnelMode
from pycni.plan.mtu import pod_mtu
from pycni.plan.podroute import pod_route
from pycni.plan.podsysctls import host_veth_sysctls, interface_sysctl
from tests.unit.plan.samples import lines, pool


@pytest.mark.parametrize(
    ("modes", "mtu"),
    [
        ([], 1500),
        ([TunnelMode.NEVER], 1500),
        ([TunnelMode.ALWAYS], 1480),
        ([TunnelMode.CROSS_SUBNET], 1480),
        ([TunnelMode.NEVER, TunnelMode.ALWAYS], 1480),
    ],
)
def test_pods_leave_room_for_the_header_of_any_pools_tunnel(
    modes: list[TunnelMode], mtu: int
) -> None:
    pools = [pool(f"192.168.{n}.0/24", mode) for n, mode in enumerate(modes)]

    assert pod_mtu(pools, underlay_mtu=1500) == mtu


def test_the_pool_whose_tunnel_adds_most_decides() -> None:
    ipip = pool("192.168.0.0/24")
    vxlan = replace(pool("192.168.1.0/24", TunnelMode.NEVER), vxlan_mode=TunnelMode.ALWAYS)
    six = replace(pool("fd00:1::/64"), vxlan_mode=TunnelMode.CROSS_SUBNET)

    assert pod_mtu([ipip, vxlan], underlay_mtu=1500) == 1450
    assert pod_mtu([ipip, vxlan, six], underlay_mtu=1500) == 1430


def test_a_dot_in_an_interfaces_name_is_a_slash() -> None:
    assert interface_sysctl("ipv4", ifname="eth0.7", key="rp_filter") == (
        "net.ipv4.conf.eth0/7.rp_filter"
    )
    assert interface_sysctl("ipv4.neigh", ifname="cali1", key="proxy_delay") == (
        "net.ipv4.neigh.cali1.proxy_delay"
    )


def test_the_settings_of_a_host_end_for_ipv4() -> None:
    assert host_veth_sysctls("cali1", versions=frozenset({4})) == {
        "net.ipv4.conf.cali1.proxy_arp": "1",
        "net.ipv4.neigh.cali1.proxy_delay": "0",
        "net.ipv4.conf.cali1.forwarding": "1",
        "net.ipv4.conf.cali1.rp_filter": "1",
        "net.ipv4.conf.cali1.route_localnet": "0",
    }


def test_the_further_settings_of_a_host_end_for_ipv6() -> None:
    four = host_veth_sysctls("cali1", versions=frozenset({4}))
    both = host_veth_sysctls("cali1", versions=frozenset({4, 6}))

    assert {k: both[k] for k in both.keys() - four.keys()} == {
        "net.ipv6.conf.cali1.disable_ipv6": "0",
        "net.ipv6.conf.cali1.accept_dad": "0",
        "net.ipv6.conf.cali1.accept_ra": "0",
        "net.ipv6.conf.cali1.proxy_ndp": "1",
        "net.ipv6.conf.cali1.forwarding": "1",
    }


def test_a_pods_route() -> None:
    assert lines(pod_route(ip_address("192.168.39.193"), host_veth="cali1")) == [
        "192.168.39.193 dev cali1 scope link"
    ]
    assert lines(pod_route(ip_address("fd00::1"), host_veth="cali1"), family=6) == [
        "fd00::1 dev cali1 metric 1024 pref medium"
    ]
