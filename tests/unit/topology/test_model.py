"""Topology files: what they say, and every way in which they can be wrong."""

import copy
from collections.abc import Callable
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest
import yaml

from pycni.errors import InvalidInput
from pycni.topology.model import load_topology, parse_pod, parse_topology, read_topology

EXERCISE = Path(__file__).resolve().parents[3] / "examples" / "exercise.yaml"
MINIMAL: dict[str, Any] = {
    "nodes": [
        {
            "name": "a",
            "address": "10.0.0.2/24",
            "gateway": "10.0.0.1",
            "address6": "fd00::2/64",
            "gateway6": "fd00::1",
        },
        {"name": "b", "address": "10.0.1.2/24", "gateway": "10.0.1.1", "mtu": 9000},
    ],
    "hosts": [
        {
            "name": "h",
            "address": "10.0.2.2/24",
            "gateway": "10.0.2.1",
            "address6": "fd00:2::2/64",
            "gateway6": "fd00:2::1",
        }
    ],
    "routers": [
        {
            "name": "r",
            "address": "10.0.3.2/24",
            "gateway": "10.0.3.1",
            "uplink": "10.9.0.2/24",
            "asNumber": 65000,
            "clusterID": "10.0.3.0",
            "peers": ["a", "b"],
        }
    ],
    "pods": [
        {"name": "default/one", "node": "a", "address": "192.168.0.9", "address6": "fd00:9::9"},
        {"name": "default/two", "node": "b", "hostInterface": "calitwo"},
    ],
}

Edit = Callable[[dict[str, Any]], object]


def test_exercise_has_three_nodes_and_its_fixed_names() -> None:
    topology = load_topology(EXERCISE)

    assert [n.name for n in topology.nodes] == ["node-0", "node-1", "node-2"]
    assert topology.nodes[2].address == ip_interface("10.10.43.25/20")
    assert [str(p.cidr) for p in topology.pools] == ["192.168.0.0/16"]
    assert [p.interface for p in topology.pods] == [
        "cali12b0eb5c038",
        "calibe752d56965",
        "calia5daa4e7a1d",  # not given in the file: it follows from the pod's name
        "cali9ff153fb143",
    ]


def test_minimal_file_has_defaults() -> None:
    topology = parse_topology(copy.deepcopy(MINIMAL))

    assert topology.name == "lab"
    assert [n.mtu for n in topology.nodes] == [1500, 9000]
    assert topology.pods[0].address == ip_address("192.168.0.9")
    assert topology.pods[0].full_name == "default/one"
    assert topology.pools == ()


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda d: d.update(nonsense=1), "unknown key 'nonsense'"),
        (lambda d: d.update(name=5), "name must be a string"),
        (lambda d: d.update(name="Not A Name"), "is no name"),
        (lambda d: d.update(nodes=[]), "at least one"),
        (lambda d: d.update(nodes={}), "must be a list"),
        (lambda d: d.update(nodes=["a"]), r"nodes\[0\] must be a mapping"),
        (lambda d: d["nodes"][0].pop("name"), r"nodes\[0\].name is missing"),
        (lambda d: d["nodes"][0].update(address="10.0.0.2"), "with prefix"),
        (lambda d: d["nodes"][0].update(address="fd00::1/64"), "must be IPv4"),
        (lambda d: d["nodes"][0].update(address="10.0.0.300/24"), "address"),
        (lambda d: d["nodes"][0].update(gateway="nowhere"), "gateway"),
        (lambda d: d["nodes"][0].update(gateway="10.9.9.9"), "no other address"),
        (lambda d: d["nodes"][0].update(gateway="10.0.0.2"), "no other address"),
        (lambda d: d["nodes"][1].update(mtu="big"), "must be a number"),
        (lambda d: d["nodes"][1].update(mtu=True), "must be a number"),
        (lambda d: d["nodes"][1].update(name="a"), "name 'a' is given twice"),
        (lambda d: d["hosts"][0].update(name="b"), "name 'b' is given twice"),
        (lambda d: d["routers"][0].update(name="h"), "name 'h' is given twice"),
        (lambda d: d["routers"][0].pop("asNumber"), r"routers\[0\].asNumber is missing"),
        (lambda d: d["routers"][0].update(asNumber=0), "asNumber must be 1 to 4294967295"),
        (lambda d: d["routers"][0].update(clusterID="x"), "clusterID"),
        (lambda d: d["routers"][0].update(uplink="10.9.0.2"), "uplink must be IPv4 with prefix"),
        (lambda d: d["routers"][0].update(uplink="10.0.3.3/24"), "uplink is to be in another"),
        (lambda d: d["routers"][0].update(uplink="10.0.0.2/24"), "'10.0.0.2' is given twice"),
        (lambda d: d["routers"][0].update(peers="a"), "peers must be a list"),
        (lambda d: d["routers"][0].update(peers=["a", 5]), "peers: 5 is no name"),
        (lambda d: d["routers"][0].update(peers=["h"]), "no node or router 'h' to peer with"),
        (lambda d: d["routers"][0].update(peers=["r"]), "no node or router 'r' to peer with"),
        (lambda d: d["routers"][0].update(gateway="10.0.3.2"), "r: gateway 10.0.3.2 is no other"),
        (
            lambda d: d["hosts"][0].update(address="10.0.0.2/24", gateway="10.0.0.1"),
            "address '10.0.0.2' is given twice",
        ),
        (lambda d: d["pods"][0].update(name="one"), "namespace/name"),
        (lambda d: d["pods"][0].update(name="default/"), "namespace/name"),
        (lambda d: d["pods"][0].update(name="-/one"), "namespace/name"),
        (lambda d: d["pods"][0].update(node="c"), "no node 'c'"),
        (lambda d: d["pods"][0].update(address="192.168.0"), "address"),
        (lambda d: d["pods"][0].update(hostInterface="eth0"), "hostInterface"),
        (lambda d: d["pods"][0].update(node="A"), "is no name"),
        (lambda d: d["pods"][0].update(hostInterface="calitwo"), "interface 'calitwo' is given"),
        (lambda d: d["pods"][1].update(address="192.168.0.9"), "pod address"),
        (lambda d: d["pods"][1].update(name="default/one"), "pod 'default/one' is given twice"),
        (lambda d: d["pods"][0].update(colour="red"), "unknown key 'colour'"),
        (lambda d: d.update(resources=[{"kind": "IPPool"}]), "apiVersion"),
        (lambda d: d["nodes"][0].pop("gateway6"), "address6 and gateway6 need each other"),
        (lambda d: d["nodes"][0].pop("address6"), "address6 and gateway6 need each other"),
        (lambda d: d["nodes"][0].update(address6="fd00::2"), "must be IPv6 with prefix"),
        (lambda d: d["nodes"][0].update(address6="10.0.0.2/24"), "must be IPv6 with prefix"),
        (lambda d: d["nodes"][0].update(address6="fe80::2/64"), "not link-local"),
        (lambda d: d["nodes"][0].update(address6="fd00::x/64"), r"nodes\[0\].address6: 'fd00::x/"),
        (lambda d: d["nodes"][0].update(gateway6="10.0.0.1"), "gateway6 must be IPv6"),
        (lambda d: d["nodes"][0].update(gateway6="fd00:1::1"), "no other address of fd00::/64"),
        (lambda d: d["nodes"][0].update(mtu=1279), "a: mtu 1279 is below 1280"),
        (lambda d: d["hosts"][0].update(gateway6="fd00:2::2"), "no other address of fd00:2::/64"),
        (lambda d: d["hosts"][0].update(address6="fd00::2/64", gateway6="fd00::1"), "given twice"),
        (lambda d: d["pods"][0].update(address6="192.168.0.8"), "address6 must be IPv6"),
        (lambda d: d["pods"][0].update(address="fd00:9::8"), "are both IPv6"),
        (lambda d: d["pods"][1].update(address="fd00:9::9"), "pod address 'fd00:9::9' is given"),
    ],
)
def test_mistake_is_named(edit: Edit, complaint: str) -> None:
    document = copy.deepcopy(MINIMAL)
    edit(document)

    with pytest.raises(InvalidInput, match=complaint):
        parse_topology(document)


def test_ipv6_is_said_beside_ipv4_or_not_at_all() -> None:
    topology = parse_topology(copy.deepcopy(MINIMAL))

    assert [str(n.address6) for n in topology.nodes] == ["fd00::2/64", "None"]
    assert str(topology.hosts[0].gateway6) == "fd00:2::1"
    assert [str(a) for a in topology.pods[0].addresses] == ["192.168.0.9", "fd00:9::9"]
    assert topology.pods[1].addresses == ()


@pytest.mark.parametrize(
    ("cidrs", "versions"),
    [
        ((), (4,)),
        (("192.168.0.0/16",), (4,)),
        (("fd00:9::/112", "192.168.0.0/16"), (4, 6)),
        (("fd00:9::/112",), (6,)),
        (("192.168.0.0/16", "fd00:9::/112 disabled"), (4,)),
    ],
)
def test_pods_get_the_ip_versions_that_pools_serve(
    cidrs: tuple[str, ...], versions: tuple[int, ...]
) -> None:
    pools = [
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": "IPPool",
            "metadata": {"name": f"pool-{number}"},
            "spec": {"cidr": text.split()[0], "disabled": text.endswith("disabled")},
        }
        for number, text in enumerate(cidrs)
    ]

    topology = parse_topology(copy.deepcopy(MINIMAL) | {"resources": pools})

    assert topology.pod_versions == versions


@pytest.mark.parametrize(
    ("example", "versions"), [("exercise", (4,)), ("cross-subnet", (4,)), ("dual-stack", (4, 6))]
)
def test_tables_are_of_the_ip_versions_that_a_cluster_has(
    example: str, versions: tuple[int, ...]
) -> None:
    topology = load_topology(EXERCISE.with_name(f"{example}.yaml"))

    assert topology.versions == versions


def test_ipv6_pool_alone_makes_a_cluster_of_both_ip_versions() -> None:
    document = copy.deepcopy(MINIMAL)
    for key in ("address6", "gateway6"):
        del document["nodes"][0][key]
    pool = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": "six"},
        "spec": {"cidr": "fd00:9::/112"},
    }

    assert parse_topology(document).versions == (4,)
    assert parse_topology(document | {"resources": [pool]}).versions == (4, 6)


def test_document_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(InvalidInput, match="topology must be a mapping"):
        parse_topology(["nodes"])


def test_errors_name_the_file(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(MINIMAL | {"nodes": []}))
    broken = tmp_path / "broken.yaml"
    broken.write_text("nodes: [")

    for path, complaint in ((wrong, "at least one"), (broken, "line 1, column 9: ")):
        with pytest.raises(InvalidInput, match=complaint) as refusal:
            load_topology(path)
        assert str(path) in str(refusal.value)
    with pytest.raises(InvalidInput, match="cannot read"):
        load_topology(tmp_path / "absent.yaml")


@pytest.mark.parametrize("count", [1, 2])
def test_manifest_in_place_of_a_topology_is_called_so(count: int) -> None:
    manifest = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: a}\n"

    with pytest.raises(InvalidInput) as refused:
        read_topology("---\n".join([manifest] * count), source="pool.yaml")

    assert str(refused.value) == (
        "pool.yaml: this is a manifest (IPPool), no topology: apply it to a network by"
        "  pycnictl apply -f,  or put it into the resources of a topology"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes: [", "cannot read x: line 1, column 9: expected"),
        ("name: 2026-99-99", "cannot read x: month must be"),
        ("[" * 5000, "cannot read x: maximum recursion"),
        ("name: a\nname: b", "cannot read x: line 2, column 1: the key 'name' is given twice"),
    ],
)
def test_broken_text_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        read_topology(text, source="x")

    assert "\n" not in str(refused.value)


def test_topology_is_one_document() -> None:
    with pytest.raises(InvalidInput, match="x: a topology is one document, and here are 2"):
        read_topology("nodes: []\n---\nnodes: []\n", source="x")
    with pytest.raises(InvalidInput, match="x: topology must be a mapping"):
        read_topology("", source="x")


def test_one_pods_document_is_checked_alone() -> None:
    pod = parse_pod({"name": "default/one", "node": "anywhere"})

    assert pod.full_name == "default/one"
    with pytest.raises(InvalidInput, match="pod must be a mapping"):
        parse_pod("default/one")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "topology.yaml"
    path.write_bytes(b"name: \xff")

    with pytest.raises(InvalidInput, match="is no YAML"):
        load_topology(path)
