"""A pool's mode changes: the tunnel is there first, and stays for those who hear of it late."""

from ipaddress import ip_network
from math import inf

from pycni.agent.facts import Facts
from pycni.agent.tunnel_change import LINGER_S, READY_S
from pycni.model.resources import IPPool, TunnelMode
from pycni.plan.desired import wanted_tunnels
from pycni.plan.imports import judge_prefix
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
