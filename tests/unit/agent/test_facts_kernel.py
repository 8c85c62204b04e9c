"""What each event of the kernel makes dirty: too much would cost time."""

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from pycni.agent.dirty import Dirty
from pycni.agent.facts import Facts
from pycni.agent.messages import EndpointChanged, KernelTold, SysctlsRead
from pycni.model.endpoints import GATEWAY_V6, EndpointState
from pycni.model.network import (
    Address,
    AddressChanged,
    KernelState,
    Link,
    LinkChanged,
    LinkGone,
    NextHop,
    Route,
    RouteChanged,
    RouteKey,
    RulesetChanged,
)
from pycni.plan.inputs import Inputs, Settings
from tests.unit.agent.node_facts import ETH0, POD, TUNNEL, UNDERLAY, VETH, dirty, facts, keys
from tests.unit.plan.samples import pod


def test_before_the_first_snapshot_events_say_nothing() -> None:
    made = Facts(Inputs(Settings("node-0")))

    assert not made.feed(KernelTold(LinkGone("eth0")), now=0.0)
    assert not made.feed(SysctlsRead({"net.ipv4.ip_forward": "0"}), now=0.0)


def test_a_pods_interface_concerns_the_pods_routes_too() -> None:
    found = dirty(KernelTold(LinkChanged(replace(VETH, is_up=False))))

    assert found == Dirty(keys=keys("192.168.39.193/32"), links={"cali1"})


def test_the_interface_of_an_unfinished_pod_concerns_nobody() -> None:
    unfinished = EndpointChanged(POD.key, replace(POD, state=EndpointState.INTENT))

    assert not dirty(KernelTold(LinkChanged(replace(VETH, is_up=False))), unfinished)


def test_a_pods_lost_gateway_concerns_its_host_end_alone() -> None:
    lost = KernelTold(AddressChanged(Address("cali1", GATEWAY_V6), is_present=False))
    stranger = KernelTold(AddressChanged(Address("eth0", GATEWAY_V6), is_present=False))
    unfinished = EndpointChanged(POD.key, replace(POD, state=EndpointState.INTENT))

    assert dirty(lost) == Dirty(links={"cali1"})
    assert not dirty(lost, unfinished)
    assert not dirty(stranger)


def routed(veth: str, *, present: bool = True) -> KernelTold:
    route = Route(RouteKey(ip_network("192.168.39.200/32")), next_hops=frozenset({NextHop(veth)}))
    return KernelTold(RouteChanged(route, is_present=present))


def test_a_route_is_looked_at_once() -> None:
    assert dirty(routed("cali1")) == Dirty(keys=keys("192.168.39.200/32"))
    assert not dirty(routed("cali1"), routed("cali1"))


def test_a_route_to_an_unfinished_pod_is_left_to_whoever_makes_it() -> None:
    new = pod(veth="cali2", container="two", state=EndpointState.INTENT)
    known = EndpointChanged(new.key, new)

    assert not dirty(routed("cali2"), known)
    assert dirty(routed("cali2", present=False), known, routed("cali2")).keys


def test_a_strangers_interface_concerns_nobody() -> None:
    assert not dirty(KernelTold(LinkChanged(Link("docker0", 9, is_up=True))))


@pytest.mark.parametrize(
    "event",
    [
        LinkChanged(replace(TUNNEL, is_up=False)),
        LinkChanged(replace(ETH0, is_up=False)),
        AddressChanged(Address("tunl0", ip_interface("192.168.39.192/32")), is_present=False),
    ],
)
def test_an_important_loss_calls_for_a_snapshot(event: LinkChanged | AddressChanged) -> None:
    assert dirty(KernelTold(event)).is_doubtful


@pytest.mark.parametrize("link", [ETH0, TUNNEL])
def test_an_important_link_that_returns_calls_for_a_snapshot(link: Link) -> None:
    down = KernelTold(LinkChanged(replace(link, is_up=False)))

    assert dirty(KernelTold(LinkChanged(link)), down).is_doubtful


def test_an_underlay_that_changes_concerns_every_learned_path() -> None:
    lost = KernelTold(AddressChanged(UNDERLAY, is_present=False))

    assert dirty(lost).is_all
    assert dirty(KernelTold(AddressChanged(UNDERLAY, is_present=True)), lost).is_all


def test_an_underlay_that_loses_its_carrier_concerns_every_learned_path() -> None:
    lost = KernelTold(LinkChanged(replace(ETH0, has_carrier=False)))

    assert dirty(lost).is_all
    assert dirty(KernelTold(LinkChanged(ETH0)), lost).is_all
    assert not dirty(KernelTold(LinkChanged(replace(TUNNEL, is_up=False)))).is_all


@pytest.mark.parametrize("is_present", [True, False])
def test_any_address_concerns_what_nobody_else_may_announce(*, is_present: bool) -> None:
    address = Address("eth1", ip_interface("192.168.84.129/26"))

    found = dirty(KernelTold(AddressChanged(address, is_present=is_present)))

    assert found.keys == keys("192.168.84.129/32", "192.168.84.128/26")
    assert not found.is_all


def test_our_nftables_table_concerns_itself() -> None:
    assert dirty(KernelTold(RulesetChanged(None))) == Dirty(is_other=True)


def test_sysctls_that_are_as_known_say_nothing() -> None:
    read = SysctlsRead({"net.ipv4.ip_forward": "0"})

    assert dirty(read) == Dirty(is_other=True)
    assert not dirty(read, read)


def test_what_ipv6_brings_by_itself_concerns_nobody() -> None:
    key = RouteKey(ip_network("fe80::/64"), priority=256)
    link_local = Route(key, next_hops=frozenset({NextHop("cali1")}))
    address = Address("cali1", ip_interface("fe80::1/64"))
    made = facts()
    made.snapshot(KernelState(addresses={address}, routes={key: (link_local,)}), now=0.0)

    assert made.have == KernelState()
    assert not made.feed(KernelTold(RouteChanged(link_local, is_present=True)), now=0.0)
    assert not made.feed(KernelTold(AddressChanged(address, is_present=True)), now=0.0)


def test_an_underlay_may_have_link_local_ipv4_addresses() -> None:
    made = facts()
    address = Address("eth0", ip_interface("169.254.16.7/16"))

    made.snapshot(KernelState(addresses={address}), now=0.0)

    assert made.inputs.addresses == {address}
    assert made.feed(KernelTold(AddressChanged(address, is_present=False)), now=0.0)
    assert made.inputs.addresses == set()
