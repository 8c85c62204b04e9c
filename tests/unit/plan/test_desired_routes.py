"""The routes that are wanted of a node, and all kinds of things together."""

from ipaddress import ip_interface, ip_network

import pytest

from pycni.model.endpoints import EndpointState
from pycni.model.network import Address, RouteKey
from pycni.model.resources import AffinityState
from pycni.plan import desired
from pycni.plan.prefixes import route_key
from tests.unit.plan.samples import OWN, THEIRS, affinity, inputs, learn, lines, path, pod, with_pod


def test_the_exercises_table() -> None:
    made = with_pod("192.168.39.193", veth="cali12b0eb5c038")
    two = pod("192.168.39.194", veth="calibe752d56965", container="two")
    made.set_endpoint(two.key, two)
    learn(made, path(THEIRS), path("192.168.84.128/26", "10.10.24.89"))

    assert lines(*desired.wanted_routes(made).values()) == [
        "blackhole 192.168.39.192/26 proto bird",
        "192.168.39.193 dev cali12b0eb5c038 scope link",
        "192.168.39.194 dev calibe752d56965 scope link",
        "192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink",
        "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink",
    ]


def test_a_rejected_path_is_no_route() -> None:
    made = inputs()
    learn(made, path("192.168.0.0/16"))

    assert lines(*desired.wanted_routes(made).values()) == [
        "blackhole 192.168.39.192/26 proto bird"
    ]
    assert [r.reason for r in desired.rejected_paths(made)] == [
        "no block affinity of node-2 covers it (yet)"
    ]


@pytest.mark.parametrize("state", [AffinityState.PENDING, AffinityState.PENDING_DELETION])
def test_only_confirmed_blocks_get_a_blackhole(state: AffinityState) -> None:
    made = inputs()
    made.affinities[ip_network(OWN)] = affinity(OWN, "node-0", state)

    assert desired.wanted_routes(made) == {}


def test_a_block_of_one_address_gets_no_blackhole() -> None:
    made = inputs()
    made.affinities = {ip_network("192.168.5.5/32"): affinity("192.168.5.5/32", "node-0")}

    assert desired.wanted_routes(made) == {}


def test_the_pod_in_a_block_of_one_address_is_routed() -> None:
    made = with_pod("192.168.5.5")
    made.affinities = {ip_network("192.168.5.5/32"): affinity("192.168.5.5/32", "node-0")}

    assert lines(*desired.wanted_routes(made).values()) == ["192.168.5.5 dev cali1 scope link"]


def test_an_unfinished_pod_is_not_routed() -> None:
    made = inputs()
    one = pod("192.168.39.193", state=EndpointState.INTENT)
    made.set_endpoint(one.key, one)

    assert "192.168.39.193" not in " ".join(lines(*desired.wanted_routes(made).values()))


def test_keys_that_we_never_write_are_never_wanted() -> None:
    made = inputs()

    assert desired.route(made, RouteKey(ip_network(OWN), table=100)) is None
    assert desired.route(made, RouteKey(ip_network(OWN), priority=7)) is None


def test_a_single_key_is_computed_as_all_are() -> None:
    made = with_pod("192.168.39.193", "fd00:1::1")
    learn(made, path(THEIRS))

    everything = desired.wanted_routes(made)

    assert {k: desired.route(made, k) for k in desired.wanted_route_keys(made)} == everything
    assert lines(everything[route_key(ip_network("fd00:1::1/128"))], family=6) == [
        "fd00:1::1 dev cali1 metric 1024 pref medium"
    ]


def test_everything_together() -> None:
    made = with_pod("192.168.39.193")

    everything = desired.compute(made)

    assert everything.routes == desired.wanted_routes(made)
    assert everything.addresses == desired.wanted_addresses(made)
    assert everything.sysctls == desired.wanted_sysctls(made)
    assert everything.ruleset == desired.wanted_ruleset(made)


def test_a_block_that_another_plugins_bridge_has_gets_no_blackhole() -> None:
    made = inputs()
    bridge = Address("br0", ip_interface("192.168.39.193/26"))
    made.addresses.add(bridge)

    assert desired.wanted_routes(made) == {}

    made.addresses.remove(bridge)
    assert lines(*desired.wanted_routes(made).values()) == [f"blackhole {OWN} proto bird"]


def test_another_plugins_pod_is_not_routed() -> None:
    made = with_pod("192.168.39.193", veth="")

    assert lines(*desired.wanted_routes(made).values()) == [f"blackhole {OWN} proto bird"]
    assert desired.wanted_pod_links(made) == {}
    (key,) = made.endpoints
    assert made.set_endpoint(key, None) == set()
    assert made.endpoints == {}
