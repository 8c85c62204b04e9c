"""A cluster's picture: what stands in its boxes, which lines are drawn, and that it is no older."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pycni.ctl.main import main
from pycni.topology.model import Topology, read_topology
from pycni.topology.picture import picture
from pycni.topology.predict import predict
from pycni.topology.sessions import Line, lines
from tests.virtual_time import run

ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"
TWO = """
name: two
nodes:
  - {name: left, address: 10.0.0.1/24, gateway: 10.0.0.254}
  - {name: right, address: 10.0.0.2/24, gateway: 10.0.0.254}
routers:
  - {name: tor, address: 10.0.0.3/24, gateway: 10.0.0.254, asNumber: 65000, peers: [left, right]}
resources:
  - apiVersion: projectcalico.org/v3
    kind: IPPool
    metadata: {name: default}
    spec: {cidr: 192.168.0.0/16, ipipMode: Never}
"""
PEER = """
  - apiVersion: projectcalico.org/v3
    kind: BGPPeer
    metadata: {{name: {name}}}
    spec: {{peerIP: {ip}, asNumber: {number}, node: left}}
"""


def drawn(text: str) -> tuple[Topology, ET.Element, list[Line]]:
    topology = read_topology(text, source="test")
    prediction = run(predict(topology))
    return (
        topology,
        ET.fromstring(picture(topology, prediction)),  # noqa: S314  # our own
        lines(topology, prediction.inputs),
    )


def said(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def titles(root: ET.Element) -> list[str]:
    return [element.findtext(f"{SVG}title", "") for element in root.iter(f"{SVG}path")]


def test_every_member_has_a_box_with_what_it_has() -> None:
    _, root, _ = drawn((ROOT / "examples" / "tor.yaml").read_text())

    text = said(root)

    assert {"left-0", "right-1", "tor-left-a", "AS 65101", "10.40.1.10/24"} <= set(text)
    assert "172.25.31.192/26 by 10.40.1.2 and 10.40.1.3, eth0" in text
    assert "172.25.167.192/26 is here" in text
    assert text[-1] == "eBGP session"
    assert len(titles(root)) == 8 + 4
    assert (
        "left-0 and tor-left-a: eBGP session, IPv4, AS 65001 and 65101, by BGPPeer tor-left-a"
        in titles(root)
    )


def test_a_mesh_is_drawn_once_for_each_ip_version() -> None:
    _, root, _ = drawn((ROOT / "examples" / "dual-stack.yaml").read_text())

    assert len(titles(root)) == 6
    assert said(root)[-2:] == ["iBGP session", "dotted: over IPv6"]
    dotted = [one for one in root.iter(f"{SVG}path") if "stroke-dasharray" in one.attrib]
    assert len(dotted) == 3


def test_reflectors_are_said_to_be_such() -> None:
    _, root, _ = drawn((ROOT / "examples" / "route-reflectors.yaml").read_text())

    assert "reflects, cluster 10.30.8.0" in said(root)
    assert len(titles(root)) == 10


@pytest.mark.parametrize(
    ("number", "is_up"), [(65000, True), (65001, False)], ids=["its number", "another one"]
)
def test_a_session_needs_both_ends_and_their_numbers(number: int, is_up: bool) -> None:
    _, root, found = drawn(TWO + PEER.format(name="up", ip="10.0.0.3", number=number))

    assert [(one.ends, one.is_up, one.is_internal) for one in found] == [
        (("left", "right"), True, True),
        (("left", "tor"), is_up, False),
        (("tor", "right"), False, False),
    ]
    assert any("wanted by one end only" in title for title in titles(root))


def test_what_is_not_up_is_dashed_and_says_what_is_wanted() -> None:
    _, root, _ = drawn(TWO + PEER.format(name="tor", ip="10.0.0.3", number=65001))

    dashes = {
        element.findtext(f"{SVG}title", ""): element.get("stroke-dasharray")
        for element in root.iter(f"{SVG}path")
    }
    ((title, dash),) = [one for one in dashes.items() if one[0].startswith("left and tor")]
    assert dash == "8 4"
    assert "wanted by one end only, or with other AS numbers, IPv4" in title
    assert "left wants AS 64512 and 65001" in title
    assert any(line.get("stroke-dasharray") == "8 4" for line in root.iter(f"{SVG}line"))


def test_a_wrong_address_of_a_router_is_drawn_beside_the_right_one() -> None:
    text = TWO.replace("asNumber: 65000", "uplink: 10.9.0.3/24, asNumber: 65000")
    right = PEER.format(name="right", ip="10.0.0.3", number=65000)

    _, _, found = drawn(text + right + PEER.format(name="wrong", ip="10.9.0.3", number=65000))

    assert [one.is_up for one in found if one.ends == ("left", "tor")] == [True, False]


def test_who_is_not_in_the_file_is_named() -> None:
    _, root, _ = drawn(TWO + PEER.format(name="far", ip="10.0.0.99", number=65000))

    assert "calls 10.0.0.99, which is not in this file" in said(root)


@pytest.mark.parametrize("example", ["exercise", "route-reflectors", "tor"])
def test_the_pictures_of_the_documentation_are_no_older(example: str, tmp_path: Path) -> None:
    made = tmp_path / "picture.svg"
    topology = ROOT / "examples" / f"{example}.yaml"

    assert main(["topology", "-f", str(topology), "--output", str(made)]) == 0

    kept = ROOT / "docs" / "pictures" / f"{example}.svg"
    assert made.read_text() == kept.read_text(), (
        f"make it anew: bin/pycnictl topology -f examples/{example}.yaml"
        f" --output docs/pictures/{example}.svg"
    )


def test_without_a_file_it_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topology", "-f", str(ROOT / "examples" / "exercise.yaml")]) == 0

    assert capsys.readouterr().out.startswith("<svg ")
