"""What only a kernel with IP-in-IP, and without nftables for IP, can show."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest

from pycni.kernel.linux import LinuxKernel
from pycni.model.network import (
    AddAddress,
    Address,
    AddRoute,
    CreateTunnel,
    DeleteLink,
    NextHop,
    Op,
    Route,
    RouteKey,
    SetLink,
    SetRuleset,
    Tunnel,
)
from pycni.plan.nat import NatInputs, render

if TYPE_CHECKING:
    from conftest import Namespace

pytestmark = pytest.mark.uml


def test_the_ipip_tunnel_is_taken_over(netns: Callable[[], Namespace]) -> None:
    """`tunl0` stands in every namespace once the module is loaded."""
    hop = NextHop("tunl0", ip_address("10.0.0.9"), is_onlink=True)
    route = Route(RouteKey(ip_network("192.168.4.0/26")), next_hops=frozenset({hop}), protocol=12)
    ops: list[Op] = [
        CreateTunnel(Tunnel("tunl0", "ipip", 1480)),
        SetLink("tunl0", 1480),
        AddAddress(Address("tunl0", ip_interface("192.168.0.1/32"))),
        AddRoute(route),
    ]
    with netns().entered():
        kernel = LinuxKernel()
        failures = asyncio.run(kernel.apply(ops))
        state = asyncio.run(kernel.snapshot([]))
        kernel.close()

    assert list(failures) == []
    link = state.links["tunl0"]
    assert (link.kind, link.mtu, link.is_up) == ("ipip", 1480, True)
    assert state.routes[route.key] == (route,)


def test_the_modules_own_tunnel_is_set_down_in_place_of_deleted(
    netns: Callable[[], Namespace],
) -> None:
    ops: list[Op] = [SetLink("tunl0", 1480), DeleteLink("tunl0"), DeleteLink("tunl9")]
    with netns().entered():
        kernel = LinuxKernel()
        failures = asyncio.run(kernel.apply(ops))
        state = asyncio.run(kernel.snapshot([]))
        kernel.close()

    assert list(failures) == []
    assert not state.links["tunl0"].is_up


def test_a_second_tunnel_between_any_addresses_is_refused(netns: Callable[[], Namespace]) -> None:
    with netns().entered():
        kernel = LinuxKernel()
        (failure,) = asyncio.run(kernel.apply([CreateTunnel(Tunnel("tunl9", "ipip", 1480))]))
        kernel.close()

    assert failure.errno == errno.EEXIST
    assert "same endpoints" in failure.message


def test_missing_nftables_is_a_named_state(netns: Callable[[], Namespace]) -> None:
    with netns().entered():
        kernel = LinuxKernel()
        (failure,) = asyncio.run(kernel.apply([SetRuleset(render(NatInputs()))]))
        state = asyncio.run(kernel.snapshot([]))
        kernel.close()

    assert state.nat_unavailable is not None
    assert "the kernel refuses" in state.nat_unavailable.reason
    assert state.ruleset is None
    assert failure.errno == errno.EOPNOTSUPP
