"""Which networks pools can have beside each other, and which are no networks."""

from ipaddress import ip_network
from typing import Any

import pytest

from pycni.errors import InvalidInput
from pycni.model.resources import IPPool
from pycni.model.schema_rules import mistakes_of
from pycni.model.schema_yaml import Manifest, parse_document


def pool(name: str, cidr: str) -> IPPool:
    network = ip_network(cidr)
    return IPPool(name, network, block_size=network.max_prefixlen - 4)


def mistakes(*cidrs: str) -> list[str]:
    """Return what is wrong with pools of these networks, the last of which is new."""
    *old, new = (pool(f"p{number}", cidr) for number, cidr in enumerate(cidrs))
    return mistakes_of([Manifest(new, "f")], existing=old)


@pytest.mark.parametrize(
    "cidrs",
    [
        ("10.0.1.0/24", "10.0.0.0/24", "10.0.2.0/24"),
        ("10.0.0.0/9", "10.128.0.0/9"),
        ("fd00:0:0:1::/64", "fd00::/64", "fd00:0:0:2::/64"),
    ],
)
def test_neighbouring_pools_fit_in_any_order(cidrs: tuple[str, ...]) -> None:
    assert mistakes(*cidrs) == []
    assert mistakes(*reversed(cidrs)) == []


@pytest.mark.parametrize(
    ("four", "six"), [("10.0.0.0/24", "a00::/24"), ("10.0.0.0/24", "::a00:0/120")]
)
def test_pools_of_different_families_never_overlap(four: str, six: str) -> None:
    """Though their first bits, or their numbers, are the same."""
    assert mistakes(four, six) == mistakes(six, four) == []


@pytest.mark.parametrize("cidr", ["10.0.0.0/24", "fd00::/64"])
def test_two_pools_of_one_network_overlap(cidr: str) -> None:
    (mistake,) = mistakes(cidr, cidr)

    assert "overlaps pool p0" in mistake


@pytest.mark.parametrize("cidr", ["10.0.0.1/24", "10.0.128.0/16", "fd00::1/64", "fd00:0:0:1::/48"])
def test_a_network_with_bits_behind_its_prefix_is_refused(cidr: str) -> None:
    document: dict[str, Any] = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": "p"},
        "spec": {"cidr": cidr},
    }

    with pytest.raises(InvalidInput, match=rf"spec\.cidr: .*{cidr}"):
        parse_document(document)
