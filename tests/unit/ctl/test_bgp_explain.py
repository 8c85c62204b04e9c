"""`pycnictl bgp explain`: each node's part in a prefix, with the reason for what isn't there."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Interface, ip_address, ip_interface, ip_network

import pytest

from pycni.ctl.main import main
from pycni.datastore.memory import MemoryDatastore
from pycni.model.network import Address
from pycni.model.resources import (
    AffinityState,
    BlockAffinity,
    IPPool,
    Node,
    Resource,
    TunnelMode,
)
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer, FilterAction, FilterRule
from pycni.plan.inputs import Settings
from pycni.topology.explain import Standing, standings
from pycni.topology.paper import Cluster, exchange, read_cluster
from tests.unit.ctl.conftest import Machine
from tests.unit.written_books import CIDR, DETAILS, POD_HANDLE, empty_block, give

POOL = IPPool("default", ip_network("192.168.0.0/16"), ipip_mode=TunnelMode.ALWAYS)
BLOCK = BlockAffinity("node-1", CIDR, AffinityState.CONFIRMED)
NODES = tuple(
    Node(f"node-{number}", ipv4=IPv4Interface(address))
    for number, address in enumerate(("10.10.7.20/20", "10.10.24.89/20", "10.10.43.25/20"))
)
CLUSTER: tuple[Resource, ...] = (POOL, BLOCK, *NODES)
NO_MESH = BGPConfiguration(is_node_mesh_enabled=False)
ROUTER = ip_address("10.10.0.1")


def said(machine: Machine, *words: str, status: int = 0, errors: bool = False) -> list[str]:
    machine.capsys.readouterr()
    line = ["--datastore", str(machine.database), "bgp", "explain", *words]
    assert main([*line, "--run-dir", str(machine.run_dir)]) == status
    printed = machine.capsys.readouterr()
    return [" ".join(one.split()) for one in (printed.err if errors else printed.out).splitlines()]


def parts(machine: Machine, prefix: str = str(CIDR)) -> list[str]:
    """Return the rows of the nodes."""
    lines = said(machine, prefix)
    return [line for line in lines if line.startswith("node-")]


def test_everybody_has_a_part(machine: Machine) -> None:
    machine.write(*CLUSTER)

    assert said(machine, str(CIDR)) == [
        "192.168.39.192/26 is a block of pool default (192.168.0.0/16), node-1's (confirmed)",
        "",
        "NODE PART WHY",
        "node-1 announces it to node-0, node-2",
        "node-0 has a route by 10.10.24.89 dev tunl0",
        "node-2 has a route by 10.10.24.89 dev tunl0",
        "",
        "no agent runs on this machine: what comes and goes by BGP was not looked at",
    ]


def test_an_address_means_the_block_around_it(machine: Machine) -> None:
    machine.write(*CLUSTER)

    assert said(machine, "192.168.39.200")[0].startswith("192.168.39.192/26 is a block")


def test_a_wider_prefix_is_too_many(machine: Machine) -> None:
    machine.write(*CLUSTER)

    (error,) = said(machine, "192.168.0.0/16", status=2, errors=True)

    assert error.endswith("holds 1 prefixes of nodes: name one of 192.168.39.192/26")


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        (
            "192.168.1.0/26",
            "lies in pool default (192.168.0.0/16), and no node has claimed a block",
        ),
        ("10.1.2.3", "lies in no pool: no node announces or takes it"),
    ],
)
def test_what_no_node_has_is_said_to_be_so(machine: Machine, asked: str, what: str) -> None:
    machine.write(*CLUSTER)

    (error,) = said(machine, asked, status=1, errors=True)

    assert what in error


def test_what_is_no_prefix_is_refused(machine: Machine) -> None:
    assert "say a block such as" in said(machine, "web", status=2, errors=True)[0]


def test_without_mesh_nobody_tells(machine: Machine) -> None:
    machine.write(*CLUSTER, NO_MESH)

    assert parts(machine) == [
        "node-1 announces it to nobody: it has no session that carries it",
        *(
            f"{name} has no route no session with node-1: neither the mesh nor a BGPPeer joins them"
            for name in ("node-0", "node-2")
        ),
    ]


def test_a_call_that_is_not_returned_is_named_at_both_ends(machine: Machine) -> None:
    peer = BGPPeer("one", node="node-0", peer_selector="all()", is_called_back=False)
    machine.write(*CLUSTER, NO_MESH, peer)

    assert parts(machine)[1] == (
        "node-0 has no route no session with node-1: node-0 calls, and nothing leads back from"
        " node-1"
    )


def test_as_numbers_that_do_not_meet_are_named(machine: Machine) -> None:
    peer = BGPPeer("one", node="node-0", peer_ip=NODES[1].ipv4.ip, as_number=65001)  # type: ignore[union-attr]
    back = BGPPeer("two", node="node-1", peer_ip=NODES[0].ipv4.ip, as_number=65002)  # type: ignore[union-attr]
    machine.write(*CLUSTER, NO_MESH, peer, back)

    assert parts(machine)[1] == (
        "node-0 has no route no session with node-1: it is AS 64512 and expects AS 65002, node-0"
        " is AS 64512 and expects AS 65001"
    )


def test_passwords_that_differ_are_named() -> None:
    ends = (("node-0", "10.10.24.89", "one"), ("node-1", "10.10.7.20", "other"))
    peers = [
        BGPPeer(name, node=name, peer_ip=ip_address(ip), as_number=64512, password=password)
        for name, ip, password in ends
    ]
    cluster = cluster_of(*CLUSTER, NO_MESH, *peers)

    (_, first, _) = told(cluster.about(CIDR))

    assert first.why == "no session with node-1: the two ends have different passwords"


@pytest.mark.parametrize(
    "more",
    [
        (),
        (NO_MESH,),
        (NO_MESH, BGPPeer("all", peer_selector="all()")),
        (NO_MESH, BGPPeer("star", node="node-0", peer_selector="all()")),
        (NO_MESH, BGPPeer("by-address", peer_ip=ip_address("10.10.43.25"), as_number=64512)),
        (BGPPeer("tor", peer_ip=ROUTER, as_number=64512),),
        (BlockAffinity("node-2", ip_network("192.168.1.0/26"), AffinityState.CONFIRMED),),
    ],
)
def test_a_part_of_the_cluster_tells_what_all_of_it_tells(more: tuple[Resource, ...]) -> None:
    cluster = cluster_of(*CLUSTER, *more)
    whole = [(node.name, cluster) for node in cluster.nodes]

    assert told(cluster.about(CIDR)) == told(whole)


def cluster_of(*resources: Resource) -> Cluster:
    async def read() -> Cluster:
        datastore = MemoryDatastore()
        for one in resources:
            await datastore.create(one)
        return await read_cluster(datastore)

    return asyncio.run(read())


def told(parts: Iterable[tuple[str, Cluster]]) -> list[Standing]:
    inputs = {name: part.inputs(Settings(node=name)) for name, part in parts}
    for one in inputs.values():
        own = one.own_interface(4)
        assert own is not None
        one.addresses = {Address("eth0", own)}
    exchange(inputs)
    return standings(CIDR, inputs)


def test_a_pool_that_is_kept_in_is_the_reason(machine: Machine) -> None:
    machine.write(replace(POOL, disable_bgp_export=True), BLOCK, *NODES)

    assert parts(machine)[:2] == [
        "node-1 keeps it pool default has disableBGPExport",
        "node-0 has no route node-1 keeps it from here, as its own line says",
    ]


@pytest.mark.parametrize(
    ("affinity", "what"),
    [
        (replace(BLOCK, state=AffinityState.PENDING), "pending"),
        (replace(BLOCK, is_deleted=True), "being given up"),
    ],
)
def test_a_claim_that_does_not_count_is_the_reason(
    machine: Machine, affinity: BlockAffinity, what: str
) -> None:
    machine.write(POOL, affinity, *NODES)

    assert parts(machine)[0] == f"node-1 keeps it the block's affinity is {what}, not confirmed"


def test_a_block_of_no_pool_stays_where_it_is(machine: Machine) -> None:
    machine.write(BLOCK, *NODES)

    assert parts(machine)[0] == "node-1 keeps it it lies in no pool"


def test_a_node_without_address_has_no_session(machine: Machine) -> None:
    machine.write(POOL, BLOCK, NODES[0], Node("node-1"))

    assert parts(machine) == [
        "node-1 keeps it the node has no IPv4 address",
        "node-0 has no route node-1 has no IPv4 address for a session",
    ]


def test_a_filter_is_named_where_it_keeps_something(machine: Machine) -> None:
    reject = BGPFilter("closed", export_v4=(FilterRule(FilterAction.REJECT),))
    router = BGPPeer("tor", peer_ip=ROUTER, as_number=64512, filters=("closed",))
    machine.write(*CLUSTER, reject, router)

    (row, *_) = parts(machine)

    assert row.startswith("node-1 announces it to node-0, node-2; not to 10.10.0.1: ")
    assert "closed" in row


def test_routers_may_tell_what_the_datastore_does_not_know(machine: Machine) -> None:
    machine.write(*CLUSTER, NO_MESH, BGPPeer("tor", peer_ip=ROUTER, as_number=64512))

    assert parts(machine)[:2] == [
        "node-1 announces it to 10.10.0.1 (BGPPeer tor)",
        (
            "node-0 may have a route if 10.10.0.1 (BGPPeer tor) passes it on: see pycnictl bgp"
            " routes there; no session with node-1: neither the mesh nor a BGPPeer joins them"
        ),
    ]


def test_what_is_rejected_says_why(machine: Machine) -> None:
    closed = BGPFilter("closed", import_v4=(FilterRule(FilterAction.REJECT),))
    peer = BGPPeer("one", peer_selector="all()", filters=("closed",))
    machine.write(*CLUSTER, NO_MESH, closed, peer)

    assert parts(machine)[1].startswith("node-0 has no route rejected from 10.10.24.89: ")


def test_a_borrowed_address_is_announced_by_who_has_it(machine: Machine) -> None:
    block = give(empty_block(affinity="node-1"), POD_HANDLE, **DETAILS | {"node": "node-2"})
    machine.write(*CLUSTER, block)

    first, _, *rows = said(machine, str(CIDR.network_address))

    assert first.endswith("that node-2 borrows from another node's block")
    assert rows[1:4] == [
        "node-2 announces it to node-0, node-1",
        "node-0 has a route by 10.10.43.25 dev tunl0",
        "node-1 has a route by 10.10.43.25 dev tunl0",
    ]


def test_ipv6_has_sessions_of_its_own(machine: Machine) -> None:
    pool = IPPool("six", ip_network("fd00:1::/64"), block_size=122)
    block = BlockAffinity("node-1", ip_network("fd00:1::40/122"), AffinityState.CONFIRMED)
    near = (
        replace(NODES[0], ipv6=ip_interface("fd10::7/64")),
        replace(NODES[1], ipv6=ip_interface("fd10::24/64")),
        NODES[2],
    )
    machine.write(pool, block, *near)

    assert parts(machine, "fd00:1::40/122") == [
        "node-1 announces it to node-0",
        "node-0 has a route by fd10::24",
        "node-2 has no route node-2 has no IPv6 address for a session",
    ]


def row(**changes: object) -> dict[str, object]:
    return {"peer": "10.10.24.89", "node": "node-1", "prefix": str(CIDR), "reason": ""} | changes


def test_what_the_agent_here_has_heard_is_told(agent: Machine) -> None:
    agent.write(*CLUSTER)
    agent.answers |= {
        "status": {"node": "node-0"},
        "bgp_routes": {
            "learned": [row(), row(peer="10.10.0.1", node=None, reason="it lies in no pool"),
                        row(prefix="10.0.0.0/8")],
            "announced": [{"prefix": str(CIDR), "to": []}],
        },
        "bgp_peers": {"peers": [
            row(state="up"),
            row(peer="10.10.43.25", node="node-2", state="down", last_error="the peer sent Cease"),
        ]},
    }  # fmt: skip

    lines = said(agent, str(CIDR))
    document = json.loads("\n".join(said(agent, str(CIDR), "-o", "json")))

    assert lines[-5:] == [
        "as it is on node-0:",
        "heard from node-1: used",
        "heard from 10.10.0.1: it lies in no pool",
        "announced to nobody",
        "no session with node-2: the peer sent Cease",
    ]
    assert document["nodes"][0] == {
        "node": "node-1", "part": "announces", "why": "to node-0, node-2",
    }  # fmt: skip
    assert document["here"]["node"] == "node-0"


def test_an_agent_that_has_nothing_of_it_says_so(agent: Machine) -> None:
    agent.write(*CLUSTER)
    empty: dict[str, list[object]] = {"learned": [], "announced": []}
    agent.answers |= {
        "status": {"node": "node-0"}, "bgp_routes": empty, "bgp_peers": {"peers": []},
    }  # fmt: skip

    assert said(agent, str(CIDR))[-1] == "heard from nobody, announced to nobody"
