"""What every implementation of the `Kernel` door does."""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Protocol, TypeVar

import pytest

from pycni.errors import EventsLost
from pycni.model.network import (
    IPV6_DEFAULT_PRIORITY,
    AddAddress,
    Address,
    AddressChanged,
    AddRoute,
    CreateTunnel,
    DeleteAddress,
    DeleteLink,
    DeleteRoute,
    DeleteRuleset,
    Failure,
    KernelEvent,
    KernelState,
    LinkChanged,
    LinkGone,
    NextHop,
    Op,
    ReplaceRoute,
    Route,
    RouteChanged,
    RouteKey,
    RouteType,
    RulesetChanged,
    Scope,
    SetLink,
    SetRuleset,
    SetSysctl,
    Tunnel,
)
from pycni.plan.iproute import route_text
from pycni.plan.nat import NatInputs, render
from pycni.ports import Kernel

T = TypeVar("T")


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


@pytest.fixture
def node(world: World) -> World:
    """A node with an uplink and a tunnel."""
    for name, addresses in (
        ("eth0", ("10.0.0.1/20", "fd00::1/64")),
        ("tunl0", ("192.168.0.1/32",)),
    ):
        world.add_link(name)
        for address in addresses:
            world.add_address(name, address)
    return world


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
        async with asyncio.timeout(5):
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


# --- reading ------------------------------------------------------------------------------------


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


# --- routes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [LEARNED, BLACKHOLE, LEARNED6, BLACKHOLE6], ids=route_text)
def test_route_comes_and_goes(node: World, ours: Route) -> None:
    assert apply(node, AddRoute(ours)) == []
    assert table(node, ours.key) == lines(ours)

    assert apply(node, DeleteRoute(ours)) == []
    assert table(node, ours.key) == []
    assert apply(node, DeleteRoute(ours)) == []


@pytest.mark.parametrize(
    ("strangers", "ours"),
    [(STRANGERS, LEARNED), (STRANGERS, BLACKHOLE), (STRANGERS6, LEARNED6)],
)
def test_adding_never_touches_a_strangers_route(node: World, strangers: Route, ours: Route) -> None:
    node.append(strangers)

    failures = apply(node, AddRoute(ours))

    assert codes(failures) == [errno.EEXIST]
    assert failures[0].message.startswith("cannot ")
    assert table(node, ours.key) == lines(strangers)


def test_a_failing_operation_does_not_stop_the_others(node: World) -> None:
    other = route("192.168.1.0/26", via="10.0.0.9", dev="tunl0", onlink=True)
    unreachable = route("192.168.2.0/26", via="172.16.0.1", dev="tunl0")

    failures = apply(node, AddRoute(LEARNED), AddRoute(LEARNED), AddRoute(unreachable),
                     SetLink("absent", 1400), AddRoute(other))  # fmt: skip

    assert len(failures) == 3
    assert table(node, LEARNED.key) == lines(LEARNED)
    assert table(node, other.key) == lines(other)


def test_onlink_is_needed_for_a_gateway_that_is_not_on_the_link(node: World) -> None:
    without = route(BLOCK, via="10.0.0.9", dev="tunl0")

    assert codes(apply(node, AddRoute(without))) == [errno.ENETUNREACH]
    assert apply(node, AddRoute(LEARNED)) == []


def test_unknown_interface_fails_to_add_and_succeeds_to_delete(node: World) -> None:
    lost = route(BLOCK, dev="absent")

    assert codes(apply(node, AddRoute(lost))) == [errno.ENODEV]
    assert apply(node, DeleteRoute(lost)) == []


@pytest.mark.parametrize("other", [MOVED, STRANGERS, BLACKHOLE], ids=route_text)
def test_deletion_spares_another_route_of_the_same_key(node: World, other: Route) -> None:
    node.append(other)
    node.append(LEARNED)

    assert apply(node, DeleteRoute(LEARNED)) == []
    assert table(node, LEARNED.key) == lines(other)


def test_deletion_of_an_ipv6_blackhole_spares_a_unicast_route(node: World) -> None:
    node.append(LEARNED6)

    assert apply(node, DeleteRoute(BLACKHOLE6)) == []
    assert table(node, LEARNED6.key) == lines(LEARNED6)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (LEARNED, MOVED),
        (LEARNED, replace(LEARNED, mtu=1400)),
        (replace(LEARNED, mtu=1400), LEARNED),
        (LEARNED, replace(LEARNED, protocol=80)),
        (LEARNED, BLACKHOLE),
        (BLACKHOLE, LEARNED),
        (LEARNED, LEARNED),
        (LEARNED6, MOVED6),
        (LEARNED6, replace(LEARNED6, mtu=1400)),
        (LEARNED6, BLACKHOLE6),
        (BLACKHOLE6, LEARNED6),
    ],
)
def test_replacing_our_own_route(node: World, old: Route, new: Route) -> None:
    apply(node, AddRoute(old))

    assert apply(node, ReplaceRoute(old, new)) == []
    assert table(node, new.key) == lines(new)
    assert apply(node, ReplaceRoute(old, new)) == []
    assert table(node, new.key) == lines(new)


@pytest.mark.parametrize("is_first", [True, False])
def test_replacing_spares_a_strangers_ipv4_route(node: World, *, is_first: bool) -> None:
    for each in (STRANGERS, LEARNED) if is_first else (LEARNED, STRANGERS):
        node.append(each)

    assert apply(node, ReplaceRoute(LEARNED, MOVED)) == []
    assert table(node, LEARNED.key) == lines(STRANGERS, MOVED)


def test_replacing_refuses_where_a_stranger_has_an_ipv6_route(node: World) -> None:
    blackhole = replace(BLACKHOLE6, protocol=4)
    node.append(blackhole)
    node.append(LEARNED6)

    assert codes(apply(node, ReplaceRoute(LEARNED6, MOVED6))) == [errno.EEXIST]
    assert sorted(table(node, LEARNED6.key)) == sorted(lines(blackhole, LEARNED6))


def test_refused_replacement_leaves_the_old_route(node: World) -> None:
    apply(node, AddRoute(LEARNED))
    bad = route(BLOCK, via="172.16.0.1", dev="tunl0")

    assert codes(apply(node, ReplaceRoute(LEARNED, bad))) == [errno.ENETUNREACH]
    assert table(node, LEARNED.key) == lines(LEARNED)


@pytest.mark.parametrize(("old", "new"), [(LEARNED, MOVED), (LEARNED6, MOVED6),
                                          (LEARNED, replace(LEARNED, mtu=1400))])  # fmt: skip
def test_replacing_a_route_that_is_gone_adds_the_new_one(
    node: World, old: Route, new: Route
) -> None:
    assert apply(node, ReplaceRoute(old, new)) == []
    assert table(node, new.key) == lines(new)


def test_multipath_routes_come_change_and_go(node: World) -> None:
    one, two = (
        NextHop("tunl0", ip_address("10.0.0.9"), is_onlink=True),
        NextHop("eth0", ip_address("10.0.0.8"), weight=3),
    )
    three = NextHop("eth0", ip_address("10.0.0.5"))
    both, others = route(BLOCK, one, two), route(BLOCK, two, three)

    assert apply(node, AddRoute(both), ReplaceRoute(both, others)) == []
    assert table(node, both.key) == lines(others)
    assert apply(node, DeleteRoute(others)) == []
    assert table(node, both.key) == []


# --- what vanishes ------------------------------------------------------------------------------


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


# --- links, addresses, sysctls ------------------------------------------------------------------


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


# --- events -------------------------------------------------------------------------------------


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


# --- our nftables table -------------------------------------------------------------------------


def test_ruleset_is_set_watched_and_deleted(node: World) -> None:
    unavailable = node.snapshot().nat_unavailable
    if unavailable is not None:
        pytest.skip(unavailable.reason)
    first = render(NatInputs())
    second = render(NatInputs(nodes=frozenset({ip_address("10.0.0.1")})))

    assert apply(node, SetRuleset(first)) == []
    assert node.snapshot().ruleset == first.digest
    assert apply(node, SetRuleset(second), SetRuleset(second)) == []
    assert node.snapshot().ruleset == second.digest

    watch(node, outside(node.tamper_with_ruleset), until=lambda e: isinstance(e, RulesetChanged))
    assert node.snapshot().ruleset not in {second.digest, None}
    told = watch(node, outside(node.delete_ruleset), until=lambda e: isinstance(e, RulesetChanged))
    assert told[-1] == RulesetChanged(None)
    assert apply(node, SetRuleset(first), DeleteRuleset(), DeleteRuleset()) == []
    assert node.snapshot().ruleset is None
