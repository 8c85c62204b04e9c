"""What every implementation of the `PodNet` door does."""

import asyncio
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import Protocol

import pytest

from pycni.errors import AlreadyExists, InvalidInput, WrongNamespace
from pycni.model.network import IPInterface, IPNetwork
from pycni.ports import PlugRequest, PodNet


class Node(Protocol):
    """A node with pods, and hands that act on it from outside."""

    podnet: PodNet
    host_fd: int
    pod_fds: list[int]

    def add_host_link(self, name: str, *, alias: str = "") -> None: ...
    def delete_host_link(self, name: str) -> None: ...
    def rename_host_link(self, name: str, *, to: str) -> None: ...
    def has_host_link(self, name: str) -> bool: ...
    def add_host_route(self, dst: IPNetwork, *, dev: str) -> None: ...
    def add_host_address(self, interface: IPInterface, *, dev: str) -> None: ...
    def host_routes(self) -> list[str]: ...
    def break_mtu(self, name: str) -> None: ...
    def break_sysctl(self, name: str, value: str) -> None: ...
    def break_address(self, name: str, address: str) -> None: ...


def request_for(node: Node, number: int = 0, *, both: bool = False) -> PlugRequest:
    texts = [f"192.168.0.{number + 1}/32"] + ([f"fd00:1::{number + 1}/128"] if both else [])
    return PlugRequest(
        netns_fd=node.pod_fds[number],
        ifname="eth0",
        host_veth=f"cali{number:011x}",
        alias=f"pycni net/container-{number}/eth0",
        addresses=tuple(ip_interface(text) for text in texts),
        mtu=1480,
        route_protocol=3,
    )


def unplug(node: Node, *requests: PlugRequest) -> list[bool]:
    async def run() -> list[bool]:
        calls = (node.podnet.unplug(host_veth=r.host_veth, alias=r.alias) for r in requests)
        return list(await asyncio.gather(*calls))

    return asyncio.run(run())


@pytest.mark.parametrize("both", [False, True])
def test_plug_builds_what_check_looks_for(node: Node, *, both: bool) -> None:
    request = request_for(node, both=both)

    result = node.podnet.plug(request)

    assert result.host_mac == "ee:ee:ee:ee:ee:ee"
    assert len(result.pod_mac.split(":")) == 6
    assert node.podnet.check(request) == []
    v6 = [f"fd00:1::1 dev {request.host_veth} metric 1024 pref medium"] if both else []
    assert node.host_routes() == [f"192.168.0.1 dev {request.host_veth} scope link", *v6]


def test_each_pod_has_a_mac_of_its_own(node: Node) -> None:
    macs = {node.podnet.plug(request_for(node, number)).pod_mac for number in range(4)}

    assert len(macs) == 4
    # Locally administered, and one station's.
    assert {int(mac[:2], 16) & 3 for mac in macs} == {2}


def test_a_pod_may_have_a_second_interface(node: Node) -> None:
    first = request_for(node)
    second = replace(
        request_for(node, 1),
        netns_fd=first.netns_fd,
        ifname="net1",
        has_default_route=False,
        routes=(ip_network("10.99.0.0/16"),),
    )
    node.podnet.plug(first)

    node.podnet.plug(second)

    assert node.podnet.check(first) == node.podnet.check(second) == []
    assert unplug(node, first) == [True]
    assert node.podnet.check(second) == []


def test_two_interfaces_cannot_both_have_the_default_route(node: Node) -> None:
    first = request_for(node)
    node.podnet.plug(first)
    second = replace(request_for(node, 1), netns_fd=first.netns_fd, ifname="net1")

    with pytest.raises(InvalidInput, match="isDefaultGateway"):
        node.podnet.plug(second)

    assert not node.has_host_link(second.host_veth)
    assert node.podnet.check(first) == []


def test_a_pod_gets_the_mac_that_was_asked_for(node: Node) -> None:
    request = replace(request_for(node), pod_mac="02:00:00:00:00:0a")

    assert node.podnet.plug(request).pod_mac == "02:00:00:00:00:0a"
    assert node.podnet.check(request) == []
    assert node.podnet.check(replace(request, pod_mac="02:00:00:00:00:0b")) == [
        "pod interface eth0 has MAC 02:00:00:00:00:0a instead of 02:00:00:00:00:0b"
    ]


def test_unplug_removes_everything_and_says_whether_there_was_any(node: Node) -> None:
    request = request_for(node)
    node.podnet.plug(request)

    assert unplug(node, request) == [True]
    assert not node.has_host_link(request.host_veth)
    assert node.host_routes() == []
    assert unplug(node, request) == [False]


def test_concurrent_unplugs_are_all_done(node: Node) -> None:
    requests = [request_for(node, number) for number in range(4)]
    for request in requests[:3]:
        node.podnet.plug(request)
    node.add_host_link("other")

    assert unplug(node, *requests) == [True, True, True, False]
    assert not any(node.has_host_link(request.host_veth) for request in requests)
    assert node.has_host_link("other")


def test_deletions_of_one_event_loop_do_not_disturb_those_of_the_next(node: Node) -> None:
    request = request_for(node)
    absent = replace(request, host_veth="cali9", alias="pycni net/absent/eth0")

    for _ in range(20):  # the kernel's last answer to a deletion is late, and its loop gone by then
        node.podnet.plug(request)
        assert unplug(node, request) == [True]
        assert unplug(node, absent) == [False]

    assert not node.has_host_link(request.host_veth)


def test_a_plugged_pod_shows_life_until_it_is_unplugged(node: Node) -> None:
    request = request_for(node)
    address = request.addresses[0].ip
    assert request.alias not in node.podnet.aliases()
    assert not node.podnet.leads_to_pod(address)
    node.podnet.plug(request)

    assert request.alias in node.podnet.aliases()
    assert node.podnet.leads_to_pod(address)
    assert not node.podnet.leads_to_pod(ip_interface("10.9.9.9").ip)

    unplug(node, request)
    assert request.alias not in node.podnet.aliases()
    assert not node.podnet.leads_to_pod(address)


def test_unplug_spares_the_interface_of_another_container(node: Node) -> None:
    request = request_for(node)
    node.podnet.plug(request)

    assert unplug(node, replace(request, alias="pycni net/older/eth0")) == [False]
    assert node.podnet.check(request) == []


def test_unplug_finds_a_pair_whose_host_end_was_renamed(node: Node) -> None:
    requests = [request_for(node, number) for number in range(3)]
    for request in requests:
        node.podnet.plug(request)
    node.rename_host_link(requests[0].host_veth, to="lan0")
    node.rename_host_link(requests[1].host_veth, to="lan1")
    # Its name is a stranger's by now.
    node.add_host_link(requests[1].host_veth)

    assert unplug(node, *requests) == [True, True, True]

    assert not node.has_host_link("lan0")
    assert not node.has_host_link("lan1")
    assert node.has_host_link(requests[1].host_veth)
    assert unplug(node, requests[0]) == [False]


def test_plug_replaces_a_leftover_whose_host_end_was_renamed(node: Node) -> None:
    request = request_for(node)
    node.podnet.plug(request)
    node.rename_host_link(request.host_veth, to="lan0")

    node.podnet.plug(request)

    assert node.podnet.check(request) == []
    assert not node.has_host_link("lan0")


def test_plug_spares_another_containers_pair_whose_host_end_was_renamed(node: Node) -> None:
    request = request_for(node)
    node.podnet.plug(request)
    node.rename_host_link(request.host_veth, to="lan0")

    with pytest.raises(InvalidInput, match=r"eth0 exists already.*; delete it there, or"):
        node.podnet.plug(replace(request, alias="pycni net/newer/eth0"))

    assert node.has_host_link("lan0")


def test_plug_replaces_a_leftover_of_the_same_container(node: Node) -> None:
    request = request_for(node)
    node.podnet.plug(request)
    again = replace(request, netns_fd=node.pod_fds[1])

    node.podnet.plug(again)

    assert node.podnet.check(again) == []


@pytest.mark.parametrize("alias", ["", "pycni net/another/eth0"])
def test_plug_refuses_a_name_that_another_interface_has(node: Node, alias: str) -> None:
    request = request_for(node)
    node.add_host_link(request.host_veth, alias=alias)

    with pytest.raises(AlreadyExists, match=rf"{request.host_veth}.*not this pod's; delete it, or"):
        node.podnet.plug(request)

    assert node.has_host_link(request.host_veth)


def test_plug_refuses_an_interface_that_the_pod_has(node: Node) -> None:
    node.podnet.plug(request_for(node))
    second = replace(request_for(node, 1), netns_fd=node.pod_fds[0])

    with pytest.raises(InvalidInput, match=r"eth0 exists already.*; delete it there, or"):
        node.podnet.plug(second)

    assert not node.has_host_link(second.host_veth)
    assert node.podnet.check(request_for(node)) == []


def test_plug_refuses_the_hosts_own_namespace(node: Node) -> None:
    with pytest.raises(WrongNamespace, match="host's own"):
        node.podnet.plug(replace(request_for(node), netns_fd=node.host_fd))

    assert node.host_routes() == []


@pytest.mark.parametrize("name", ["", "x" * 16, "a/b", "a b", "..", "a:b"])
def test_plug_refuses_impossible_interface_names(node: Node, name: str) -> None:
    for bad in (
        replace(request_for(node), ifname=name),
        replace(request_for(node), host_veth=name),
    ):
        with pytest.raises(InvalidInput, match="interface name"):
            node.podnet.plug(bad)


def test_plug_needs_an_address_an_alias_and_a_plausible_mtu(node: Node) -> None:
    good = request_for(node)

    for bad in (replace(good, addresses=()), replace(good, alias=""), replace(good, mtu=10)):
        with pytest.raises(InvalidInput):
            node.podnet.plug(bad)


def test_plug_names_the_device_that_has_the_pods_route(node: Node) -> None:
    request = request_for(node)
    node.add_host_link("other")
    node.add_host_route(ip_network("192.168.0.1/32"), dev="other")

    with pytest.raises(AlreadyExists, match=r"leads to other|File exists"):
        node.podnet.plug(request)

    assert not node.has_host_link(request.host_veth)
    assert node.host_routes() == ["192.168.0.1 dev other scope link"]


def test_extra_routes_go_by_the_gateway(node: Node) -> None:
    request = replace(
        request_for(node, both=True),
        routes=(ip_network("172.16.0.0/12"), ip_network("fd99::/64")),
        has_default_route=False,
        allow_ip_forwarding=True,
    )

    node.podnet.plug(request)

    assert node.podnet.check(request) == []
    missing = node.podnet.check(replace(request, has_default_route=True))
    assert missing == [
        "the pod lacks route default via 169.254.1.1 dev eth0",
        (
            "the pod lacks route default via fe80::ecee:eeff:feee:eeee dev eth0 "
            "metric 1024 pref medium"
        ),
    ]


def test_a_further_interface_does_not_forbid_forwarding(node: Node) -> None:
    first = replace(request_for(node, both=True), allow_ip_forwarding=True)
    second = replace(
        request_for(node, 1, both=True),
        netns_fd=first.netns_fd,
        ifname="net1",
        has_default_route=False,
    )

    node.podnet.plug(first)
    node.podnet.plug(second)

    assert node.podnet.check(first) == node.podnet.check(second) == []


def test_check_tells_each_difference(node: Node) -> None:
    request = request_for(node)
    node.podnet.plug(request)
    node.break_mtu(request.host_veth)
    sysctl = f"net.ipv4.conf.{request.host_veth}.rp_filter"
    node.break_sysctl(sysctl, "0")

    told = node.podnet.check(
        replace(request, alias="pycni net/x/eth0", addresses=(ip_interface("192.168.0.9/32"),))
    )

    assert f"host interface {request.host_veth} has MTU 1300 instead of 1480" in told
    assert f"sysctl {sysctl} on the host is 0 instead of 1" in told
    assert f"the host lacks route 192.168.0.9 dev {request.host_veth} scope link" in told
    assert "pod interface eth0 lacks address 192.168.0.9/32" in told
    assert any("has alias" in sentence for sentence in told)


def test_check_tells_that_the_ipv6_gateway_is_gone(node: Node) -> None:
    request = request_for(node, both=True)
    node.podnet.plug(request)
    assert node.podnet.check(request) == []
    node.break_address(request.host_veth, "fe80::ecee:eeff:feee:eeee/64")

    assert node.podnet.check(request) == [
        (
            f"host interface {request.host_veth} lacks address fe80::ecee:eeff:feee:eeee/64,"
            " the pod's IPv6 gateway"
        )
    ]
    assert node.podnet.check(replace(request, addresses=request.addresses[:1])) == []


def test_check_tells_that_nothing_is_there(node: Node) -> None:
    request = request_for(node)

    assert node.podnet.check(request) == [
        f"host interface {request.host_veth} does not exist",
        "pod interface eth0 does not exist",
    ]


@pytest.mark.parametrize("text", ["10.9.9.1/24", "fd99::1/64"])
def test_addresses_of_the_host_are_told_from_others(node: Node, text: str) -> None:
    interface = ip_interface(text)
    node.add_host_link("host9")
    assert not node.podnet.has_address(interface.ip)

    node.add_host_address(interface, dev="host9")

    assert node.podnet.has_address(interface.ip)
    assert not node.podnet.has_address(interface.ip + 1)
