"""What is wrong with the books of address management: pure, one function for each rule.

Blocks decide; whatever contradicts them is a finding, with the command that mends it.  Addresses
that rest after their release are nobody's, and no findings.  A block that contradicts itself is one
finding, and nothing more is concluded from it.
"""

import shlex
from collections.abc import Iterator
from dataclasses import replace

from pycni.ipam import block as arithmetic
from pycni.ipam.block import Given
from pycni.ipam.books import (
    Books,
    NodeRecords,
    corruption_of,
    handle_name,
    held_by_name,
    is_tunnels,
    key_of,
    netns_of,
    node_of,
    pod_of,
)
from pycni.ipam.findings import Finding, Kind
from pycni.ipam.pools import holds, pool_of
from pycni.model.endpoints import EndpointKey, EndpointState, WorkloadEndpoint
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.prefix import network_order
from pycni.model.resources import AffinityState, Block, BlockAffinity, Handle, affinity_name
from pycni.model.service_ranges import LOAD_BALANCER
from pycni.plan.ownership import alias_of

MEND = "pycnictl ipam check --repair"
RELEASE_REPORTED = "pycnictl ipam release --from-report FILE"


_ORDER = {kind: number for number, kind in enumerate(Kind)}


def audit(books: Books) -> tuple[Finding, ...]:
    """Return everything that is wrong, most fundamental first."""
    # No node, and always there: what it lacks it takes up by its next request, as nodes do.
    books = replace(books, nodes=books.nodes | {LOAD_BALANCER})
    found = [
        *_corrupt_blocks(books),
        *_overlapping_blocks(books),
        *_blocks_without_pool(books),
        *_blocks_without_affinity(books),
        *_affinities(books),
        *_gone_nodes(books),
        *_addresses_without_count(books),
        *_handles(books),
        *_leaked_addresses(books),
        *_damaged_records(books),
        *_records_without_address(books),
        *_gone_endpoints(books),
    ]
    return tuple(sorted(found, key=_place))


def _place(finding: Finding) -> tuple[int, tuple[int, int, int], int, str]:
    block = (0, 0, 0) if finding.block is None else network_order(finding.block)
    address = 0 if finding.address is None else int(finding.address)
    return _ORDER[finding.kind], block, address, finding.subject


# --- blocks -------------------------------------------------------------------------------------


def _corrupt_blocks(books: Books) -> Iterator[Finding]:
    for block in books.blocks:
        if sentence := corruption_of(block):
            yield _of_block(Kind.BLOCK_CORRUPT, block, sentence)


def _overlapping_blocks(books: Books) -> Iterator[Finding]:
    """Compare each block with the one that reaches farthest of those that begin before it."""
    farthest: Block | None = None
    for block in sorted(books.blocks, key=lambda block: network_order(block.cidr)):
        if farthest is not None and holds(farthest.cidr, block.cidr):
            sentence = (
                f"{block.cidr} lies in block {farthest.cidr}, so that an address may be given"
                " twice: delete the pods of one of the two, then that block"
            )
            yield _of_block(Kind.BLOCKS_OVERLAP, block, sentence)
        else:
            farthest = block


def _blocks_without_pool(books: Books) -> Iterator[Finding]:
    for block in books.sound_blocks:
        if pool_of(books.pools, block.cidr) is not None:
            continue
        if not arithmetic.is_held(block):
            sentence = f"{block.cidr} lies in no pool, and nobody holds an address of it"
            yield _of_block(Kind.BLOCK_WITHOUT_POOL, block, sentence, repair=MEND)
        else:
            sentence = (
                f"{block.cidr} lies in no pool, and {len(arithmetic.given(block))} of its addresses"
                " are in use: make its pool again, or delete the pods that use them"
            )
            yield _of_block(Kind.BLOCK_WITHOUT_POOL, block, sentence)


def _blocks_without_affinity(books: Books) -> Iterator[Finding]:
    claimed = {(affinity.node, affinity.cidr) for affinity in books.affinities}
    for block in books.sound_blocks:
        if block.affinity is None or (block.affinity, block.cidr) in claimed:
            continue
        sentence = f"{block.cidr} says that it is {block.affinity}'s, which has no affinity for it"
        if block.affinity in books.nodes:
            repair = MEND
            sentence += (
                ": nobody advertises it until that node takes it up, by its next request that"
                " needs a block or within a quarter of an hour"
            )
        elif not arithmetic.is_held(block):
            repair = f"pycnictl delete block {block.cidr}"
        else:
            repair = ""
            sentence += ": nobody routes or advertises it; delete the pods that use its addresses"
        yield _of_block(Kind.BLOCK_WITHOUT_AFFINITY, block, sentence, repair=repair)


def _of_block(kind: Kind, block: Block, sentence: str, *, repair: str = "") -> Finding:
    return Finding(
        kind,
        f"block {block.cidr}",
        sentence,
        block=block.cidr,
        node=block.affinity,
        repair=repair,
    )


# --- affinities ---------------------------------------------------------------------------------


def _affinities(books: Books) -> Iterator[Finding]:
    owners = {block.cidr: block.affinity for block in books.blocks}
    for affinity in books.affinities:
        cidr, node = affinity.cidr, affinity.node
        if affinity.state is not AffinityState.CONFIRMED:
            if node in books.nodes:
                sentence = (
                    f"{node}'s claim on {cidr} is {affinity.state.value}: its next request that"
                    " needs a block goes on from there"
                )
                yield _of_affinity(Kind.CLAIM_UNFINISHED, affinity, sentence)
        elif cidr not in owners:
            sentence = f"{node} has a confirmed affinity for {cidr}, and there is no such block"
            yield _of_affinity(Kind.AFFINITY_WITHOUT_BLOCK, affinity, sentence, repair=MEND)
        elif owners[cidr] != node:
            sentence = (
                f"{node} has a confirmed affinity for {cidr}, which belongs to"
                f" {owners[cidr] or 'no node'}: both would route it"
            )
            yield _of_affinity(Kind.AFFINITY_FOR_OTHERS_BLOCK, affinity, sentence, repair=MEND)


def _of_affinity(
    kind: Kind, affinity: BlockAffinity, sentence: str, *, repair: str = ""
) -> Finding:
    return Finding(
        kind,
        f"affinity {affinity_name(affinity.node, cidr=affinity.cidr)}",
        sentence,
        block=affinity.cidr,
        node=affinity.node,
        repair=repair,
    )


# --- nodes --------------------------------------------------------------------------------------


def _gone_nodes(books: Books) -> Iterator[Finding]:
    for block in books.sound_blocks:
        if block.affinity is not None and block.affinity not in books.nodes:
            yield _of_block(
                Kind.BLOCK_OF_GONE_NODE,
                block,
                f"{block.cidr} belongs to {block.affinity}, and there is no such Node",
                repair=release_node(block.affinity),
            )
        for one in arithmetic.given(block):
            node = node_of(one.attribute)
            if node is not None and node not in books.nodes:
                sentence = (
                    f"{one.address} is held for {_what(one)}{node}, and there is no such Node"
                )
                kind, repair = Kind.ADDRESS_OF_GONE_NODE, release_node(node)
                yield _of_address(kind, block, one, sentence, repair=repair)
    for affinity in books.affinities:
        if affinity.node not in books.nodes:
            yield _of_affinity(
                Kind.AFFINITY_OF_GONE_NODE,
                affinity,
                f"{affinity.node} has an affinity for {affinity.cidr}, and there is no such Node",
                repair=release_node(affinity.node),
            )


def release_node(node: str) -> str:
    """Return the command that releases whatever a node that is gone has."""
    return f"pycnictl ipam release --node {shlex.quote(node)}"


def _what(one: Given) -> str:
    if pod := pod_of(one.attribute):
        return f"pod {pod} of "
    return "the tunnel of " if is_tunnels(one.attribute) else ""


def _of_address(
    kind: Kind, block: Block, one: Given, sentence: str, *, repair: str = ""
) -> Finding:
    return Finding(
        kind,
        f"address {one.address}",
        sentence,
        address=one.address,
        handle_id=one.attribute.handle_id,
        sequence_number=one.sequence_number,
        block=block.cidr,
        node=node_of(one.attribute),
        repair=repair,
    )


# --- handles ------------------------------------------------------------------------------------


def _addresses_without_count(books: Books) -> Iterator[Finding]:
    handles = {handle_name(handle.id): dict(handle.blocks) for handle in books.handles}
    for block in books.sound_blocks:
        for one in arithmetic.given(block):
            handle_id = one.attribute.handle_id
            if handle_id is None:
                continue
            counts = handles.get(handle_name(handle_id))
            if counts is None:
                sentence = f"{one.address} is held by {handle_id}, and there is no such handle"
                yield _of_address(Kind.ADDRESS_WITHOUT_HANDLE, block, one, sentence, repair=MEND)
            elif block.cidr not in counts:
                sentence = (
                    f"{one.address} is held by {handle_id}, which counts nothing in {block.cidr}"
                )
                yield _of_address(Kind.ADDRESS_NOT_COUNTED, block, one, sentence, repair=MEND)


def _handles(books: Books) -> Iterator[Finding]:
    corrupt = {block.cidr for block in books.blocks if corruption_of(block)}
    held = held_by_name(books.sound_blocks)
    for handle in books.handles:
        if not handle.blocks:
            yield _of_handle(handle, None, f"{handle.id} counts nothing, and should not be there")
        by_block = held.get(handle_name(handle.id), {})
        for cidr, count in handle.blocks:
            in_fact = len(by_block.get(cidr, ()))
            if cidr not in corrupt and in_fact != count:
                sentence = f"{handle.id} counts {count} in {cidr}, and holds {in_fact} there"
                yield _of_handle(handle, cidr, sentence)


def _of_handle(handle: Handle, cidr: IPNetwork | None, sentence: str) -> Finding:
    return Finding(
        Kind.HANDLE_MISCOUNTS,
        f"handle {handle.id}",
        sentence,
        handle_id=handle.id,
        block=cidr,
        repair=MEND,
    )


# --- records ------------------------------------------------------------------------------------


def _leaked_addresses(books: Books) -> Iterator[Finding]:
    known = {records.node: (records, _answered_for(records)) for records in books.records}
    for block in books.sound_blocks:
        for one in arithmetic.given(block):
            node, handle_id = node_of(one.attribute), one.attribute.handle_id
            if node not in known or handle_id is None or key_of(one.attribute) is None:
                continue
            records, answered_for = known[node]
            attachment = handle_id, key_of(one.attribute)
            if attachment not in answered_for and not may_live(one, records):
                sentence = (
                    f"{one.address} is held by {handle_id} for {_what(one)}{node}, which has"
                    " neither a record nor a journalled release of it, nor an interface"
                )
                kind = Kind.ADDRESS_LEAKED
                yield _of_address(kind, block, one, sentence, repair=RELEASE_REPORTED)


def may_live(one: Given, records: NodeRecords) -> bool:
    """Tell whether a pod that was given an address may be there, though no record names it."""
    key = key_of(one.attribute)
    has_interface = key is not None and alias_of(key) in records.aliases
    has_namespace = netns_of(one.attribute) in records.namespaces
    is_routed = one.address in records.routed
    return has_interface or has_namespace or is_routed or key in records.unreadable


def _answered_for(records: NodeRecords) -> set[tuple[str, EndpointKey | None]]:
    endpoints = {(one.handle_id, one.key) for one in records.endpoints}
    return endpoints | {(one.handle_id, one.key) for one in records.debts}


def _gone_endpoints(books: Books) -> Iterator[Finding]:
    """Find records of other plugins' pods whose namespace is gone: the runtime forgot its DEL."""
    for records in books.records:
        for endpoint in records.endpoints:
            if str(endpoint.key) not in records.gone:
                continue
            for assigned in endpoint.addresses:
                yield Finding(
                    Kind.ENDPOINT_GONE,
                    f"endpoint {endpoint.key}",
                    f"{assigned.interface.ip} is held for {endpoint.key}, whose network namespace"
                    f" {endpoint.netns} is gone: the agent takes it back within two minutes",
                    address=assigned.interface.ip,
                    handle_id=endpoint.handle_id,
                    sequence_number=assigned.sequence_number,
                    node=endpoint.node,
                )


def _damaged_records(books: Books) -> Iterator[Finding]:
    for records in books.records:
        for sentence in records.damaged:
            subject = f"record of {records.node}"
            yield Finding(Kind.RECORD_DAMAGED, subject, sentence, node=records.node)


def _records_without_address(books: Books) -> Iterator[Finding]:
    """Judge finished records only: the others are in somebody's hands, or left to a DEL."""
    holders = {one.address: one for block in books.sound_blocks for one in arithmetic.given(block)}
    corrupt = [block.cidr for block in books.blocks if corruption_of(block)]
    ready = (
        endpoint
        for records in books.records
        for endpoint in records.endpoints
        # What another IPAM plugin gave stands in its books.
        if endpoint.state is EndpointState.READY and endpoint.delegation is None
    )
    for endpoint in ready:
        for assigned in endpoint.addresses:
            address = assigned.interface.ip
            if any(holds(cidr, address) for cidr in corrupt):
                continue
            holder = None
            if address in holders:
                holder = holders[address].attribute.handle_id or "somebody without a handle"
            if holder != endpoint.handle_id:
                yield _of_record(endpoint, address, holder, assigned.sequence_number)


def _of_record(
    endpoint: WorkloadEndpoint, address: IPAddress, holder: str | None, sequence_number: int | None
) -> Finding:
    is_held = "is free, so that another pod may get it" if holder is None else f"{holder} holds"
    return Finding(
        Kind.RECORD_WITHOUT_ADDRESS,
        f"endpoint {endpoint.key}",
        f"{endpoint.key} uses {address}, which {is_held}: delete that pod and make it again",
        address=address,
        handle_id=endpoint.handle_id,
        sequence_number=sequence_number,
        node=endpoint.node,
    )
