"""The picture of the kernel, kept by events and by our own operations."""

from ipaddress import ip_interface, ip_network

import pytest

from pycni.model.network import (
    AddAddress,
    Address,
    AddressChanged,
    AddRoute,
    DeleteAddress,
    DeleteRoute,
    DeleteRuleset,
    KernelState,
    Link,
    LinkChanged,
    LinkGone,
    Op,
    ReplaceRoute,
    Route,
    RouteChanged,
    RulesetChanged,
    SetLink,
    SetRuleset,
    SetSysctl,
)
from pycni.plan.inputs import route_key
from pycni.plan.iproute import route_text
from pycni.plan.mirror import Effect, apply_event, apply_op
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
    assert effects == [Effect(keys={HOLE.key})] * 2


def test_a_deleted_route_leaves_the_others_of_its_key() -> None:
    state = have(FOREIGN, LEARNED)

    apply_event(state, told(LEARNED, present=False))

    assert state.routes == {FOREIGN.key: (FOREIGN,)}


def test_a_deleted_route_that_nobody_knew_changes_nothing() -> None:
    state = have()

    apply_event(state, told(LEARNED, present=False))

    assert state.routes == {}


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

    assert effect == Effect(keys={POD.key}, links={"cali1"})
    assert table(state) == [route_text(HOLE), route_text(LEARNED)]
    assert "cali1" not in state.links


def test_a_link_that_goes_down_may_have_lost_routes_silently() -> None:
    state = have(FOREIGN, LEARNED)
    down = Link("tunl0", 3, "ipip", mtu=1480, is_up=False)

    effect = apply_event(state, LinkChanged(down))

    assert effect == Effect(keys={LEARNED.key}, links={"tunl0"}, lost_routes_by="tunl0")
    assert state.routes == {FOREIGN.key: (FOREIGN,)}


def test_a_link_that_comes_up_has_returned() -> None:
    state = have(LEARNED, links={**UP, "tunl0": Link("tunl0", 3, "ipip", mtu=1480)})

    effect = apply_event(state, LinkChanged(UP["tunl0"]))

    assert effect == Effect(keys={LEARNED.key}, links={"tunl0"}, returned=frozenset({"tunl0"}))


def test_a_new_link_that_is_down_is_only_noted() -> None:
    state = have()

    effect = apply_event(state, LinkChanged(Link("cali7", 7)))

    assert effect == Effect(links={"cali7"})
    assert state.links["cali7"].index == 7


def test_a_link_that_changed_otherwise_keeps_its_routes() -> None:
    state = have(LEARNED)

    effect = apply_event(state, LinkChanged(Link("tunl0", 3, "ipip", mtu=1400, is_up=True)))

    assert effect == Effect(links={"tunl0"})
    assert table(state) == [route_text(LEARNED)]


def test_a_link_told_again_is_no_change() -> None:
    assert apply_event(have(), LinkChanged(UP["eth0"])) == Effect()


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

    assert apply_event(state, AddressChanged(address, is_present=True)) == Effect()
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
