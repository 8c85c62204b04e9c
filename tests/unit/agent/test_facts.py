"""What each message makes dirty: too little would leave something broken, too much costs time."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from pycni.agent.facts import WATCHED_KINDS, Dirty, Facts
from pycni.agent.messages import (
    BgpTold,
    Changed,
    Doubt,
    EndpointChanged,
    EndpointsListed,
    KernelTold,
    Listed,
    LookAgain,
    Message,
    SysctlsRead,
)
from pycni.model.bgp import EndOfRib, Family, PathsChanged, PeerUp
from pycni.model.endpoints import EndpointState
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
from pycni.model.resources import (
    AffinityState,
    AllocationAttribute,
    BGPConfiguration,
    BGPPeer,
    Block,
    BlockAffinity,
    Handle,
    IPPool,
    Resource,
    resource_name,
)
from pycni.plan.inputs import Inputs, Settings
from tests.unit.plan.samples import OWN, THEIRS, affinity, node, path, pod, pool

ETH0 = Link("eth0", 2, is_up=True)
TUNNEL = Link("tunl0", 3, "ipip", mtu=1480, is_up=True)
VETH = Link("cali1", 4, "veth", mtu=1480, is_up=True)
UNDERLAY = Address("eth0", ip_interface("10.10.7.20/20"))
POD = pod("192.168.39.193")
ALL = Dirty(is_all=True)


def keys(*prefixes: str) -> set[RouteKey]:
    return {RouteKey(ip_network(prefix)) for prefix in prefixes}


def facts(*messages: Message) -> Facts:
    """Return facts that know node-0, its kernel and a pod."""
    made = Facts(Inputs(Settings("node-0")))
    state = KernelState(
        links={link.name: link for link in (ETH0, TUNNEL, VETH)}, addresses={UNDERLAY}
    )
    made.snapshot(state)
    for message in (
        told_of(node("node-0", "10.10.7.20/20")),
        EndpointsListed([POD]),
        *messages,
    ):
        made.feed(message, now=0.0)
    return made


def told_of(value: Resource) -> Changed:
    return Changed(type(value), resource_name(value), value)


def gone(value: Resource) -> Changed:
    return Changed(type(value), resource_name(value), None)


def dirty(message: Message, *before: Message) -> Dirty:
    return facts(*before).feed(message, now=0.0)


# --- objects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [pool(), node("node-9", "10.10.9.9/20"), BGPConfiguration()])
def test_what_concerns_all_routes_makes_everything_dirty(value: Resource) -> None:
    assert dirty(told_of(value)) == ALL
    assert dirty(gone(value), told_of(value)) == ALL


def test_an_object_told_again_is_nothing_new() -> None:
    assert not dirty(told_of(pool()), told_of(pool()))


def test_an_unknown_object_that_is_gone_is_nothing_new() -> None:
    assert not dirty(gone(pool()))


def test_kinds_that_do_not_matter_are_passed_over() -> None:
    assert not dirty(told_of(Handle("h")))


def test_another_bgp_configuration_is_not_ours() -> None:
    made = facts()

    made.feed(told_of(replace(BGPConfiguration("node.other"), as_number=1)), now=0.0)

    assert made.inputs.bgp == BGPConfiguration()


def test_a_peer_concerns_sessions_only() -> None:
    peer = BGPPeer("router", ip_address("10.10.0.1"), as_number=65001)

    assert dirty(told_of(peer)) == Dirty(is_bgp=True)
    assert dirty(gone(peer), told_of(peer)) == Dirty(is_bgp=True)


def test_an_affinity_concerns_its_prefix_and_ours_sessions_too() -> None:
    assert dirty(told_of(affinity(THEIRS, "node-2"))) == Dirty(keys=keys(THEIRS))
    assert dirty(told_of(affinity(OWN, "node-0"))) == Dirty(
        keys=keys(OWN), is_bgp=True, is_other=True
    )


@pytest.mark.parametrize("is_reversed", [False, True])
def test_of_two_claims_the_confirmed_one_counts(*, is_reversed: bool) -> None:
    pending = affinity(THEIRS, "node-1", AffinityState.PENDING)
    confirmed = affinity(THEIRS, "node-2")
    order = [confirmed, pending] if is_reversed else [pending, confirmed]
    made = facts(*(told_of(one) for one in order))
    assert made.inputs.affinities[ip_network(THEIRS)] == confirmed

    made.feed(gone(confirmed), now=0.0)

    assert made.inputs.affinities[ip_network(THEIRS)] == pending


def test_a_first_listing_makes_everything_dirty_and_a_later_one_only_what_changed() -> None:
    listed = Listed(BlockAffinity, [affinity(THEIRS, "node-2")])

    assert dirty(listed).is_all
    assert not dirty(listed, listed)
    assert dirty(Listed(BlockAffinity, []), listed) == Dirty(keys=keys(THEIRS))


def test_the_datastore_is_known_once_each_kind_was_listed() -> None:
    made = facts()
    known = []
    for kind in WATCHED_KINDS:
        known.append(made.has_datastore)
        made.feed(Listed(kind, []), now=0.0)

    assert not any(known)
    assert made.has_datastore


def test_a_deleted_pool_stays_in_the_history() -> None:
    made = facts(told_of(pool()), gone(pool()))

    assert made.inputs.pool_history == {ip_network("192.168.0.0/16")}
    assert made.inputs.pools == {}
    assert IPPool in WATCHED_KINDS


def block(*holders: str) -> Block:
    """Return a block of node-2, the first addresses of which these nodes hold."""
    free = 64 - len(holders)
    return Block(
        ip_network(THEIRS),
        affinity="node-2",
        allocations=(*range(len(holders)), *([None] * free)),
        unallocated=tuple(range(len(holders), len(holders) + free)),
        attributes=tuple(AllocationAttribute("h", (("node", node),)) for node in holders),
    )


def test_a_borrowed_address_concerns_its_prefix_and_sessions() -> None:
    first, second = keys("192.168.247.0/32"), keys("192.168.247.1/32")
    borrowed = told_of(block("node-1", "node-2"))

    assert dirty(borrowed) == Dirty(keys=first, is_bgp=True)
    assert dirty(told_of(block("node-2")), borrowed) == Dirty(keys=first, is_bgp=True)
    assert dirty(gone(block()), borrowed) == Dirty(keys=first, is_bgp=True)
    assert dirty(told_of(block("node-0", "node-0")), borrowed).keys == first | second


def test_a_version_of_a_block_that_changes_nothing_borrowed_concerns_nobody() -> None:
    assert not dirty(told_of(block("node-2")))
    assert not dirty(told_of(block("node-1", "node-2")), told_of(block("node-1")))


def test_who_borrows_is_known_until_it_ends() -> None:
    made = facts(told_of(block("node-1", "node-2")))
    before = dict(made.inputs.borrowed)
    made.feed(told_of(block("node-2", "node-0")), now=0.0)
    then = dict(made.inputs.borrowed)
    made.feed(gone(block()), now=0.0)

    assert before == {ip_network("192.168.247.0/32"): "node-1"}
    assert then == {ip_network("192.168.247.1/32"): "node-0"}
    assert made.inputs.borrowed == {}


# --- pods ---------------------------------------------------------------------------------------


def test_a_pod_concerns_its_routes_and_its_interface() -> None:
    new = pod("192.168.39.200", veth="cali2", container="two")

    assert dirty(EndpointChanged(new.key, new)) == Dirty(
        keys=keys("192.168.39.200/32"), links={"cali2"}
    )


def test_a_pod_that_is_gone_concerns_what_it_had() -> None:
    assert dirty(EndpointChanged(POD.key, None)) == Dirty(
        keys=keys("192.168.39.193/32"), links={"cali1"}
    )


def test_a_pod_in_the_making_concerns_nobody_before_it_is_there() -> None:
    new = pod(veth="cali2", container="two", state=EndpointState.INTENT)

    assert not dirty(EndpointChanged(new.key, new))


def test_a_pod_that_is_being_deleted_concerns_its_interface_once_and_its_routes_twice() -> None:
    unfinished = EndpointChanged(POD.key, replace(POD, state=EndpointState.INTENT))
    of_pod = keys("192.168.39.193/32")

    assert dirty(unfinished) == Dirty(keys=of_pod, links={"cali1"})
    # A pass that met the lock of that key left a route to whoever held it.
    assert dirty(EndpointChanged(POD.key, None), unfinished) == Dirty(keys=of_pod)


def test_a_pod_that_got_another_interface_concerns_both() -> None:
    changed = replace(POD, host_veth="cali2")

    assert dirty(EndpointChanged(POD.key, changed)).links == {"cali1", "cali2"}


def test_a_pod_told_again_is_nothing_new() -> None:
    assert not dirty(EndpointChanged(POD.key, POD))
    assert not dirty(EndpointsListed([POD]))


def test_a_listing_without_a_pod_ends_it() -> None:
    assert dirty(EndpointsListed([])).keys == keys("192.168.39.193/32")


def test_an_unfinished_pod_is_not_routed() -> None:
    made = facts(EndpointChanged(POD.key, replace(POD, state=EndpointState.INTENT)))

    assert made.inputs.pods == {}


# --- the kernel ---------------------------------------------------------------------------------


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
    made.snapshot(KernelState(addresses={address}, routes={key: (link_local,)}))

    assert made.have == KernelState()
    assert not made.feed(KernelTold(RouteChanged(link_local, is_present=True)), now=0.0)
    assert not made.feed(KernelTold(AddressChanged(address, is_present=True)), now=0.0)


def test_an_underlay_may_have_link_local_ipv4_addresses() -> None:
    made = facts()
    address = Address("eth0", ip_interface("169.254.16.7/16"))

    made.snapshot(KernelState(addresses={address}))

    assert made.inputs.addresses == {address}
    assert made.feed(KernelTold(AddressChanged(address, is_present=False)), now=0.0)
    assert made.inputs.addresses == set()


def test_a_doubt_calls_for_everything_anew() -> None:
    assert dirty(Doubt("SIGHUP")) == Dirty(is_all=True, is_doubtful=True)


def test_what_was_put_off_is_looked_at_again() -> None:
    key = RouteKey(ip_network("192.168.39.193/32"))

    again = dirty(LookAgain(frozenset({key}), frozenset({"cali1"})))

    assert again == Dirty(keys={key}, links={"cali1"})


# --- BGP ----------------------------------------------------------------------------------------

PEER = ip_address("10.10.43.25")


def test_an_update_concerns_its_prefixes() -> None:
    announced = BgpTold(PathsChanged(PEER, announced=(path(THEIRS),)))
    withdrawn = BgpTold(PathsChanged(PEER, withdrawn=(ip_network(THEIRS),)))

    assert dirty(announced) == Dirty(keys=keys(THEIRS))
    assert dirty(withdrawn, announced) == Dirty(keys=keys(THEIRS))


def test_end_of_rib_may_open_a_gate() -> None:
    assert dirty(BgpTold(EndOfRib(PEER, Family.IPV4))).is_gate


def test_a_session_alone_concerns_nothing() -> None:
    assert not dirty(BgpTold(PeerUp(PEER)))


def test_a_peer_that_is_no_longer_wanted_takes_its_paths_along() -> None:
    made = facts(BgpTold(PathsChanged(PEER, announced=(path(THEIRS),))))

    assert made.keep_peers([]) == Dirty(keys=keys(THEIRS))
    assert made.inputs.paths == {}
    assert not made.keep_peers([])


# --- dirt ---------------------------------------------------------------------------------------

SPECKS: list[Callable[[], Dirty]] = [
    lambda: Dirty(keys=keys(OWN)),
    lambda: Dirty(links={"cali1"}),
    lambda: Dirty(is_other=True),
    lambda: Dirty(is_bgp=True),
    lambda: Dirty(is_gate=True),
    lambda: Dirty(is_all=True),
    lambda: Dirty(is_doubtful=True),
]


@pytest.mark.parametrize("speck", SPECKS)
def test_any_speck_is_dirt_and_none_gets_lost(speck: Callable[[], Dirty]) -> None:
    whole = Dirty()
    assert not whole

    whole.merge(speck())

    assert whole
    assert whole == speck()
