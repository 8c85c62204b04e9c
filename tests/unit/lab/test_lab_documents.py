"""What the lab tells programs: the verbs' documents, and the option that asks for them."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from pycni.lab import checks, documents, tables
from pycni.lab.cli import build_parser
from pycni.topology.model import Topology, load_topology

EXERCISE = Path(__file__).parents[3] / "examples" / "exercise.yaml"


@pytest.fixture
def exercise() -> Topology:
    return load_topology(EXERCISE)


def test_show_describes_each_node_with_its_table_and_agent(exercise: Topology) -> None:
    compared = [
        tables.compare(node.name, output="a\n", predicted=["a", "b"]) for node in exercise.nodes
    ]

    document = documents.show_document(
        exercise, comparisons=compared, statuses={"node-1": {"converged": True}}, addresses={}
    )

    assert document["nodes"][1] == {
        "node": "node-1",
        "address": "10.10.24.89/20",
        "routes": ["a"],
        "predicted": ["a", "b"],
        "as_predicted": False,
        "agent": {"converged": True},
    }
    assert document["nodes"][0]["agent"] is None


def test_show_describes_each_pod_with_its_address(exercise: Topology) -> None:
    compared = [tables.compare(n.name, output="", predicted=[]) for n in exercise.nodes]
    addresses = {"default/dnsutils": (ip_address("192.168.39.193"),)}

    document = documents.show_document(
        exercise, comparisons=compared, statuses={}, addresses=addresses
    )

    assert document["pods"][0] == {
        "pod": "default/dnsutils",
        "node": "node-0",
        "interface": "cali12b0eb5c038",
        "address": "192.168.39.193",
    }
    assert document["pods"][1]["address"] is None


def test_show_describes_ipv6_where_there_is_any() -> None:
    topology = load_topology(EXERCISE.with_name("dual-stack.yaml"))
    four = [tables.compare(n.name, output="a", predicted=["a"]) for n in topology.nodes]
    six = [tables.compare(n.name, output="b", predicted=["c"], family=6) for n in topology.nodes]
    addresses = {"default/web": (ip_address("192.168.247.11"), ip_address("fd00::b"))}

    document = documents.show_document(
        topology, comparisons=[*four, *six], statuses={}, addresses=addresses
    )

    assert document["nodes"][0] == {
        "node": "node-0",
        "address": "10.10.7.20/20",
        "routes": ["a"],
        "predicted": ["a"],
        "address6": "fd00:10:10::720/64",
        "routes6": ["b"],
        "predicted6": ["c"],
        "as_predicted": False,
        "agent": None,
    }
    assert document["pods"][3]["address"] == "192.168.247.11"
    assert document["pods"][3]["address6"] == "fd00::b"


def test_test_describes_its_rows() -> None:
    rows = [checks.Row("ping", checks.Verdict.FAIL, "silence")]

    assert documents.test_document(rows, is_right=False) == {
        "all_well": False,
        "checks": [{"check": "ping", "verdict": "FAIL", "seen": "silence"}],
    }


@pytest.mark.parametrize("verb", ["show", "test"])
@pytest.mark.parametrize("form", ["json", "yaml", "table"])
def test_verbs_that_list_take_a_format(verb: str, form: str) -> None:
    assert build_parser().parse_args([verb, "-o", form]).output == form
