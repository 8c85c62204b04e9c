"""The text of our nftables table; what it does to packets is tested on the real kernel."""

from ipaddress import ip_address, ip_network

import pytest

from pycni.errors import InvalidInput
from pycni.plan.nat import NatInputs, render, rule_count

POOL = ip_network("192.168.0.0/16")
POOL6 = ip_network("fd00::/48")
INPUTS = NatInputs(
    pools=frozenset({POOL, POOL6, ip_network("10.244.0.0/16")}),
    nat_pools=frozenset({POOL}),
    nodes=frozenset({ip_address("10.0.0.1"), ip_address("10.0.0.2"), ip_address("fd99::1")}),
)


def test_sets_hold_the_pools_and_nodes_by_family() -> None:
    text = render(INPUTS).text

    assert (
        "set pools4 { type ipv4_addr; flags interval; elements = { 10.244.0.0/16, 192.168.0.0/16 };"
        in text
    )
    assert "set pools6 { type ipv6_addr; flags interval; elements = { fd00::/48 };" in text
    assert "set nodes4 { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 };" in text
    assert "set nat_pools6 { type ipv6_addr; flags interval; }" in text


def test_overlapping_pools_are_merged() -> None:
    inside = ip_network("192.168.7.0/24")

    assert render(NatInputs(pools=frozenset({POOL, inside}))) == render(
        NatInputs(pools=frozenset({POOL}))
    )


def test_equal_inputs_have_the_same_digest_and_others_another() -> None:
    assert render(INPUTS) == render(INPUTS)
    assert render(INPUTS).digest != render(NatInputs()).digest
    assert f"chain digest_{render(INPUTS).digest} {{ }}" in render(INPUTS).text


def test_the_digest_tells_the_number_of_rules() -> None:
    with_vxlan = NatInputs(vxlan_port=4789)

    assert rule_count(render(INPUTS).digest) == 7
    assert rule_count(render(with_vxlan).digest) == 11
    assert rule_count("nonsense") == -1


def test_near_peers_are_not_heard_from_afar() -> None:
    near = frozenset({(ip_address("10.0.0.9"), 1179, 255), (ip_address("fd99::9"), 179, 254)})
    text = render(NatInputs(close_peers=near)).text

    assert [line.strip() for line in text.splitlines() if "distant_bgp drop" in line] == [
        "ip saddr 10.0.0.9 tcp dport 179 ip ttl < 255 counter name distant_bgp drop",
        "ip saddr 10.0.0.9 tcp sport 1179 ip ttl < 255 counter name distant_bgp drop",
        "ip6 saddr fd99::9 tcp dport 179 ip6 hoplimit < 254 counter name distant_bgp drop",
        "ip6 saddr fd99::9 tcp sport 179 ip6 hoplimit < 254 counter name distant_bgp drop",
    ]


def test_near_peers_are_not_heard_from_afar_where_this_node_listens() -> None:
    near = frozenset({(ip_address("10.0.0.9"), 179, 255)})
    text = render(NatInputs(close_peers=near, listen_port=1179)).text

    assert [line.strip() for line in text.splitlines() if "distant_bgp drop" in line] == [
        "ip saddr 10.0.0.9 tcp dport 1179 ip ttl < 255 counter name distant_bgp drop",
        "ip saddr 10.0.0.9 tcp sport 179 ip ttl < 255 counter name distant_bgp drop",
    ]


def test_addresses_that_no_service_has_are_dropped_after_kube_proxy_has_looked() -> None:
    ranges = frozenset(map(ip_network, ("10.96.0.0/12", "10.96.7.0/24", "fd00:96::/112")))
    lines = [line.strip() for line in render(NatInputs(services=ranges)).text.splitlines()]

    at = lines.index("chain forward {")
    assert lines[at + 1 : at + 5] == [
        "type filter hook forward priority filter + 10; policy accept;",
        "ip daddr @services4 ip daddr != @nodes4 counter name no_service drop",
        "ip6 daddr @services6 ip6 daddr != @nodes6 counter name no_service drop",
        "}",
    ]
    named = "set services4 { type ipv4_addr; flags interval; elements = { 10.96.0.0/12 }; }"
    assert named in lines
    assert "forward" not in render(INPUTS).text


def test_what_is_not_used_is_not_filtered() -> None:
    text = render(NatInputs(has_ipip=False, blocks_spoofing=False)).text

    assert "l4proto" not in text
    assert "udp" not in text
    assert "fib saddr" not in text


@pytest.mark.parametrize("port", [0, 65536])
def test_the_vxlan_port_is_a_port(port: int) -> None:
    with pytest.raises(InvalidInput, match="port"):
        NatInputs(vxlan_port=port)
