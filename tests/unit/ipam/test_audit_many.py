"""Books of a large cluster: one leak among very many nodes and addresses is found, and soon."""

import time
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

from pycni.ipam import block as arithmetic
from pycni.ipam.audit import audit
from pycni.ipam.books import Books, NodeRecords
from pycni.ipam.findings import Kind
from pycni.model.endpoints import (
    AssignedAddress,
    EndpointKey,
    EndpointState,
    WorkloadEndpoint,
)
from pycni.model.resources import AffinityState, Block, BlockAffinity, Handle
from tests.unit.written_books import POOL

NODES, PODS = 200, 64


def pod(node: str, number: int) -> EndpointKey:
    return EndpointKey("net", f"{node}-c{number}", "eth0")


def handle_of(key: EndpointKey) -> str:
    return f"{key.network}.{key.container_id}"


def block_of(number: int) -> Block:
    """Return a node's block, every address of which a pod has."""
    node = f"node-{number}"
    cidr = IPv4Network((int(POOL.cidr.network_address) + 64 * number, 26))
    block = arithmetic.new_block(cidr, affinity=node, sequence_number=1)
    for at in range(PODS):
        key = pod(node, at)
        details = {"network": "net", "container": key.container_id, "interface": "eth0"}
        block, _ = arithmetic.auto_assign(
            block,
            count=1,
            handle_id=handle_of(key),
            attributes=(details | {"node": node}).items(),
        )
    return block


def records_of(block: Block) -> NodeRecords:
    node = str(block.affinity)
    endpoints = [
        WorkloadEndpoint(
            key=pod(node, at),
            node=node,
            netns="/run/netns/x",
            host_veth=f"cali{at}",
            handle_id=handle_of(pod(node, at)),
            state=EndpointState.READY,
            addresses=(
                AssignedAddress(IPv4Interface(f"{one.address}/32"), one.sequence_number or 0),
            ),
        )
        for at, one in enumerate(arithmetic.given(block))
    ]
    return NodeRecords(node, tuple(endpoints))


def large_cluster() -> Books:
    blocks = tuple(block_of(number) for number in range(NODES))
    return Books(
        pools=(POOL,),
        blocks=blocks,
        handles=tuple(
            Handle(str(one.attribute.handle_id), ((block.cidr, 1),))
            for block in blocks
            for one in arithmetic.given(block)
        ),
        affinities=tuple(
            BlockAffinity(str(b.affinity), b.cidr, AffinityState.CONFIRMED) for b in blocks
        ),
        nodes=frozenset(str(block.affinity) for block in blocks),
        records=tuple(map(records_of, blocks)),
    )


def test_one_leak_among_very_many_nodes_and_addresses_is_found_soon() -> None:
    books = large_cluster()
    *others, last = books.records
    lost = replace(last, endpoints=(*last.endpoints[:17], *last.endpoints[18:]))
    began = time.process_time()

    (found,) = audit(replace(books, records=(*others, lost)))

    assert time.process_time() - began < 5  # a look at all pairs would take minutes
    assert found.kind is Kind.ADDRESS_LEAKED
    assert "node-199" in found.sentence
    assert "c17" in found.sentence
