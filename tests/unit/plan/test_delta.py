"""From what is there to what is wanted: the operations, their order, and what is never touched."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from pycni.model.network import (
    AddAddress,
    Address,
    AddRoute,
    CreateTunnel,
    DeleteAddress,
    DeleteLink,
    DeleteRoute,
    KernelState,
    Link,
    NatUnavailable,
    NextHop,
    Op,
    ReplaceRoute,
    Route,
    RouteKey,
    RouteType,
    Ruleset,
    Scope,
    SetLink,
    SetSysctl,
    Tunnel,
)
from pycni.plan.delta import Gate, Plan, plan, plan_old_addresses
from pycni.plan.desired import Desired
from pycni.plan.iproute import route_text
from pycni.plan.ownership import Ownership

OWNERSHIP = Ownership(
    route_protocol=12,
    tunnel_name="tunl0",
    pools=frozenset({ip_network("192.168.0.0/16")}),
    host_veths=frozenset({"cali1"}),
)
TUNNEL = Tunnel("tunl0", "ipip", 1480)
CLOSED = Gate(endpoints_ready=False, blocks_ready=False, learned_ready=False)
UP = {
    "eth0": Link("eth0", 2, mtu=1500, is_up=True),
    "tunl0": Link("tunl0", 3, "ipip", mtu=1480, is_up=True),
    "cali1": Link("cali1", 4, "veth", mtu=1480, is_up=True),
}


def blackhole(cidr: str = "192.168.39.192/26", *, protocol: int = 12) -> Route:
    return Route(RouteKey(ip_network(cidr)), type=RouteType.BLACKHOLE, protocol=protocol)


def learned(
    cidr: str = "192.168.247.0/26", *, dev: str = "tunl0", via: str = "10.0.0.2", protocol: int = 12
) -> Route:
    hop = NextHop(dev, gateway=ip_address(via), is_onlink=dev == "tunl0")
    return Route(RouteKey(ip_network(cidr)), next_hops=frozenset({hop}), protocol=protocol)


def pod_route(address: str = "192.168.39.193", *, dev: str = "cali1") -> Route:
    hops = frozenset({NextHop(dev)})
    return Route(RouteKey(ip_network(address)), scope=Scope.LINK, next_hops=hops)


def want(*routes: Route, tunnels: bool = True, **kinds: object) -> Desired:
    made = Desired(**kinds)  # type: ignore[arg-type]  # any kind
    made.routes = {r.key: r for r in routes}
    if tunnels:
        made.tunnels = {"tunl0": TUNNEL}
    return made


def have(*routes: Route, **kinds: object) -> KernelState:
    made = KernelState(**{"links": dict(UP), **kinds})  # type: ignore[arg-type]  # any kind
    for route in routes:
        made.routes[route.key] = (*made.routes.get(route.key, ()), route)
    return made


def planned(wanted: Desired, there: KernelState, *, gate: Gate | None = None) -> Plan:
    return plan(wanted, there, ownership=OWNERSHIP, gate=gate or Gate())


def text(op: Op) -> str:
    """Spell an operation as the command that would do it."""
    match op:
        case AddRoute(route=route) | DeleteRoute(route=route):
            words = route_text(route)
        case ReplaceRoute(old=old, new=new):
            before, after = (route_text(r).replace(str(r.key.dst), "B") for r in (old, new))
            words = f"{before} by {after.removeprefix('B via ')}"
        case AddAddress(address=address) | DeleteAddress(address=address):
            words = f"{address.interface} dev {address.ifname}"
        case SetSysctl(name=name, value=value):
            words = f"{name}={value}"
        case SetLink(name=name, mtu=mtu):
            words = f"{name} mtu {mtu} up"
        case CreateTunnel(tunnel=tunnel):
            words = tunnel.name
        case DeleteLink(name=name):
            words = name
        case _:
            words = ""
    return f"{type(op).__name__} {words}".strip()


def texts(wanted: Desired, there: KernelState, *, gate: Gate | None = None) -> list[str]:
    return [text(op) for op in planned(wanted, there, gate=gate).ops]


# --- routes -------------------------------------------------------------------------------------


def test_what_is_missing_is_added() -> None:
    assert texts(want(blackhole()), have()) == ["AddRoute blackhole 192.168.39.192/26 proto bird"]


def test_what_is_as_wanted_is_left_alone() -> None:
    assert texts(want(blackhole(), learned()), have(learned(), blackhole())) == []


def test_what_is_ours_and_unwanted_is_deleted() -> None:
    assert texts(want(), have(blackhole(), learned(), pod_route())) == [
        "DeleteRoute blackhole 192.168.39.192/26 proto bird",
        "DeleteRoute 192.168.247.0/26 via 10.0.0.2 dev tunl0 proto bird onlink",
        "DeleteRoute 192.168.39.193 dev cali1 scope link",
    ]


def test_another_way_to_the_same_prefix_is_one_replacement() -> None:
    assert texts(want(learned(dev="eth0")), have(learned())) == [
        "ReplaceRoute B via 10.0.0.2 dev tunl0 proto bird onlink by 10.0.0.2 dev eth0 proto bird"
    ]


def test_removals_come_after_additions() -> None:
    assert texts(want(blackhole("192.168.1.0/26")), have(blackhole())) == [
        "AddRoute blackhole 192.168.1.0/26 proto bird",
        "DeleteRoute blackhole 192.168.39.192/26 proto bird",
    ]


def test_a_second_route_of_ours_beside_the_wanted_one_goes() -> None:
    second = learned(via="10.0.0.3")

    assert texts(want(learned()), have(second, learned())) == [
        "DeleteRoute 192.168.247.0/26 via 10.0.0.3 dev tunl0 proto bird onlink"
    ]


TUNNELED = "dev tunl0 proto bird onlink"
THREE_BY_TWO = f"ReplaceRoute B via 10.0.0.3 {TUNNELED} by 10.0.0.2 {TUNNELED}"


def test_two_wrong_routes_of_ours_become_the_wanted_one() -> None:
    assert texts(want(learned()), have(learned(via="10.0.0.3"), learned(via="10.0.0.4"))) == [
        THREE_BY_TWO,
        "DeleteRoute 192.168.247.0/26 via 10.0.0.4 dev tunl0 proto bird onlink",
    ]


def test_a_route_whose_interface_is_missing_waits() -> None:
    links = {"eth0": UP["eth0"]}

    result = planned(want(pod_route(), tunnels=False), have(links=links))

    assert result.ops == []
    assert result.waiting == [pod_route()]


def test_a_route_by_a_tunnel_that_the_plan_makes_does_not_wait() -> None:
    assert texts(want(learned()), have(links={"eth0": UP["eth0"]})) == [
        "CreateTunnel tunl0",
        "SetLink tunl0 mtu 1480 up",
        "AddRoute 192.168.247.0/26 via 10.0.0.2 dev tunl0 proto bird onlink",
    ]


# --- strangers ----------------------------------------------------------------------------------

FOREIGN = [
    blackhole(protocol=4),
    learned(dev="eth0", protocol=4),
    learned("172.16.0.0/16", dev="eth0"),
    replace(blackhole(), key=RouteKey(ip_network("192.168.39.192/26"), table=100)),
    pod_route("10.9.9.9", dev="eth0"),
]


@pytest.mark.parametrize("foreign", FOREIGN, ids=route_text)
def test_what_is_not_ours_is_never_touched(foreign: Route) -> None:
    assert texts(want(), have(foreign)) == []


def test_a_strangers_route_under_our_key_is_a_conflict() -> None:
    foreign = learned(dev="eth0", protocol=4)

    result = planned(want(learned()), have(foreign))

    assert result.ops == []
    assert [(c.wanted, c.foreign) for c in result.conflicts] == [(learned(), foreign)]


def test_our_own_route_beside_a_strangers_is_replaced_alone() -> None:
    foreign = learned(dev="eth0", protocol=4)

    assert texts(want(learned()), have(foreign, learned(via="10.0.0.3"))) == [THREE_BY_TWO]


def test_a_strangers_route_that_is_just_what_we_want_is_none_of_our_trouble() -> None:
    there = replace(pod_route(dev="cali2"))
    links = {**UP, "cali2": Link("cali2", 9, is_up=True)}

    result = planned(want(there), have(there, links=links))

    assert (result.ops, result.conflicts) == ([], [])


# --- links and addresses ------------------------------------------------------------------------

TUNNEL_ADDRESS = Address("tunl0", ip_interface("192.168.39.192/32"))
OLD_ADDRESS = Address("tunl0", ip_interface("192.168.5.1/32"))


@pytest.mark.parametrize(
    "link", [replace(UP["tunl0"], is_up=False), replace(UP["tunl0"], mtu=1400)]
)
def test_a_tunnel_that_is_down_or_of_another_mtu_is_set(link: Link) -> None:
    assert texts(want(), have(links={**UP, "tunl0": link})) == ["SetLink tunl0 mtu 1480 up"]


def test_a_pods_interface_that_is_down_is_set_up_with_its_own_mtu() -> None:
    links = {**UP, "cali1": replace(UP["cali1"], is_up=False, mtu=1300)}

    assert texts(want(pod_links={"cali1": 1480}), have(links=links)) == [
        "SetLink cali1 mtu 1300 up"
    ]


def test_a_host_end_gets_the_ipv6_gateway_back() -> None:
    links = {**UP, "cali2": replace(UP["cali1"], name="cali2")}
    wanted = want(gateways={"cali1", "cali2", "cali9"})

    assert texts(wanted, have(links=links, gateways={"cali2"})) == [
        "AddAddress fe80::ecee:eeff:feee:eeee/64 dev cali1"
    ]


def test_a_pods_interface_that_is_gone_is_gone() -> None:
    assert texts(want(pod_links={"cali9": 1480}), have()) == []


def test_the_tunnels_address_changes_new_one_first() -> None:
    there = have(addresses={OLD_ADDRESS, Address("eth0", ip_interface("192.168.7.7/24"))})

    assert texts(want(addresses={TUNNEL_ADDRESS}), there) == [
        "AddAddress 192.168.39.192/32 dev tunl0",
        "DeleteAddress 192.168.5.1/32 dev tunl0",
    ]


def test_a_foreign_address_on_our_tunnel_stays() -> None:
    there = have(addresses={TUNNEL_ADDRESS, Address("tunl0", ip_interface("10.9.9.9/32"))})

    assert texts(want(addresses={TUNNEL_ADDRESS}), there) == []


def test_without_a_wanted_address_the_old_one_stays() -> None:
    there = have(addresses={OLD_ADDRESS})

    assert plan_old_addresses(want(), there, ownership=OWNERSHIP) == []


def test_old_addresses_wait_for_the_datastore() -> None:
    there = have(addresses={TUNNEL_ADDRESS, OLD_ADDRESS})

    assert texts(want(addresses={TUNNEL_ADDRESS}), there, gate=CLOSED) == []


def test_our_tunnel_goes_when_no_pool_needs_it() -> None:
    there = have(addresses={TUNNEL_ADDRESS})

    assert texts(want(tunnels=False), there) == [
        "DeleteAddress 192.168.39.192/32 dev tunl0",
        "DeleteLink tunl0",
    ]
    assert texts(want(tunnels=False), there, gate=CLOSED) == []


def test_our_tunnel_stays_for_the_address_of_somebody_else() -> None:
    there = have(addresses={TUNNEL_ADDRESS, Address("tunl0", ip_interface("10.9.9.9/32"))})

    wanted = ["DeleteAddress 192.168.39.192/32 dev tunl0"]
    assert texts(want(tunnels=False), there) == wanted


def test_an_interface_of_another_kind_in_the_tunnels_place_loses_our_address_only() -> None:
    links = UP | {"tunl0": Link("tunl0", 3, "veth", mtu=1480, is_up=True)}

    wanted = ["DeleteAddress 192.168.39.192/32 dev tunl0"]
    assert texts(want(tunnels=False), have(links=links, addresses={TUNNEL_ADDRESS})) == wanted


def test_a_tunnel_without_address_of_ours_is_not_ours_to_delete() -> None:
    there = have(addresses={Address("tunl0", ip_interface("10.9.9.9/32"))})

    assert texts(want(tunnels=False), there) == []
    assert texts(want(tunnels=False), have(links={})) == []


# --- sysctls, nftables --------------------------------------------------------------------------


def test_only_sysctls_that_differ_are_written_and_absent_ones_are_not() -> None:
    wanted = want(sysctls={"net.ipv4.ip_forward": "1", "net.a": "1", "net.b": "1"})
    there = have(sysctls={"net.ipv4.ip_forward": "0", "net.a": "1"})

    assert texts(wanted, there) == ["SetSysctl net.ipv4.ip_forward=1"]


RULESET = Ruleset("table inet pycni {}", "digest_1")


@pytest.mark.parametrize("found", [None, "digest_0"])
def test_an_absent_or_other_ruleset_is_replaced(found: str | None) -> None:
    assert texts(want(ruleset=RULESET), have(ruleset=found)) == ["SetRuleset"]


def test_the_right_ruleset_is_left_alone() -> None:
    assert texts(want(ruleset=RULESET), have(ruleset="digest_1")) == []


def test_an_unwanted_ruleset_goes_once_the_datastore_was_heard() -> None:
    assert texts(want(), have(ruleset="digest_1")) == ["DeleteRuleset"]
    assert texts(want(), have(ruleset="digest_1"), gate=CLOSED) == []
    assert texts(want(), have()) == []


def test_where_nftables_is_missing_nothing_is_tried() -> None:
    there = have(nat_unavailable=NatUnavailable("no nf_tables in this kernel"))

    assert texts(want(ruleset=RULESET), there) == []


def test_the_whole_order() -> None:
    wanted = want(
        learned(),
        addresses={TUNNEL_ADDRESS},
        sysctls={"net.ipv4.ip_forward": "1"},
        ruleset=RULESET,
        pod_links={"cali1": 1480},
    )
    links = {"eth0": UP["eth0"], "cali1": replace(UP["cali1"], is_up=False)}
    there = have(blackhole(), links=links, sysctls={"net.ipv4.ip_forward": "0"})

    assert [line.partition(" ")[0] for line in texts(wanted, there)] == [
        "CreateTunnel",
        "SetLink",
        "SetLink",
        "AddAddress",
        "SetSysctl",
        "AddRoute",
        "DeleteRoute",
        "SetRuleset",
    ]
