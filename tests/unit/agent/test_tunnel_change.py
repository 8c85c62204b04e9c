"""A pool's mode changes: the tunnel is there first, and stays for those who hear of it late."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from math import inf

import pytest

from pycni.agent.facts import Facts
from pycni.agent.messages import Listed
from pycni.agent.tunnel_change import LINGER_S, READY_S
from pycni.model.network import MAIN_TABLE, Address, KernelState, Link, NextHop, Route, RouteKey
from pycni.model.resources import IPPool, TunnelMode
from pycni.model.tunnels import TunnelKind, tunnel_of
from pycni.model.vxlan import VxlanEnd
from pycni.plan.imports import judge_prefix
from pycni.plan.inputs import Inputs, Settings, TunnelPhase
from pycni.plan.overlay import wanted_tunnels
from tests.unit.agent.node_facts import ETH0, UNDERLAY, facts, gone, told_of
from tests.unit.plan.samples import affinity, lines, node, path, pool

NEAR = "192.168.9.0/26"
BY_UNDERLAY = [f"{NEAR} via 10.10.7.30 dev eth0 proto bird"]
BY_TUNNEL = [f"{NEAR} via 10.10.7.30 dev tunl0 proto bird onlink"]
PLAIN, TUNNELLED = pool(mode=TunnelMode.NEVER), pool(mode=TunnelMode.ALWAYS)


def knowing(*pools: IPPool) -> Facts:
    """Return facts with a block of a node next door."""
    neighbour = (told_of(node("node-3", "10.10.7.30/20")), told_of(affinity(NEAR, "node-3")))
    made = facts(*neighbour, *map(told_of, pools))
    made.inputs.paths[ip_network(NEAR)] = (path(NEAR, "10.10.7.30"),)
    return made


def way(made: Facts) -> list[str]:
    return lines(judge_prefix(made.inputs, ip_network(NEAR)).route)


def has_tunnel(made: Facts) -> bool:
    return bool(wanted_tunnels(made.inputs))


def test_a_pool_that_is_new_is_used_at_once() -> None:
    made = knowing(TUNNELLED)

    assert (way(made), has_tunnel(made), made.next_deadline()) == (BY_TUNNEL, True, inf)


def test_routes_lead_to_a_tunnel_only_when_every_node_has_one() -> None:
    made = knowing(PLAIN)
    made.feed(told_of(TUNNELLED), now=100.0)

    assert (way(made), has_tunnel(made)) == (BY_UNDERLAY, True)
    assert made.next_deadline() == 100.0 + READY_S
    assert not made.expire(now=100.0 + READY_S / 2)
    assert made.expire(now=100.0 + READY_S).is_all
    assert (way(made), made.next_deadline()) == (BY_TUNNEL, inf)


def test_a_tunnel_that_no_pool_needs_stays_for_those_who_still_send_by_it() -> None:
    made = knowing(TUNNELLED)
    made.feed(told_of(PLAIN), now=100.0)

    assert (way(made), has_tunnel(made)) == (BY_UNDERLAY, True)
    assert made.expire(now=100.0 + LINGER_S).is_all
    assert not has_tunnel(made)


def test_a_tunnel_that_was_going_is_used_at_once() -> None:
    made = knowing(TUNNELLED)
    made.feed(told_of(PLAIN), now=100.0)
    made.feed(told_of(TUNNELLED), now=101.0)

    assert (way(made), made.next_deadline()) == (BY_TUNNEL, inf)


def test_another_mode_by_the_same_tunnel_holds_at_once() -> None:
    made = knowing(TUNNELLED)
    made.feed(told_of(pool(mode=TunnelMode.CROSS_SUBNET)), now=100.0)

    assert (way(made), made.next_deadline()) == (BY_UNDERLAY, inf)


def test_a_deleted_pool_takes_its_tunnel_along() -> None:
    made = knowing(TUNNELLED)
    made.feed(gone(TUNNELLED), now=100.0)

    assert (has_tunnel(made), made.next_deadline()) == (False, inf)


def test_a_further_pool_changes_nothing_about_a_tunnel() -> None:
    made = knowing(TUNNELLED)
    made.feed(told_of(pool("fd00:1::/64")), now=100.0)

    assert (way(made), made.next_deadline()) == (BY_TUNNEL, inf)


def test_a_change_that_is_taken_back_leaves_the_tunnel_for_a_while() -> None:
    made = knowing(PLAIN)
    made.feed(told_of(TUNNELLED), now=100.0)
    made.feed(told_of(PLAIN), now=101.0)

    assert (way(made), has_tunnel(made)) == (BY_UNDERLAY, True)
    assert made.next_deadline() == 101.0 + LINGER_S


# --- VXLAN --------------------------------------------------------------------------------------

VXLAN = replace(PLAIN, vxlan_mode=TunnelMode.ALWAYS)
BY_VXLAN = [f"{NEAR} via 192.168.9.0 dev vxlan.calico proto bird onlink"]
NEIGHBOUR = node("node-3", "10.10.7.30/20")
WITH_END = replace(NEIGHBOUR, vxlan=VxlanEnd(ip_address("192.168.9.0")))


def devices(made: Facts) -> set[str]:
    return set(wanted_tunnels(made.inputs))


def test_from_one_tunnel_to_another_both_are_there_and_the_old_one_is_used_first() -> None:
    made = knowing(TUNNELLED)
    made.feed(told_of(WITH_END), now=99.0)

    made.feed(told_of(VXLAN), now=100.0)
    assert (way(made), devices(made)) == (BY_TUNNEL, {"tunl0", "vxlan.calico"})
    made.expire(now=100.0 + READY_S)
    assert (way(made), devices(made)) == (BY_VXLAN, {"tunl0", "vxlan.calico"})
    made.expire(now=100.0 + LINGER_S)
    assert (way(made), devices(made)) == (BY_VXLAN, {"vxlan.calico"})
    assert made.next_deadline() == inf


def test_and_back() -> None:
    made = knowing(VXLAN)
    made.feed(told_of(WITH_END), now=99.0)

    made.feed(told_of(TUNNELLED), now=100.0)
    assert (way(made), devices(made)) == (BY_VXLAN, {"tunl0", "vxlan.calico"})
    made.expire(now=100.0 + READY_S)
    assert (way(made), devices(made)) == (BY_TUNNEL, {"tunl0", "vxlan.calico"})
    made.expire(now=100.0 + LINGER_S)
    assert (way(made), devices(made)) == (BY_TUNNEL, {"tunl0"})


def test_a_node_that_is_late_is_reached_as_before_until_it_has_its_end() -> None:
    made = knowing(TUNNELLED)
    made.feed(told_of(VXLAN), now=100.0)
    made.expire(now=100.0 + READY_S)
    assert way(made) == BY_TUNNEL

    made.feed(told_of(WITH_END), now=110.0)

    assert way(made) == BY_VXLAN


def test_a_pool_that_is_gone_or_without_tunnel_is_remembered_no_more() -> None:
    made = knowing(TUNNELLED)
    made.feed(told_of(VXLAN), now=100.0)
    made.feed(told_of(PLAIN), now=101.0)
    assert made.inputs.formers == {}

    made.feed(told_of(VXLAN), now=102.0)
    made.feed(gone(VXLAN), now=103.0)

    assert made.inputs.formers == {}


# --- an agent that restarts ---------------------------------------------------------------------

BY_DEVICE = {
    "eth0": NextHop("eth0", ip_address("10.10.7.30")),
    "tunl0": NextHop("tunl0", ip_address("10.10.7.30"), is_onlink=True),
    "vxlan.calico": NextHop("vxlan.calico", ip_address("192.168.9.0"), is_onlink=True),
}
CROSSING = replace(VXLAN, vxlan_mode=TunnelMode.CROSS_SUBNET)


def restarted(
    now_pool: IPPool,
    *devices: str,
    protocol: int = 12,
    table: int = MAIN_TABLE,
    standing: str = "",
    is_up: bool = True,
) -> Facts:
    """Return what an agent knows that finds routes to blocks by these devices, at second 100.

    `standing` is a tunnel's device with this node's address in it.
    """
    made = Facts(Inputs(Settings("node-0")))
    made.feed(Listed(IPPool, [now_pool]), now=90.0)
    state = KernelState(
        links={"eth0": ETH0, standing: Link(standing, 9, "ipip", is_up=is_up)},
        addresses={UNDERLAY, Address(standing or "eth0", ip_interface("192.168.39.192/32"))},
    )
    for number, device in enumerate(devices):
        key = RouteKey(ip_network(f"192.168.{number}.0/26"), table=table)
        hops = frozenset({BY_DEVICE[device]})
        state.routes[key] = (Route(key, next_hops=hops, protocol=protocol),)
    made.snapshot(state, now=100.0)
    return made


@pytest.mark.parametrize(
    ("pool_now", "devices", "former", "is_coming"),
    [
        (VXLAN, ["tunl0"], TUNNELLED, True),
        (VXLAN, ["tunl0", "eth0"], pool(mode=TunnelMode.CROSS_SUBNET), True),
        (VXLAN, ["eth0"], PLAIN, True),
        (VXLAN, ["tunl0", "vxlan.calico"], TUNNELLED, False),
        (TUNNELLED, ["vxlan.calico"], VXLAN, True),
        (TUNNELLED, ["vxlan.calico", "eth0"], CROSSING, True),
        (TUNNELLED, ["eth0"], PLAIN, True),
        (VXLAN, ["vxlan.calico"], None, False),
        (TUNNELLED, ["tunl0", "tunl0"], None, False),
        (CROSSING, ["eth0"], None, False),
        (CROSSING, ["eth0", "vxlan.calico"], None, False),
        (PLAIN, ["eth0", "tunl0"], None, False),
        (VXLAN, [], None, False),
    ],
)
def test_a_restart_finds_in_the_kernel_by_what_a_pool_went(
    pool_now: IPPool, devices: list[str], former: IPPool | None, is_coming: bool
) -> None:
    made = restarted(pool_now, *devices)
    kind = tunnel_of(pool_now)

    assert made.inputs.formers == ({} if former is None else {pool_now.name: former})
    coming = set() if kind is None or not is_coming else {kind}
    assert in_phase(made, TunnelPhase.COMING) == coming


def test_what_a_restart_finds_ends_as_if_it_had_been_heard_just_now() -> None:
    made = restarted(VXLAN, "tunl0")

    assert made.next_deadline() == 100.0 + READY_S
    made.expire(now=100.0 + READY_S)
    assert made.next_deadline() == 100.0 + LINGER_S
    made.expire(now=100.0 + LINGER_S)
    assert (made.inputs.formers, made.next_deadline()) == ({}, inf)


def in_phase(made: Facts, phase: TunnelPhase) -> set[TunnelKind]:
    return {kind for kind, its in made.inputs.tunnel_phases.items() if its is phase}


@pytest.mark.parametrize(
    ("pool_now", "devices", "going"),
    [
        (VXLAN, ["tunl0"], {TunnelKind.IPIP}),
        (TUNNELLED, ["vxlan.calico", "eth0"], {TunnelKind.VXLAN}),
        (PLAIN, ["vxlan.calico"], {TunnelKind.VXLAN}),
        (VXLAN, ["vxlan.calico"], set()),
        (VXLAN, ["eth0"], set()),
    ],
)
def test_a_tunnel_by_which_a_pools_routes_still_leave_stays_without_its_address(
    pool_now: IPPool, devices: list[str], going: set[TunnelKind]
) -> None:
    made = restarted(pool_now, *devices)

    assert in_phase(made, TunnelPhase.GOING) == going
    made.expire(now=100.0 + LINGER_S)
    assert made.inputs.tunnel_phases == {}


@pytest.mark.parametrize(("protocol", "table"), [(4, MAIN_TABLE), (12, 100)])
def test_others_routes_say_nothing(protocol: int, table: int) -> None:
    assert restarted(VXLAN, "tunl0", protocol=protocol, table=table).inputs.formers == {}


def test_it_is_looked_at_once() -> None:
    made = restarted(VXLAN)
    again = restarted(VXLAN, "tunl0").have
    assert again is not None

    made.snapshot(again, now=200.0)

    assert made.inputs.formers == {}


def test_a_tunnel_that_stands_stays_a_minute_after_a_restart() -> None:
    made = restarted(PLAIN, standing="tunl0")

    assert made.inputs.tunnel_phases == {TunnelKind.IPIP: TunnelPhase.GOING}
    assert made.next_deadline() == 100.0 + LINGER_S


def test_one_that_is_down_or_whose_pool_is_gone_does_not() -> None:
    elsewhere = replace(PLAIN, cidr=ip_network("10.99.0.0/16"))

    assert restarted(PLAIN, standing="tunl0", is_up=False).inputs.tunnel_phases == {}
    assert restarted(elsewhere, standing="tunl0").inputs.tunnel_phases == {}
