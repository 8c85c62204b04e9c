"""Names and rules of the datastore's objects."""

from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from pycni.errors import InvalidInput
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    Handle,
    IPPool,
    Resource,
    TunnelMode,
    affinity_name,
    resource_name,
)

V4 = IPv4Network("192.168.39.192/26")
V6 = IPv6Network("fd00:10::/122")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Block(V4, None, (), ()), "192-168-39-192-26"),
        (Block(V6, None, (), ()), "fd00-10---122"),
        (BlockAffinity("node-0", V4, AffinityState.PENDING), "node-0-192-168-39-192-26"),
        (Handle("K8s-Pod-Network.ABC"), "k8s-pod-network.abc"),
        (IPPool("default", V4), "default"),
    ],
)
def test_objects_are_called_as_calico_calls_them(value: Resource, name: str) -> None:
    assert resource_name(value) == name


def test_long_affinity_names_are_cut_and_stay_distinct() -> None:
    names = {affinity_name("n" * 240 + tail, cidr=V4) for tail in ("a", "b")}

    assert len(names) == 2
    assert {len(name) for name in names} == {252}


def test_names_of_252_characters_are_left_alone() -> None:
    node = "n" * (252 - len("-192-168-39-192-26"))

    assert affinity_name(node, cidr=V4) == f"{node}-192-168-39-192-26"
    assert "192-168-39-192-26-" in affinity_name(node + "n", cidr=V4)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"block_size": 33}, "blockSize 33 is outside 20 to 32 for IPv4"),
        ({"block_size": 25}, "smaller than one block"),
        ({"cidr": V6, "block_size": 122, "ipip_mode": TunnelMode.ALWAYS}, "Never for an IPv6"),
        (
            {"ipip_mode": TunnelMode.ALWAYS, "vxlan_mode": TunnelMode.CROSS_SUBNET},
            "exclude each other",
        ),
    ],
)
def test_a_pool_that_cannot_work_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        IPPool(**{"name": "p", "cidr": V4, **fields})
