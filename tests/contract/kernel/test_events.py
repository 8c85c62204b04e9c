"""What every implementation of the `Kernel` door does to tell of changes."""

import asyncio

import pytest

from pycni.errors import EventsLost
from pycni.model.network import AddRoute, LinkChanged, LinkGone, RouteChanged
from tests.contract.kernel.worlds import LEARNED, STRANGERS, World, outside, watch


def test_our_own_and_others_routes_are_told(node: World) -> None:
    def act() -> None:
        node.append(STRANGERS)
        node.delete(STRANGERS)

    events = watch(
        node, outside(act), until=lambda e: e == RouteChanged(STRANGERS, is_present=False)
    )

    assert RouteChanged(STRANGERS, is_present=True) in events

    async def add() -> None:
        await node.kernel.apply([AddRoute(LEARNED)])

    assert watch(node, add, until=lambda e: e == RouteChanged(LEARNED, is_present=True))


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
