"""Tables beside their prediction, the lab's picture, the commands that build its underlay."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from pycni.lab import picture, tables, underlay
from pycni.topology.model import Topology, load_topology

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def exercise() -> Topology:
    return load_topology(EXAMPLES / "exercise.yaml")


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


def test_picture_hangs_pods_on_their_nodes(exercise: Topology) -> None:
    facts = {"node-0": picture.NodeFacts("192.168.39.192", ("192.168.39.192/26",))}
    addresses = {"default/dnsutils": ip_address("192.168.39.193")}

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


def test_places_are_router_members_and_pods(exercise: Topology) -> None:
    assert underlay.places(exercise)[:5] == ["router", "node-0", "node-1", "node-2", "outside"]
    assert "default.web" in underlay.places(exercise)
