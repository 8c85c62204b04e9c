"""What every implementation of the `Kernel` door does with routes whose link or address goes."""

from collections.abc import Callable
from ipaddress import ip_interface

import pytest

from pycni.model.network import (
    Address,
    AddressChanged,
    AddRoute,
    KernelEvent,
    LinkChanged,
    LinkGone,
    RouteChanged,
)
from tests.contract.kernel.worlds import LEARNED, LEARNED6, World, apply, outside, table, watch


@pytest.mark.parametrize("cause", ["down", "address", "deleted"])
def test_ipv4_routes_vanish_silently_with_their_link(node: World, cause: str) -> None:
    apply(node, AddRoute(LEARNED))
    acts: dict[str, Callable[[], None]] = {
        "down": lambda: node.set_up("tunl0", is_up=False),
        "address": lambda: node.delete_address("tunl0", "192.168.0.1/32"),
        "deleted": lambda: node.delete_link("tunl0"),
    }
    ends: dict[str, Callable[[KernelEvent], bool]] = {
        "down": lambda e: isinstance(e, LinkChanged) and not e.link.is_up,
        "address": lambda e: isinstance(e, AddressChanged),
        "deleted": lambda e: e == LinkGone("tunl0"),
    }

    events = watch(node, outside(acts[cause]), until=ends[cause])

    assert table(node, LEARNED.key) == []
    told = [e.route for e in events if isinstance(e, RouteChanged)]
    assert LEARNED not in told


def test_routes_do_not_return_when_the_link_goes_up_again(node: World) -> None:
    apply(node, AddRoute(LEARNED))
    node.set_up("tunl0", is_up=False)
    node.set_up("tunl0", is_up=True)

    assert table(node, LEARNED.key) == []


def test_connected_routes_return_when_the_link_goes_up_again(node: World) -> None:
    before = node.ip_route(4)
    node.set_up("eth0", is_up=False)
    node.set_up("eth0", is_up=True)

    assert node.ip_route(4) == before


def test_ipv6_addresses_and_routes_vanish_loudly_with_their_link(node: World) -> None:
    apply(node, AddRoute(LEARNED6))

    events = watch(
        node,
        outside(lambda: node.set_up("eth0", is_up=False)),
        until=lambda e: e == AddressChanged(Address("eth0", ip_interface("fd00::1/64")), False),
    )

    assert RouteChanged(LEARNED6, is_present=False) in events
    assert table(node, LEARNED6.key) == []
