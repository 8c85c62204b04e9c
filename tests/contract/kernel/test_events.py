"""What every implementation of the `Kernel` door does to tell of changes."""

import asyncio
from ipaddress import ip_interface

import pytest

from pycni.errors import EventsLost
from pycni.model.network import (
    IPV6_CONNECTED_PRIORITY,
    AddAddress,
    Address,
    AddRoute,
    DeleteAddress,
    DeleteRoute,
    KernelEvent,
    LinkChanged,
    LinkGone,
    ReplaceRoute,
    Route,
    RouteChanged,
    RouteKey,
)
from tests.contract.kernel.worlds import (
    LEARNED,
    LEARNED6,
    MOVED,
    MOVED6,
    STRANGERS,
    World,
    outside,
    route,
    watch,
)


def test_routes_of_others_are_told(node: World) -> None:
    def act() -> None:
        node.append(STRANGERS)
        node.delete(STRANGERS)

    events = watch(
        node, outside(act), until=lambda e: e == RouteChanged(STRANGERS, is_present=False)
    )

    assert RouteChanged(STRANGERS, is_present=True) in events


@pytest.mark.parametrize(("first", "second"), [(LEARNED, MOVED), (LEARNED6, MOVED6)])
def test_routes_that_we_write_are_not_told_to_us(node: World, first: Route, second: Route) -> None:
    marker = route("192.168.99.0/26", via="10.0.0.8", dev="tunl0", onlink=True, proto=4)

    async def act() -> None:
        operations = (AddRoute(first), ReplaceRoute(first, second), DeleteRoute(second))
        assert not await node.kernel.apply(operations)
        node.append(marker)

    events = watch(node, act, until=lambda e: e == RouteChanged(marker, is_present=True))

    assert [e for e in events if isinstance(e, RouteChanged)] == [
        RouteChanged(marker, is_present=True)
    ]


def test_what_others_do_to_routes_of_ours_is_told(node: World) -> None:
    async def act() -> None:
        await node.kernel.apply([AddRoute(LEARNED)])
        node.delete(LEARNED)

    assert watch(node, act, until=lambda e: e == RouteChanged(LEARNED, is_present=False))


@pytest.mark.parametrize(
    ("text", "priority"), [("10.66.0.1/24", 0), ("fd66::1/64", IPV6_CONNECTED_PRIORITY)]
)
def test_routes_that_go_with_an_address_that_we_delete_are_told(
    node: World, text: str, priority: int
) -> None:
    """The kernel's own doing, though we had the address deleted."""
    own = Address("tunl0", ip_interface(text))
    connected = RouteKey(own.interface.network, priority=priority)

    async def act() -> None:
        await node.kernel.apply([AddAddress(own), DeleteAddress(own)])

    def is_gone(event: KernelEvent) -> bool:
        match event:
            case RouteChanged(route=told, is_present=is_present):
                return told.key == connected and not is_present
            case _:
                return False

    assert watch(node, act, until=is_gone)


def test_rename_is_a_link_gone_and_a_link_new(node: World) -> None:
    node.set_up("tunl0", is_up=False)

    events = watch(
        node,
        outside(lambda: node.rename("tunl0", to="tunl1")),
        until=lambda e: isinstance(e, LinkChanged) and e.link.name == "tunl1",
    )

    assert LinkGone("tunl0") in events


def test_closing_ends_the_events(node: World) -> None:
    async def run() -> None:
        events = node.kernel.events()
        waiting = asyncio.ensure_future(anext(aiter(events)))
        await asyncio.sleep(0)
        node.kernel.close()
        with pytest.raises(EventsLost):
            await waiting

    asyncio.run(run())
