"""What a topology's nodes will route, where IPv6 is only at some of them or pods have left."""

import asyncio
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Interface, ip_address
from pathlib import Path

from pycni.model.resources import Node
from pycni.topology.model import Topology, TopologyPod, load_topology
from pycni.topology.predict import predict

DUAL_STACK = load_topology(Path(__file__).parents[3] / "examples" / "dual-stack.yaml")
LINE = "fd00:192:168::f700/122 via fd00:10:10::4325 dev eth0 proto bird metric 1024 pref medium"
NODE_1_BLOCK = "blackhole fd00:192:168::5480/122 dev lo proto bird metric 1024 pref medium"


def six(topology: Topology, node: str, *, departed: tuple[TopologyPod, ...] = ()) -> list[str]:
    return asyncio.run(predict(topology, departed=departed)).lines(node, family=6)


def test_node_without_ipv6_routes_its_own_pods_alone() -> None:
    nodes = tuple(
        replace(n, address6=None, gateway6=None) if n.name == "node-0" else n
        for n in DUAL_STACK.nodes
    )
    topology = replace(DUAL_STACK, nodes=nodes)

    assert [line.split()[0] for line in six(topology, "node-0")] == [
        "fd00:192:168::27c0",
        "fd00:192:168::27c1",
        "blackhole",
    ]
    assert not [line for line in six(topology, "node-1") if "27c0/122" in line]
    assert LINE in six(topology, "node-1")


def test_node_in_another_ipv6_subnet_learns_nothing_that_it_could_not_reach() -> None:
    far = replace(
        DUAL_STACK.nodes[1],
        address6=IPv6Interface("fd00:10:11::2489/64"),
        gateway6=IPv6Address("fd00:10:11::1"),
    )
    topology = replace(DUAL_STACK, nodes=(DUAL_STACK.nodes[0], far, DUAL_STACK.nodes[2]))

    assert not [line for line in six(topology, "node-1") if "proto bird" in line]
    assert LINE in six(topology, "node-0")


def test_node_keeps_the_blocks_of_pods_that_have_left() -> None:
    gone = TopologyPod("default", "gone", "node-1", ip_address("192.168.84.130"))
    gone = replace(gone, address6=IPv6Address("fd00:192:168::5480"))

    assert NODE_1_BLOCK not in six(DUAL_STACK, "node-1")
    assert NODE_1_BLOCK in six(DUAL_STACK, "node-1", departed=(gone,))
    assert not [
        line for line in six(DUAL_STACK, "node-1", departed=(gone,)) if gone.interface in line
    ]


def test_pod_that_asks_for_one_address_gets_just_that() -> None:
    pods = tuple(replace(pod, address6=None) for pod in DUAL_STACK.pods)

    assert not [line for line in six(replace(DUAL_STACK, pods=pods), "node-2") if "cali" in line]


def test_node_that_is_stated_among_the_resources_keeps_what_is_said_of_it() -> None:
    stated = Node("node-0", ipv6=IPv6Interface("fd00:10:10::99/64"), labels=(("rack", "a"),))
    nodes = tuple(replace(n, address6=None, gateway6=None) for n in DUAL_STACK.nodes)
    resources = (*DUAL_STACK.resources, stated)

    inputs = asyncio.run(predict(replace(DUAL_STACK, nodes=nodes, resources=resources))).inputs

    known = inputs["node-1"].nodes["node-0"]
    assert (known.labels, known.ipv6) == (stated.labels, stated.ipv6)
    assert known.ipv4 == DUAL_STACK.nodes[0].address
