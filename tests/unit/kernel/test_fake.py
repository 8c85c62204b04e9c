"""The switches of the fakes, which tests of other layers lean on."""

import asyncio
import errno
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from pycni.errors import EventsLost, PycniError
from pycni.kernel.fake import FakeKernel
from pycni.kernel.fake_podnet import FakePodNet
from pycni.kernel.fake_tables import Refused
from pycni.model.network import (
    AddAddress,
    Address,
    AddRoute,
    NatUnavailable,
    NextHop,
    Route,
    RouteChanged,
    RouteKey,
    RouteType,
    Ruleset,
    SetLink,
    SetRuleset,
)
from pycni.ports import PlugRequest

BLACKHOLE = Route(RouteKey(ip_network("10.0.0.0/26")), RouteType.BLACKHOLE, protocol=12)


def test_planned_failures_hit_only_their_type_and_number() -> None:
    async def run() -> list[list[int]]:
        kernel = FakeKernel()
        kernel.fail_next(AddRoute, errno.ENOBUFS, times=1)
        seen = []
        for _ in range(2):
            failures = await kernel.apply([SetLink("lo", 65536), AddRoute(BLACKHOLE)])
            seen.append([failure.errno for failure in failures])
        assert kernel.applied.count(AddRoute(BLACKHOLE)) == 2
        return seen

    assert asyncio.run(run()) == [[errno.ENOBUFS], []]


def test_lost_events_end_the_iteration() -> None:
    async def run() -> None:
        kernel = FakeKernel()
        events = kernel.events()
        assert kernel.is_subscribed()
        kernel.add_link("eth0")
        kernel.lose_events()
        with pytest.raises(EventsLost):
            await anext(aiter(events))
        assert not kernel.is_subscribed()

    asyncio.run(run())


def test_held_events_come_when_they_are_let_go_and_end_with_the_subscription() -> None:
    async def run() -> None:
        kernel = FakeKernel()
        events = kernel.events()
        kernel.hold_events()
        first = asyncio.ensure_future(anext(aiter(events)))
        kernel.append_route(BLACKHOLE)
        await asyncio.sleep(0)
        assert not first.done()
        kernel.hold_events(is_held=False)
        assert await first == RouteChanged(BLACKHOLE, is_present=True)

        kernel.hold_events()
        kernel.delete_route(BLACKHOLE)
        kernel.close()
        kernel.hold_events()
        with pytest.raises(EventsLost):
            await anext(aiter(events))

    asyncio.run(run())


def test_overwriting_with_the_first_is_no_change_and_with_another_refused() -> None:
    kernel = FakeKernel()
    kernel.append_route(replace(BLACKHOLE, protocol=4))
    kernel.append_route(BLACKHOLE)
    before = kernel.routes()

    kernel.overwrite_route(before[0])
    with pytest.raises(Refused):
        kernel.overwrite_route(BLACKHOLE)

    assert kernel.routes() == before


def test_strangers_overwrite_flush_and_delete() -> None:
    kernel = FakeKernel()
    theirs = replace(BLACKHOLE, protocol=4)
    kernel.append_route(BLACKHOLE)
    kernel.overwrite_route(theirs)
    assert kernel.routes() == [theirs]

    kernel.flush_routes(protocol=12)
    assert kernel.routes() == [theirs]
    kernel.flush_routes(protocol=4)
    assert kernel.routes() == []
    with pytest.raises(KeyError):
        kernel.delete_route(theirs)


def test_a_rename_takes_addresses_and_routes_along() -> None:
    kernel = FakeKernel()
    kernel.add_link("eth0")
    kernel.add_address(Address("eth0", ip_interface("10.0.0.1/24")))
    kernel.rename_link("eth0", to="eth1")

    assert [route.oifs for route in kernel.routes()] == [frozenset({"eth1"})]
    kernel.delete_address(Address("eth1", ip_interface("10.0.0.1/24")))
    assert kernel.routes() == []


def test_a_multipath_route_lives_as_long_as_one_of_its_links() -> None:
    kernel = FakeKernel()
    for name in ("eth0", "eth1"):
        kernel.add_link(name)
    hops = frozenset({NextHop(name, ip_address("10.9.0.1"), True) for name in ("eth0", "eth1")})
    kernel.append_route(Route(RouteKey(ip_network("10.5.0.0/16")), next_hops=hops))

    kernel.change_link("eth0", is_up=False)
    assert len(kernel.routes()) == 1
    kernel.change_link("eth1", is_up=False)
    assert kernel.routes() == []


def test_sources_must_be_local() -> None:
    async def run() -> list[int]:
        kernel = FakeKernel()
        kernel.add_link("eth0")
        hop = NextHop("eth0", ip_address("10.9.0.1"), is_onlink=True)
        key = RouteKey(ip_network("10.5.0.0/16"))
        route = Route(key, next_hops=frozenset({hop}), src=ip_address("10.0.0.1"))
        address = Address("eth0", ip_interface("10.0.0.1/32"))
        failures = await kernel.apply([AddRoute(route), AddAddress(address), AddRoute(route)])
        kernel.delete_address(address)
        assert kernel.routes() == []
        return [failure.errno for failure in failures]

    assert asyncio.run(run()) == [errno.EINVAL]


def test_nat_may_be_unavailable() -> None:
    async def run() -> int:
        kernel = FakeKernel()
        kernel.nat_unavailable = NatUnavailable("no nft here")
        (failure,) = await kernel.apply([SetRuleset(Ruleset("table", "digest"))])
        assert (await kernel.snapshot([])).nat_unavailable == kernel.nat_unavailable
        return failure.errno

    assert asyncio.run(run()) == errno.EOPNOTSUPP


def test_a_failed_plug_leaves_nothing() -> None:
    kernel = FakeKernel()
    podnet = FakePodNet(kernel)
    podnet.fail_next(PycniError("the kernel is out of sorts"))
    request = PlugRequest(
        netns_fd=1,
        ifname="eth0",
        host_veth="cali0",
        alias="pycni a/b/eth0",
        addresses=(ip_interface("10.0.0.1/32"),),
        mtu=1480,
        route_protocol=3,
    )

    with pytest.raises(PycniError, match="out of sorts"):
        podnet.plug(request)

    assert kernel.link("cali0") is None
    podnet.plug(request)
    kernel.delete_link("cali0")
    assert "host interface cali0 does not exist" in podnet.check(request)
    assert kernel.routes() == []
    podnet.close()
