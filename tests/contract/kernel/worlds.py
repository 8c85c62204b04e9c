"""What every kernel under test offers, what tests write into it, and what came of it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address, ip_network
from typing import Protocol

from pycni.model.linklayer import LinkLayerEntry
from pycni.model.network import (
    IPV6_DEFAULT_PRIORITY,
    Failure,
    KernelEvent,
    KernelState,
    NextHop,
    Op,
    Route,
    RouteKey,
    RouteType,
    Scope,
)
from pycni.plan.iproute import route_text
from pycni.ports import Kernel


class World(Protocol):
    """An implementation, and hands that act on the same kernel from outside."""

    @property
    def kernel(self) -> Kernel: ...
    def add_link(self, name: str) -> None: ...
    def set_up(self, name: str, *, is_up: bool) -> None: ...
    def rename(self, name: str, *, to: str) -> None: ...
    def delete_link(self, name: str) -> None: ...
    def add_address(self, name: str, text: str) -> None: ...
    def delete_address(self, name: str, text: str) -> None: ...
    def append(self, route: Route) -> None: ...
    def delete(self, route: Route) -> None: ...
    def set_neighbour(self, entry: LinkLayerEntry) -> None: ...
    def delete_neighbour(self, entry: LinkLayerEntry) -> None: ...
    def tamper_with_ruleset(self) -> None: ...
    def delete_ruleset(self) -> None: ...
    def ip_route(self, family: int) -> list[str]: ...
    def snapshot(self) -> KernelState: ...


def route(
    dst: str,
    *hops: NextHop,
    via: str | None = None,
    dev: str | None = None,
    proto: int = 12,
    onlink: bool = False,
    kind: RouteType = RouteType.UNICAST,
    mtu: int | None = None,
) -> Route:
    """Compose a route of either family."""
    network = ip_network(dst)
    is_v6 = network.version == 6
    if dev is not None:
        hops = (NextHop(dev, ip_address(via) if via else None, onlink),)
    is_direct = not is_v6 and kind is RouteType.UNICAST and all(h.gateway is None for h in hops)
    return Route(
        RouteKey(network, priority=IPV6_DEFAULT_PRIORITY if is_v6 else 0),
        kind,
        Scope.LINK if is_direct else Scope.UNIVERSE,
        frozenset(hops),
        protocol=proto,
        mtu=mtu,
    )


BLOCK = "192.168.84.128/26"
LEARNED = route(BLOCK, via="10.0.0.9", dev="tunl0", onlink=True)
MOVED = route(BLOCK, via="10.0.0.7", dev="tunl0", onlink=True)
STRANGERS = route(BLOCK, via="10.0.0.8", dev="tunl0", onlink=True, proto=4)
BLACKHOLE = route(BLOCK, kind=RouteType.BLACKHOLE)
BLOCK6 = "fd02::/122"
LEARNED6 = route(BLOCK6, via="fd00::9", dev="eth0")
MOVED6 = route(BLOCK6, via="fd00::7", dev="eth0")
STRANGERS6 = route(BLOCK6, via="fd00::8", dev="eth0", proto=4)
BLACKHOLE6 = route(BLOCK6, kind=RouteType.BLACKHOLE)


def apply(world: World, *ops: Op) -> list[Failure]:
    return list(asyncio.run(world.kernel.apply(ops)))


def codes(failures: Sequence[Failure]) -> list[int]:
    return [failure.errno for failure in failures]


def table(world: World, key: RouteKey) -> list[str]:
    return [route_text(r) for r in world.snapshot().routes.get(key, ())]


def lines(*routes: Route) -> list[str]:
    return [route_text(r) for r in routes]


def watch(
    world: World, act: Callable[[], Awaitable[object]], *, until: Callable[[KernelEvent], bool]
) -> list[KernelEvent]:
    """Subscribe, act, and return the events up to the first that `until` accepts."""

    async def run() -> list[KernelEvent]:
        events = world.kernel.events()
        await act()
        seen: list[KernelEvent] = []
        async with asyncio.timeout(20):
            async for event in events:
                seen.append(event)
                if until(event):
                    break
        return seen

    return asyncio.run(run())


def outside(act: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        act()

    return run
