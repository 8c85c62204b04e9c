"""The picture of the kernel, kept by events and by our own operations."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pycni.model.endpoints import GATEWAY_V6
from pycni.model.linklayer import FdbEntry, LinkLayerEntry, NeighbourEntry
from pycni.model.network import (
    PROTOCOL_KERNEL,
    AddAddress,
    Address,
    AddressChanged,
    AddRoute,
    DeleteAddress,
    DeleteNeighbour,
    DeleteRoute,
    DeleteRuleset,
    KernelState,
    Link,
    LinkChanged,
    LinkGone,
    NeighbourChanged,
    NextHop,
    Op,
    ReplaceRoute,
    Route,
    RouteChanged,
    RouteKey,
    RulesetChanged,
    SetLink,
    SetNeighbour,
    SetRuleset,
    SetSysctl,
)
from pycni.plan.iproute import route_text
from pycni.plan.mirror import NOTHING, Effect, apply_event, apply_op, leave_out_link_local
from pycni.plan.prefixes import route_key
from tests.unit.plan.test_delta import RULESET, UP, blackhole, have, learned, pod_route

FOREIGN = learned(dev="eth0", protocol=4)
HOLE, LEARNED, POD = blackhole(), learned(), pod_route()


def table(state: KernelState) -> list[str]:
    return [route_text(r) for routes in state.routes.values() for r in routes]


def told(route: Route, *, present: bool = True, replacing: bool = False) -> RouteChanged:
    return RouteChanged(route, is_present=present, is_replacement=replacing)


# --- events -------------------------------------------------------------------------------------


def test_a_new_route_is_in_the_picture_once() -> None:
    state = have()

    effects = [apply_event(state, told(HOLE)), apply_event(state, told(HOLE))]

    assert table(state) == ["blackhole 192.168.39.192/26 proto bird"]
    assert effects == [Effect(keys={HOLE.key}), NOTHING]


def test_a_deleted_route_leaves_the_others_of_its_key() -> None:
    state = have(FOREIGN, LEARNED)

    apply_event(state, told(LEARNED, present=False))

    assert state.routes == {FOREIGN.key: (FOREIGN,)}


def test_a_deleted_route_that_nobody_knew_changes_nothing() -> None:
    state = have()

    effect = apply_event(state, told(LEARNED, present=False))

    assert state.routes == {}
    assert effect is NOTHING


def test_a_replacement_takes_the_place_of_the_first() -> None:
    state = have(FOREIGN, LEARNED)
    other = learned(via="10.0.0.9")

    apply_event(state, told(other, replacing=True))

    assert state.routes[FOREIGN.key] == (other, LEARNED)


def test_the_late_word_of_our_own_replacement_doubles_nothing() -> None:
    state = have(FOREIGN, LEARNED)

    apply_event(state, told(LEARNED, replacing=True))

    assert state.routes[FOREIGN.key] == (LEARNED,)


def test_a_link_that_is_gone_takes_its_routes_along() -> None:
    state = have(HOLE, LEARNED, POD)

    effect = apply_event(state, LinkGone("cali1"))

    assert effect == Effect(keys={POD.key}, link="cali1")
    assert table(state) == [route_text(HOLE), route_text(LEARNED)]
    assert "cali1" not in state.links


def test_a_link_that_goes_down_may_have_lost_routes_silently() -> None:
    state = have(FOREIGN, LEARNED)
    down = Link("tunl0", 3, "ipip", mtu=1480, is_up=False)

    effect = apply_event(state, LinkChanged(down))

    assert effect == Effect(keys={LEARNED.key}, link="tunl0", lost_routes_by="tunl0")
    assert state.routes == {FOREIGN.key: (FOREIGN,)}


def test_a_link_that_comes_up_has_returned() -> None:
    state = have(LEARNED, links={**UP, "tunl0": Link("tunl0", 3, "ipip", mtu=1480)})

    effect = apply_event(state, LinkChanged(UP["tunl0"]))

    assert effect == Effect(keys={LEARNED.key}, link="tunl0", returned="tunl0")


def test_a_new_link_that_is_down_is_only_noted() -> None:
    state = have()

    effect = apply_event(state, LinkChanged(Link("cali7", 7)))

    assert effect == Effect(link="cali7")
    assert state.links["cali7"].index == 7


def test_a_link_that_changed_otherwise_keeps_its_routes() -> None:
    state = have(LEARNED)

    effect = apply_event(state, LinkChanged(Link("tunl0", 3, "ipip", mtu=1400, is_up=True)))

    assert effect == Effect(link="tunl0")
    assert table(state) == [route_text(LEARNED)]


def test_a_link_told_again_is_no_change() -> None:
    assert apply_event(have(), LinkChanged(UP["eth0"])) is NOTHING


def test_addresses_come_and_go_with_what_hangs_on_them() -> None:
    state = have()
    address = Address("eth0", ip_interface("10.0.0.1/24"))

    came = apply_event(state, AddressChanged(address, is_present=True))
    there = set(state.addresses)
    went = apply_event(state, AddressChanged(address, is_present=False))

    assert there == {address}
    assert state.addresses == set()
    assert came == Effect(is_address=True)
    assert went == Effect(is_address=True, lost_routes_by="eth0")


def test_link_local_addresses_are_nobodys_business() -> None:
    state = have()
    address = Address("cali1", ip_interface("fe80::1/64"))

    assert apply_event(state, AddressChanged(address, is_present=True)) is NOTHING
    assert apply_event(state, AddressChanged(address, is_present=False)) is NOTHING
    assert state.addresses == set()


def test_a_host_end_that_loses_its_pods_gateway_is_noted_until_it_is_back() -> None:
    gateway = Address("cali1", GATEWAY_V6)
    state = have(gateways={"cali1"})

    assert apply_event(state, AddressChanged(gateway, is_present=True)) is NOTHING
    assert apply_event(state, AddressChanged(gateway, is_present=False)) == Effect(link="cali1")
    assert (state.gateways, state.lost_gateways) == (set(), {"cali1"})
    apply_op(state, AddAddress(gateway))
    assert (state.gateways, state.lost_gateways) == ({"cali1"}, set())


def test_a_host_end_that_is_gone_has_lost_no_gateway() -> None:
    state = have(gateways={"cali2"})
    apply_event(state, AddressChanged(Address("cali1", GATEWAY_V6), is_present=False))

    apply_event(state, LinkGone("cali1"))
    apply_event(state, LinkGone("cali2"))

    assert state.gateways == state.lost_gateways == set()


def test_an_address_that_is_known_may_be_by_our_own_operation_and_counts() -> None:
    address = Address("tunl0", ip_interface("192.168.39.192/32"))
    state = have(addresses={address})

    assert apply_event(state, AddressChanged(address, is_present=True)) == Effect(is_address=True)


LINK_LOCAL = Route(
    RouteKey(ip_network("fe80::/64"), priority=256),
    next_hops=frozenset({NextHop("cali1")}),
    protocol=PROTOCOL_KERNEL,
)


@pytest.mark.parametrize("is_present", [True, False])
def test_link_local_routes_are_nobodys_business(*, is_present: bool) -> None:
    state = have(POD)

    assert apply_event(state, told(LINK_LOCAL, present=is_present)) is NOTHING
    assert state.routes == {POD.key: (POD,)}


def test_a_snapshot_is_reduced_to_what_events_keep_true() -> None:
    underlay = Address("eth0", ip_interface("10.0.0.1/24"))
    state = have(
        POD, LINK_LOCAL, addresses={underlay, Address("cali1", ip_interface("fe80::1/64"))}
    )

    leave_out_link_local(state)

    assert state.routes == {POD.key: (POD,)}
    assert state.addresses == {underlay}
    assert state.gateways == set()


def test_host_ends_with_the_pods_ipv6_gateway_are_noted_apart() -> None:
    gateway = Address("cali1", GATEWAY_V6)
    state = have(POD, addresses={gateway, Address("eth0", GATEWAY_V6)})

    leave_out_link_local(state)
    apply_op(state, AddAddress(Address("cali2", GATEWAY_V6)))

    assert state.gateways == {"cali1", "cali2", "eth0"}
    assert state.addresses == set()


def test_what_happens_to_our_table_is_noted() -> None:
    state = have(ruleset="digest_1")

    assert apply_event(state, RulesetChanged(None)) == Effect(is_ruleset=True)
    assert state.ruleset is None


# --- our own operations -------------------------------------------------------------------------

ADDRESS = Address("tunl0", ip_interface("192.168.39.192/32"))


def after(op: Op, *routes: Route, **kinds: object) -> KernelState:
    state = have(*routes, **kinds)
    apply_op(state, op)
    return state


def test_an_added_route_is_there_before_its_event() -> None:
    assert table(after(AddRoute(HOLE))) == [route_text(HOLE)]


def test_a_deleted_route_is_gone_before_its_event() -> None:
    assert table(after(DeleteRoute(HOLE), HOLE)) == []


def test_a_replaced_route_stands_behind_the_strangers_of_its_key() -> None:
    new = learned(via="10.0.0.9")

    state = after(ReplaceRoute(old=LEARNED, new=new), LEARNED, FOREIGN)

    assert state.routes[new.key] == (FOREIGN, new)


def test_addresses_follow_our_operations() -> None:
    assert after(AddAddress(ADDRESS)).addresses == {ADDRESS}
    assert after(DeleteAddress(ADDRESS), addresses={ADDRESS}).addresses == set()


def test_settings_follow_our_operations() -> None:
    assert after(SetSysctl("net.ipv4.ip_forward", "1")).sysctls == {"net.ipv4.ip_forward": "1"}
    assert after(SetRuleset(RULESET)).ruleset == "digest_1"
    assert after(DeleteRuleset(), ruleset="digest_1").ruleset is None


def test_links_wait_for_their_event() -> None:
    assert after(SetLink("tunl0", mtu=1)).links == UP


@pytest.mark.parametrize("prefix", ["192.168.0.0/26", "fd00::/122"])
def test_our_keys_are_the_kernels(prefix: str) -> None:
    key = route_key(ip_network(prefix))

    assert key.priority == (1024 if ":" in prefix else 0)


# --- the index of routes by interface -----------------------------------------------------------

NAMES = ("cali1", "cali2", "tunl0")
names = st.sampled_from(NAMES)
any_route = st.builds(
    lambda dst, oifs, gateway: Route(
        RouteKey(ip_network(f"192.168.0.{dst}/32")),
        next_hops=frozenset(NextHop(oif, ip_address(f"10.0.0.{gateway}")) for oif in oifs),
    ),
    st.integers(0, 2),
    st.frozensets(names, max_size=2),
    st.integers(1, 2),
)
Happening = AddRoute | DeleteRoute | ReplaceRoute | LinkChanged | LinkGone | RouteChanged
happenings: st.SearchStrategy[Happening] = st.one_of(
    st.builds(RouteChanged, any_route, st.booleans(), st.booleans()),
    st.builds(lambda name, is_up: LinkChanged(Link(name, 7, is_up=is_up)), names, st.booleans()),
    st.builds(LinkGone, names),
    st.builds(AddRoute, any_route),
    st.builds(DeleteRoute, any_route),
    st.builds(
        lambda old, new: ReplaceRoute(old, Route(old.key, next_hops=new.next_hops)),
        any_route,
        any_route,
    ),
)


def scanned(state: KernelState) -> dict[str, set[RouteKey]]:
    found: dict[str, set[RouteKey]] = {}
    for key, routes in state.routes.items():
        for oif in {hop.oif for route in routes for hop in route.next_hops}:
            found.setdefault(oif, set()).add(key)
    return found


@given(st.lists(any_route, max_size=4), st.lists(happenings, max_size=12))
def test_the_index_by_interface_equals_a_scan(
    there: list[Route], happened: list[Happening]
) -> None:
    state = have(*there)
    apply_event(state, LinkChanged(Link("eth9", 9, is_up=True)))  # the first question makes it

    for one in happened:
        before = scanned(state)
        match one:
            case AddRoute() | DeleteRoute() | ReplaceRoute():
                apply_op(state, one)
            case LinkChanged() | LinkGone() | RouteChanged():
                effect = apply_event(state, one)
                if effect.lost_routes_by or effect.returned or isinstance(one, LinkGone):
                    assert effect.keys == before.get(effect.link or "", set())
        assert state.keys_by_oif == scanned(state)


REMOTE = FdbEntry("vxlan.calico", "66:00:00:00:00:02", ip_address("10.0.0.2"))
NEIGHBOUR = NeighbourEntry("vxlan.calico", ip_address("10.1.0.64"), "66:00:00:00:00:02")


@pytest.mark.parametrize("entry", [REMOTE, NEIGHBOUR], ids=str)
def test_entries_of_a_vxlan_device_come_and_go(entry: LinkLayerEntry) -> None:
    state = KernelState()
    came = NeighbourChanged(entry, is_present=True)
    # As the kernel tells of one that it has forgotten the MAC address of.
    went = NeighbourChanged(replace(entry, is_ours=False), is_present=False)

    assert apply_event(state, came) == Effect(is_neighbour=True)
    assert state.neighbours == {entry.key: entry}
    assert apply_event(state, came) is NOTHING
    assert apply_event(state, went) == Effect(is_neighbour=True)
    assert state.neighbours == {}
    assert apply_event(state, went) is NOTHING


def test_our_own_entries_are_known_before_their_events() -> None:
    state = KernelState()

    apply_op(state, SetNeighbour(REMOTE))
    assert apply_event(state, NeighbourChanged(REMOTE, is_present=True)) is NOTHING
    apply_op(state, DeleteNeighbour(REMOTE))

    assert state.neighbours == {}


def test_entries_go_with_their_device_and_others_stay() -> None:
    other = replace(REMOTE, ifname="flannel.1")
    state = KernelState(neighbours={one.key: one for one in (REMOTE, NEIGHBOUR, other)})

    apply_event(state, LinkGone("vxlan.calico"))

    assert list(state.neighbours.values()) == [other]
