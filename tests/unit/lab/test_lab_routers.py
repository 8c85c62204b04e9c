"""Others' routers in the lab: their cables, and what their BIRD is told."""

from dataclasses import replace
from pathlib import Path

import pytest

from pycni.lab import bird, picture, underlay
from pycni.topology.model import Topology, load_topology
from pycni.topology.routers import sessions_of

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def racks() -> Topology:
    return load_topology(EXAMPLES / "tor.yaml")


def configuration(topology: Topology, name: str) -> list[str]:
    (router,) = (one for one in topology.routers if one.name == name)
    own = [session for session in sessions_of(topology) if session.router is router]
    return bird.configuration(router, own, log="/x/bird.log").splitlines()


def test_uplinks_share_a_bridge_without_the_router_in_the_middle(racks: Topology) -> None:
    commands = list(underlay.router_commands(racks))

    ends = [c for c in commands if "peer name eth1" in c]
    assert [c.split()[-1] for c in ends] == [r.name for r in racks.routers]
    ports = [c.split()[2] for c in ends]
    (bridge,) = {c.split()[-1] for c in commands if c.startswith(f"link set {ports[0]} master")}
    assert [c for c in commands if c.endswith(f"master {bridge}")] == [
        f"link set {port} master {bridge}" for port in ports
    ]
    assert not any(c.startswith("addr add") and c.endswith(f"dev {bridge}") for c in commands)


def test_a_router_has_both_addresses_and_forwards(racks: Topology) -> None:
    assert list(underlay.member_commands(racks.routers[0]))[-4:] == [
        "link set eth0 up",
        "addr add 10.40.0.11/24 dev eth1",
        "link set eth1 up",
        "route add default via 10.40.1.1 dev eth0",
    ]
    assert underlay.sysctls(racks, "tor-left-a")["net.ipv4.ip_forward"] == "1"
    assert underlay.sysctls(racks, "left-0") == {}


def test_a_rack_s_router_leads_to_what_it_learns(racks: Topology) -> None:
    lines = configuration(racks, "tor-right-a")

    assert "protocol kernel { ipv4 { export all; }; }" in lines
    ends = {
        "right-0": ("10.40.2.2", "10.40.2.10 as 65002"),
        "right-1": ("10.40.2.2", "10.40.2.11 as 65002"),
        "tor-left-a": ("10.40.0.21", "10.40.0.11 as 65101"),
        "tor-left-b": ("10.40.0.21", "10.40.0.12 as 65101"),
    }
    assert [line.partition(" hold time")[0] for line in lines if "bgp" in line] == [
        f"protocol bgp '{name}' {{ local {local} as 65102; neighbor {remote}; direct;"
        for name, (local, remote) in ends.items()
    ]


def test_a_reflector_leads_nowhere_and_has_clients() -> None:
    lines = configuration(load_topology(EXAMPLES / "route-reflectors.yaml"), "reflector-b")

    assert not any("kernel" in line for line in lines)
    assert (
        "protocol bgp 'node-4' { local 10.30.9.2 as 64512; neighbor 10.30.2.14 as 64512; multihop;"
        " rr client; rr cluster id 10.30.8.0;"
    ) in [line.partition(" hold time")[0] for line in lines]


def test_the_picture_shows_uplinks(racks: Topology) -> None:
    lines = picture.draw(replace(racks, pods=()), facts={}, addresses={})

    at = lines.index("+-- 10.40.2.1 ----- eth0 10.40.2.3/24  [tor-right-b]")
    assert lines[at + 1] == "      +-- eth1 10.40.0.22/24"
    assert "|     +-- eth1 10.40.0.21/24" in lines
