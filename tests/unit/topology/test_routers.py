"""What others' routers pass on: reflectors to their clients, routers of racks to each other."""

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from pycni.errors import InvalidInput
from pycni.model.bgp import AdjRibsOut, Advertisement
from pycni.model.bgp import Path as Announced
from pycni.plan.peering import wanted_neighbours
from pycni.topology import routers
from pycni.topology.model import Topology, TopologyRouter, load_topology
from pycni.topology.predict import predict

EXAMPLES = Path(__file__).parents[3] / "examples"
REFLECTORS = load_topology(EXAMPLES / "route-reflectors.yaml")
RACKS = load_topology(EXAMPLES / "tor.yaml")
BLOCK = IPv4Network("172.25.9.0/26")
TAGS = frozenset({"65001:7"})


def lines(topology: Topology, node: str) -> list[str]:
    return asyncio.run(predict(topology)).lines(node)


def told(topology: Topology, *announcing: str) -> dict[str, list[Announced]]:
    """What nodes hear when each of these announces one block, the same one."""
    inputs = asyncio.run(predict(topology)).inputs
    addresses = {node.name: node.address.ip for node in topology.nodes}
    return routers.tell(
        topology,
        neighbours={name: wanted_neighbours(one) for name, one in inputs.items()},
        announced={
            name: AdjRibsOut(frozenset({Advertisement(BLOCK, addresses[name], TAGS)}))
            for name in announcing
        },
    )


def changed(topology: Topology, name: str, **fields: object) -> Topology:
    made = tuple(
        replace(router, **fields) if router.name == name else router  # type: ignore[arg-type]
        for router in topology.routers
    )
    return replace(topology, routers=made)


def test_each_client_of_a_reflector_has_all_blocks_by_their_nodes() -> None:
    assert [line for line in lines(REFLECTORS, "node-2") if "proto bird" in line] == [
        "172.24.39.192/26 via 10.30.0.10 dev tunl0 proto bird onlink",
        "172.24.84.128/26 via 10.30.0.11 dev tunl0 proto bird onlink",
        "172.24.139.64/26 via 10.30.1.13 dev eth0 proto bird",
        "172.24.217.64/26 via 10.30.2.14 dev tunl0 proto bird onlink",
        "blackhole 172.24.247.0/26 proto bird",
    ]


def test_what_a_node_announces_does_not_come_back_to_it() -> None:
    heard = told(REFLECTORS, "node-0")

    assert sorted(heard) == ["node-0", "node-1", "node-2", "node-3", "node-4"]
    assert heard.pop("node-0") == []
    for paths in heard.values():
        assert {(str(p.peer), str(p.next_hop), p.as_path) for p in paths} == {
            ("10.30.8.2", "10.30.0.10", ()),
            ("10.30.9.2", "10.30.0.10", ()),
        }


def test_one_reflector_of_two_is_enough() -> None:
    alone = replace(REFLECTORS, routers=REFLECTORS.routers[:1])

    assert lines(alone, "node-2") == lines(REFLECTORS, "node-2")


def test_reflectors_of_one_cluster_leave_alone_what_the_other_has_reflected() -> None:
    joined = changed(REFLECTORS, "reflector-a", peers=("node-0", "reflector-b"))
    joined = changed(joined, "reflector-b", peers=("node-1",))
    heard = told(joined, "node-0")

    assert heard == {"node-0": [], "node-1": []}
    apart = changed(joined, "reflector-b", cluster_id=IPv4Address("10.30.9.0"))
    (path,) = told(apart, "node-0")["node-1"]
    assert (str(path.next_hop), str(path.peer)) == ("10.30.0.10", "10.30.9.2")


def test_a_router_of_the_nodes_own_as_that_reflects_nothing_tells_nobody() -> None:
    mute = changed(
        replace(REFLECTORS, routers=REFLECTORS.routers[:1]), "reflector-a", cluster_id=None
    )

    assert told(mute, "node-0") == {name: [] for name in (f"node-{i}" for i in range(5))}


def test_a_node_has_both_routers_of_its_rack_as_ways_to_the_other_one() -> None:
    found = lines(RACKS, "left-0")

    assert "172.25.29.64/26 via 10.40.1.11 dev eth0 proto bird" in found, "its neighbour, at once"
    at = found.index("172.25.31.192/26 proto bird")
    assert found[at + 1 : at + 3] == [
        "nexthop via 10.40.1.2 dev eth0 weight 1",
        "nexthop via 10.40.1.3 dev eth0 weight 1",
    ]


def test_each_as_on_the_way_is_in_the_path() -> None:
    heard = told(RACKS, "left-1")

    assert {(p.as_path, str(p.next_hop)) for p in heard["left-0"]} == {
        ((65101, 65001), "10.40.1.11")
    }
    assert {(p.as_path, str(p.next_hop)) for p in heard["right-0"]} == {
        ((65102, 65101, 65001), "10.40.2.2"),
        ((65102, 65101, 65001), "10.40.2.3"),
    }
    assert heard["left-1"] == []
    assert {p.communities for paths in heard.values() for p in paths} == {TAGS}


def test_the_shorter_way_is_the_one_that_a_router_tells_of() -> None:
    far = TopologyRouter(
        "far", IPv4Interface("10.40.0.50/24"), IPv4Address("10.40.0.1"),
        as_number=65103, peers=("tor-left-a", "tor-right-a"),
    )  # fmt: skip
    both = replace(RACKS, routers=(*RACKS.routers, far))
    detour = changed(both, "tor-left-a", peers=("left-0",))
    detour = changed(detour, "tor-left-b", peers=())

    assert {p.as_path for p in told(both, "left-0")["right-0"]} == {(65102, 65101, 65001)}
    assert {p.as_path for p in told(detour, "left-0")["right-0"]} == {(65102, 65103, 65101, 65001)}


def test_a_session_that_only_the_router_wants_does_not_come_up() -> None:
    wrong = changed(RACKS, "tor-left-a", as_number=65199)

    assert {str(p.peer) for p in told(wrong, "right-0")["left-0"]} == {"10.40.1.3"}


def test_routers_that_are_never_done_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routers, "ROUNDS", 1)

    with pytest.raises(InvalidInput, match="not done with each other after 1 rounds"):
        told(RACKS, "left-0")
