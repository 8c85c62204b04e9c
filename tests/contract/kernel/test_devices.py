"""What every implementation of the `Kernel` door does with links, addresses and sysctls."""

import asyncio
import errno
from ipaddress import ip_interface

import pytest

from pycni.model.network import (
    AddAddress,
    Address,
    CreateTunnel,
    DeleteAddress,
    DeleteLink,
    SetLink,
    SetSysctl,
    Tunnel,
)
from tests.contract.kernel.worlds import World, apply, codes


def test_snapshot_shows_links_and_addresses(node: World) -> None:
    state = node.snapshot()

    assert {"lo", "eth0", "tunl0"} <= set(state.links)
    assert (state.links["eth0"].is_up, state.links["eth0"].kind) == (True, "veth")
    assert Address("tunl0", ip_interface("192.168.0.1/32")) in state.addresses
    assert Address("eth0", ip_interface("fd00::1/64")) in state.addresses


def test_addresses_bring_connected_routes(node: World) -> None:
    assert node.ip_route(4) == ["10.0.0.0/20 dev eth0 proto kernel scope link src 10.0.0.1"]
    assert node.ip_route(6) == ["fd00::/64 dev eth0 proto kernel metric 256 pref medium"]


def test_missing_sysctls_are_left_out(node: World) -> None:
    names = ["net.ipv4.ip_forward", "net.ipv4.conf.absent.forwarding"]

    state = asyncio.run(node.kernel.snapshot(names))

    assert set(state.sysctls) == {"net.ipv4.ip_forward"}


def test_set_link_is_idempotent(node: World) -> None:
    node.set_up("tunl0", is_up=False)

    assert apply(node, SetLink("tunl0", 1480), SetLink("tunl0", 1480)) == []
    link = node.snapshot().links["tunl0"]
    assert (link.is_up, link.mtu) == (True, 1480)


def test_delete_link_is_idempotent(node: World) -> None:
    assert apply(node, DeleteLink("tunl0"), DeleteLink("tunl0")) == []
    assert "tunl0" not in node.snapshot().links


@pytest.mark.parametrize("text", ["10.9.0.1/32", "fd09::1/128"])
def test_addresses_are_idempotent(node: World, text: str) -> None:
    address = Address("tunl0", ip_interface(text))

    assert apply(node, AddAddress(address), AddAddress(address)) == []
    assert address in node.snapshot().addresses
    assert apply(node, DeleteAddress(address), DeleteAddress(address)) == []
    assert address not in node.snapshot().addresses


def test_address_needs_its_interface(node: World) -> None:
    address = Address("absent", ip_interface("10.9.0.1/32"))

    assert codes(apply(node, AddAddress(address))) == [errno.ENODEV]
    assert apply(node, DeleteAddress(address)) == []


def test_creating_a_device_twice_is_success_but_not_over_another_kind(node: World) -> None:
    # A bridge, because not every kernel has IP-in-IP; nothing here depends on the kind.
    wanted = Tunnel("br9", "bridge", 1480)

    assert apply(node, CreateTunnel(wanted), CreateTunnel(wanted)) == []
    assert node.snapshot().links["br9"].kind == "bridge"
    assert codes(apply(node, CreateTunnel(Tunnel("eth0", "bridge", 1480)))) == [errno.EEXIST]


def test_sysctls_are_written_and_read(node: World) -> None:
    name = "net.ipv4.conf.tunl0.proxy_arp"

    assert apply(node, SetSysctl(name, "1")) == []
    assert asyncio.run(node.kernel.snapshot([name])).sysctls == {name: "1"}
    assert codes(apply(node, SetSysctl("net.ipv4.conf.absent.proxy_arp", "1"))) == [errno.ENOENT]
