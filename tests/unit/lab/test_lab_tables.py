"""Tables beside their prediction, the lab's picture, the commands that build its underlay."""

from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_address
from pathlib import Path

import pytest

from pycni.lab import picture, tables, underlay
from pycni.topology.model import Topology, load_topology

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def exercise() -> Topology:
    return load_topology(EXAMPLES / "exercise.yaml")


@pytest.fixture
def dual_stack() -> Topology:
    return load_topology(EXAMPLES / "dual-stack.yaml")


def test_blanks_make_no_difference() -> None:
    compared = tables.compare("n", output="a  b \n\n c\td\n", predicted=["a b", "c d"])

    assert compared.is_equal
    assert compared.verdict == "equals the prediction (2 lines)"


@pytest.mark.parametrize(
    ("output", "verdict"),
    [
        ("a\n", "DIFFERS from the prediction: 1 missing, 0 unexpected"),
        ("a\nb\nc\n", "DIFFERS from the prediction: 0 missing, 1 unexpected"),
        ("b\na\n", "DIFFERS from the prediction: same lines, another order"),
    ],
)
def test_difference_is_said(output: str, verdict: str) -> None:
    compared = tables.compare("n", output=output, predicted=["a", "b"])

    assert not compared.is_equal
    assert compared.verdict == verdict


def test_narrow_terminal_gets_one_marked_column() -> None:
    compared = tables.compare("n", output="a\nx\n", predicted=["a", "b"])

    assert tables.side_by_side(compared, width=20) == ["  = a", "  + x", "  - b"]


def test_wide_terminal_gets_two_columns() -> None:
    compared = tables.compare("n", output="a\nx\n", predicted=["a", "b", "c"])

    assert tables.side_by_side(compared, width=100) == [
        "  ip route   predicted",
        "  a        = a",
        "  x        ! b",
        "           ! c",
    ]


def test_ipv6_table_leaves_out_what_every_interface_brings() -> None:
    output = """\
::1 dev lo proto kernel metric 256 pref medium
fd00::/64 dev eth0 proto kernel metric 256 pref medium
fe80::/64 dev eth0 proto kernel metric 256 pref medium
fe80::/64 dev cali1 proto kernel metric 256 pref medium
multicast ff00::/8 dev eth0 proto kernel metric 256 pref medium
default via fe80::1 dev eth0 metric 1024 pref medium
"""

    compared = tables.compare("n", output=output, predicted=["x"], family=6)

    assert compared.title == "ip -6 route"
    assert compared.actual == (
        "fd00::/64 dev eth0 proto kernel metric 256 pref medium",
        "default via fe80::1 dev eth0 metric 1024 pref medium",
    )
    assert tables.side_by_side(compared, width=200)[0].split("   ")[0].strip() == "ip -6 route"


def test_picture_shows_both_addresses(dual_stack: Topology) -> None:
    addresses = {"default/web": (ip_address("192.168.247.11"), ip_address("fd00:192:168::f70b"))}

    lines = picture.draw(dual_stack, facts={}, addresses=addresses)

    assert lines[2] == (
        "+-- 10.10.0.1, fd00:10:10::1 ----- eth0 10.10.7.20/20, fd00:10:10::720/64  [node-0]"
    )
    assert lines[3] == "|     +-- cali12b0eb5c038 ----- eth0 ?  (default/dnsutils)"
    assert "eth0 192.168.247.11, fd00:192:168::f70b  (default/web)" in lines[-3]


def test_picture_hangs_pods_on_their_nodes(exercise: Topology) -> None:
    facts = {"node-0": picture.NodeFacts({"tunl0": "192.168.39.192"}, ("192.168.39.192/26",))}
    addresses = {"default/dnsutils": (ip_address("192.168.39.193"),)}

    lines = picture.draw(exercise, facts=facts, addresses=addresses)

    assert lines[0] == "router"
    assert lines[2] == (
        "+-- 10.10.0.1 ----- eth0 10.10.7.20/20  [node-0]"
        "  tunl0 192.168.39.192  blocks 192.168.39.192/26"
    )
    assert lines[3] == "|     +-- cali12b0eb5c038 ----- eth0 192.168.39.193  (default/dnsutils)"
    assert lines[-1] == "+-- 203.0.113.1 ----- eth0 203.0.113.10/24  [outside]"


def test_router_has_a_leg_in_every_subnet(exercise: Topology) -> None:
    commands = list(underlay.router_commands(exercise))

    assert "link add to0 mtu 1500 type veth peer name eth0 mtu 1500 netns node-0" in commands
    assert "addr add 10.10.0.1/20 dev to0" in commands
    assert "addr add 203.0.113.1/24 dev to3" in commands
    assert not any("bridge" in command for command in commands)


def test_members_of_one_subnet_share_a_bridge() -> None:
    topology = load_topology(EXAMPLES / "cross-subnet.yaml")

    commands = list(underlay.router_commands(topology))

    assert commands.count("addr add 10.20.0.1/24 dev net0") == 1
    assert {"link set to0 master net0", "link set to1 master net0"} <= set(commands)
    assert "addr add 10.20.1.1/24 dev to2" in commands


def test_members_of_one_ipv6_subnet_share_a_bridge_that_has_all_gateways(
    dual_stack: Topology,
) -> None:
    commands = list(underlay.router_commands(dual_stack))

    assert [c for c in commands if "net0" in c] == [
        "link add net0 type bridge",
        *(f"link set to{number} master net0" for number in range(3)),
        "link set net0 up",
        "addr add 10.10.0.1/20 dev net0",
        "addr add fd00:10:10::1/64 dev net0 nodad",
        "addr add 10.10.16.1/20 dev net0",
        "addr add 10.10.32.1/20 dev net0",
    ]
    assert "addr add 2001:db8:113::1/64 dev to3 nodad" in commands


def test_segments_that_one_more_member_joins_become_one(exercise: Topology) -> None:
    first, second, third = exercise.nodes
    nodes = (
        replace(first, address6=IPv6Interface("fd00:1::1/64"), gateway6=IPv6Address("fd00:1::f")),
        second,
        replace(
            third,
            address=IPv4Interface("10.10.24.90/20"),
            gateway=second.gateway,
            address6=IPv6Interface("fd00:1::3/64"),
            gateway6=IPv6Address("fd00:1::f"),
        ),
    )

    segments = underlay.segments_of(replace(exercise, nodes=nodes, pods=()))

    assert [[leg.port for leg in legs] for legs in segments] == [["to0", "to1", "to2"], ["to3"]]


def test_member_has_its_addresses_at_once_and_a_way_out_for_each(dual_stack: Topology) -> None:
    assert list(underlay.member_commands(dual_stack.nodes[0])) == [
        "link set lo up",
        "addr add 10.10.7.20/20 dev eth0",
        "addr add fd00:10:10::720/64 dev eth0 nodad",
        "link set eth0 up",
        "route add default via 10.10.0.1 dev eth0",
        "route add default via fd00:10:10::1 dev eth0",
    ]


def test_router_forwards_what_the_topology_has(exercise: Topology, dual_stack: Topology) -> None:
    assert underlay.sysctls(exercise, "router") == {"net.ipv4.ip_forward": "1"}
    assert underlay.sysctls(exercise, "node-0") == {}
    assert underlay.sysctls(dual_stack, "router")["net.ipv6.conf.all.forwarding"] == "1"
    assert "net.ipv6.conf.all.forwarding" not in underlay.sysctls(dual_stack, "node-0")


def test_places_are_router_members_and_pods(exercise: Topology) -> None:
    assert underlay.places(exercise)[:5] == ["router", "node-0", "node-1", "node-2", "outside"]
    assert "default.web" in underlay.places(exercise)


def test_status_counts_paths_and_tells_the_stale_ones() -> None:
    peers = [
        ("10.10.7.20", "node-0", "down", 1, 1, "closing connection"),
        ("10.10.43.25", "node-2", "up", 2, 0, ""),
    ]
    keys = ("peer", "node", "state", "paths", "stale", "last_error")
    status = {
        "converged": True,
        "nat": "unavailable: no nftables",
        "uptime_s": 3,
        "problems": ["it rains"],
        "peers": [dict(zip(keys, peer, strict=True)) for peer in peers],
    }

    assert picture.status_lines("node-1", status) == [
        "node-1: agent converged, up for 3 s, NAT unavailable",
        "  problem: it rains",
        "  BGP 10.10.7.20   node-0  down  1 path (1 stale)  closing connection",
        "  BGP 10.10.43.25  node-2  up    2 paths",
    ]
