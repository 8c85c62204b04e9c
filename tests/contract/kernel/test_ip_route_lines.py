"""`ip route`'s lines: our printer over a snapshot against iproute2 over the same kernel.

On the fake the same routes go the same way, and must give what the real kernel's gave.
"""

import asyncio
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycni.kernel.fake import FakeKernel
from pycni.kernel.linux import LinuxKernel
from pycni.model.network import (
    AddAddress,
    Address,
    AddRoute,
    DeleteRoute,
    IPInterface,
    IPNetwork,
    KernelState,
    NextHop,
    Route,
    RouteKey,
    RouteType,
    Scope,
)
from pycni.plan.iproute import ip_route_lines
from pycni.ports import Kernel

REJECTING = (RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT)


@st.composite
def prefixes_v4(draw: st.DrawFn) -> IPNetwork:
    # Few addresses, so that many prefixes share one and contain each other.
    address = (192 << 24) + (draw(st.integers(0, 7)) << 21)
    length = draw(st.sampled_from([0, 8, 11, 12, 16, 24, 26, 31, 32]))
    return IPv4Network((address, length), strict=False)


@st.composite
def prefixes_v6(draw: st.DrawFn) -> IPNetwork:
    address = (0xFD02 << 112) + (draw(st.integers(0, 7)) << 109)
    length = draw(st.sampled_from([0, 16, 19, 20, 64, 122, 127, 128]))
    return IPv6Network((address, length), strict=False)


def hops(version: int) -> st.SearchStrategy[frozenset[NextHop]]:
    def gateway(number: int) -> IPv4Address | IPv6Address:
        base = IPv4Address("10.0.0.0") if version == 4 else IPv6Address("fd00::")
        return base + number

    def hop(oif: str) -> st.SearchStrategy[NextHop]:
        # IPv6 lets no gateway be on the link of another device, `onlink` or not.
        onlink = st.just(value=True) if oif == "tunl0" else st.booleans()
        return st.builds(
            NextHop,
            oif=st.just(oif),
            gateway=st.integers(2, 9).map(gateway),
            is_onlink=onlink,
        )

    devices = ["eth0", "tunl0"] if version == 4 else ["eth0"]
    single = st.sampled_from(devices).flatmap(hop).map(lambda one: frozenset({one}))
    direct = st.just(frozenset({NextHop("eth0")}))
    several = st.lists(
        st.tuples(st.sampled_from(devices).flatmap(hop), st.integers(1, 4)),
        min_size=2,
        max_size=3,
        unique_by=lambda pair: pair[0].gateway,
    ).map(lambda pairs: frozenset(NextHop(h.oif, h.gateway, h.is_onlink, w) for h, w in pairs))
    return st.one_of(single, direct, several)


@st.composite
def routes(draw: st.DrawFn, *, version: int) -> Route:
    dst = draw(prefixes_v4() if version == 4 else prefixes_v6())
    kind = draw(st.sampled_from([RouteType.UNICAST] * 4 + list(REJECTING)))
    ways = draw(hops(version)) if kind is RouteType.UNICAST else frozenset[NextHop]()
    is_direct = bool(ways) and all(hop.gateway is None for hop in ways)
    source = IPv4Address("10.0.0.1") if version == 4 else IPv6Address("fd00::1")
    return Route(
        RouteKey(
            dst,
            tos=draw(st.sampled_from([0, 0, 0, 8])) if version == 4 else 0,
            priority=draw(st.sampled_from([0, 50, 700] if version == 4 else [1024, 50])),
        ),
        kind,
        Scope.LINK if is_direct and version == 4 else Scope.UNIVERSE,
        ways,
        src=draw(st.sampled_from([None, source])) if ways else None,
        protocol=draw(st.sampled_from([3, 4, 12, 80, 99, 186, 200])),
        mtu=draw(st.sampled_from([None, 1400])) if ways else None,
    )


def distinct(version: int) -> st.SearchStrategy[list[Route]]:
    return st.lists(routes(version=version), max_size=12, unique_by=lambda route: route.key)


def addresses() -> list[IPInterface]:
    from ipaddress import ip_interface

    return [ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")]


async def prepare(kernel: Kernel) -> None:
    wanted = [AddAddress(Address("eth0", each)) for each in addresses()]
    assert list(await kernel.apply(wanted)) == []


def fake_lines(wanted: list[Route], *, version: int) -> list[str]:
    async def run() -> list[str]:
        kernel = FakeKernel()
        for name in ("eth0", "tunl0"):
            kernel.add_link(name)
        await prepare(kernel)
        assert list(await kernel.apply([AddRoute(each) for each in wanted])) == []
        return ip_route_lines(await kernel.snapshot([]), family=version)

    return asyncio.run(run())


class RealWorld(Protocol):
    """The real kernel in a namespace of its own."""

    kernel: LinuxKernel

    def add_link(self, name: str) -> None: ...
    def ip_route(self, family: int) -> list[str]: ...


@pytest.mark.parametrize("version", [4, 6])
def test_lines_are_those_of_iproute2(real_world: RealWorld, version: int) -> None:
    real = real_world.kernel
    for name in ("eth0", "tunl0"):
        real_world.add_link(name)
    asyncio.run(prepare(real))

    async def program(wanted: list[Route]) -> KernelState:
        assert list(await real.apply([AddRoute(each) for each in wanted])) == []
        return await real.snapshot([])

    @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
    @given(distinct(version))
    def check(wanted: list[Route]) -> None:
        try:
            state = asyncio.run(program(wanted))
            expected = real_world.ip_route(version)

            assert ip_route_lines(state, family=version) == expected
            assert fake_lines(wanted, version=version) == expected
        finally:
            left = asyncio.run(real.apply([DeleteRoute(each) for each in wanted]))
        assert list(left) == []
        assert len(real_world.ip_route(version)) == 1

    check()
