"""Objects beside each other: what of a file does not fit what is there, or itself."""

from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
)
from typing import Any

import pytest

from pycni.model.resources import (
    IPPool,
    Node,
)
from pycni.model.resources_bgp import BGPConfiguration
from pycni.model.schema_config import Config
from pycni.model.schema_rules import merged, mistakes_of
from pycni.model.schema_yaml import Manifest


def pool(name: str, cidr: str, **fields: Any) -> IPPool:  # noqa: ANN401 - any field.
    return IPPool(name, IPv4Network(cidr), **fields)


def node(name: str, address: str) -> Node:
    return Node(name, IPv4Interface(address))


@pytest.mark.parametrize(
    ("new", "existing", "words"),
    [
        (pool("a", "10.0.0.0/16"), [pool("b", "10.0.128.0/17")], "overlaps pool b"),
        (pool("a", "10.10.0.0/16"), [node("n", "10.10.7.20/20")], "overlaps the subnet 10.10.0.0"),
        (pool("a", "169.254.0.0/17"), [], "overlaps 169.254.0.0/16"),
        (node("n", "10.10.7.20/20"), [pool("b", "10.0.0.0/8")], "of node n overlaps pool b"),
        (pool("a", "10.0.0.0/16"), [pool("a", "10.1.0.0/16")], "spec.cidr: cannot be changed"),
        (
            pool("a", "10.0.0.0/16"),
            [pool("a", "10.0.0.0/16", block_size=28)],
            "spec.blockSize: cannot be changed from 28 to 26",
        ),
    ],
)
def test_objects_that_do_not_fit_are_refused(
    new: Config, existing: list[Config], words: str
) -> None:
    (mistake,) = mistakes_of([Manifest(new, "f, document 1")], existing=existing)

    assert mistake.startswith("f, document 1: ")
    assert words in mistake


def test_objects_of_one_file_are_compared_too() -> None:
    manifests = [Manifest(pool("a", "10.0.0.0/16"), "f1"), Manifest(pool("b", "10.0.0.0/8"), "f2")]

    assert len(mistakes_of(manifests, existing=[])) == 2


def test_what_fits_is_fine() -> None:
    manifests = [
        Manifest(pool("a", "10.0.0.0/16", nat_outgoing=True), "f1"),
        Manifest(node("n", "10.10.7.20/20"), "f2"),
        Manifest(Node("bare"), "f3"),
        Manifest(BGPConfiguration(), "f4"),
    ]

    assert mistakes_of(manifests, existing=[pool("a", "10.0.0.0/16")]) == []


def test_applying_a_node_keeps_its_tunnel_address() -> None:
    existing = Node("n", ipip_tunnel_address=IPv4Address("192.168.0.1"))

    assert merged(Node("n", as_number=5), existing=existing) == Node(
        "n", as_number=5, ipip_tunnel_address=IPv4Address("192.168.0.1")
    )
    assert merged(pool("a", "10.0.0.0/16"), existing=None) == pool("a", "10.0.0.0/16")
