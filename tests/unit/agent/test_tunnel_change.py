"""A pool's mode changes: the tunnel is there first, and stays for those who hear of it late."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from math import inf

from pycni.agent.facts import Facts
from pycni.agent.tunnel_change import LINGER_S, READY_S
from pycni.model.resources import IPPool, TunnelMode
from pycni.model.vxlan import VxlanEnd
from pycni.plan.imports import judge_prefix
from pycni.plan.overlay import wanted_tunnels
from tests.unit.agent.node_facts import facts, gone, told_of
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
