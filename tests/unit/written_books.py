"""Books without a fault, to break one rule at a time in."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from pycni.ipam import block as arithmetic
from pycni.ipam.audit import audit
from pycni.ipam.books import Books, NodeRecords
from pycni.ipam.findings import Finding, Kind
from pycni.model.endpoints import (
    AssignedAddress,
    EndpointKey,
    EndpointState,
    PendingRelease,
    WorkloadEndpoint,
)
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    Handle,
    IPPool,
    Node,
    Resource,
)

# Of now: what has rested long enough is shown as free, and other tests may run for a while first.
_NOW = datetime.now(UTC)
SINCE, UNTIL = (
    (_NOW + timedelta(seconds=after)).strftime("%Y-%m-%dT%H:%M:%SZ") for after in (0, 1200)
)
POOL = IPPool("default", IPv4Network("192.168.0.0/16"))
CIDR = IPv4Network("192.168.39.192/26")
OTHER = IPv4Network("192.168.84.128/26")
TUNNEL, POD, FREE = CIDR[0], CIDR[1], CIDR[2]
START = 1_700_000_000_000_000_000
POD_HANDLE, TUNNEL_HANDLE = "net.C1", "ipip-tunnel-addr-node-0"
KEY = EndpointKey("net", "C1", "eth0")
AFFINITY = BlockAffinity("node-0", CIDR, AffinityState.CONFIRMED)
DETAILS = {
    "network": "net",
    "container": "C1",
    "interface": "eth0",
    "node": "node-0",
    "namespace": "default",
    "pod": "web",
}


def give(block: Block, handle_id: str, **details: str) -> Block:
    return arithmetic.auto_assign(block, count=1, handle_id=handle_id, attributes=details.items())[
        0
    ]


def empty_block(cidr: IPv4Network = CIDR, *, affinity: str | None = "node-0") -> Block:
    return arithmetic.new_block(cidr, affinity=affinity, sequence_number=START)


def full_block(**details: str) -> Block:
    """Return a block with a tunnel's address and a pod's, of which there are more `details`."""
    block = give(empty_block(), TUNNEL_HANDLE, node="node-0", type="ipipTunnelAddress")
    return give(block, POD_HANDLE, **DETAILS, **details)


def endpoint(address: IPv4Address = POD, **changes: Any) -> WorkloadEndpoint:  # noqa: ANN401  # replace checks
    made = WorkloadEndpoint(
        key=KEY,
        node="node-0",
        netns="/run/netns/x",
        host_veth="cali1",
        handle_id=POD_HANDLE,
        state=EndpointState.READY,
        addresses=(AssignedAddress(IPv4Interface(f"{address}/32"), START + 1),),
    )
    return replace(made, **changes)


def records(*endpoints: WorkloadEndpoint, debts: tuple[PendingRelease, ...] = ()) -> NodeRecords:
    return NodeRecords("node-0", endpoints, debts)


def books(**changes: Any) -> Books:  # noqa: ANN401  # replace checks
    """Return books without a fault, but for the changes."""
    sound = Books(
        pools=(POOL,),
        blocks=(full_block(),),
        # In the datastore's spelling: capital letters of a handle's name are lost there.
        handles=(Handle("net.c1", ((CIDR, 1),)), Handle(TUNNEL_HANDLE, ((CIDR, 1),))),
        affinities=(AFFINITY,),
        nodes=frozenset({"node-0", "node-1"}),
        records=(records(endpoint()),),
    )
    return replace(sound, **changes)


def only(found: Books) -> Finding:
    """Return what an audit finds, which is one thing."""
    (finding,) = audit(found)
    return finding


def kinds(found: Books) -> list[Kind]:
    """Return what kinds of things an audit finds."""
    return [finding.kind for finding in audit(found)]


GONE: tuple[Resource, ...] = (POOL, full_block(), AFFINITY, *books().handles)
"""What is stored of a node that is gone: its block with a pod and a tunnel."""

THERE: tuple[Resource, ...] = (*GONE, Node("node-0"))
