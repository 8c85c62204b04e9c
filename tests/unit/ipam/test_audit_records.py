"""What records say against what blocks say: leaks, and pods whose address is not theirs."""

from dataclasses import replace
from ipaddress import IPv4Interface

import pytest

from pycni.ipam.audit import RELEASE_REPORTED, audit
from pycni.ipam.findings import Kind
from pycni.model.endpoints import (
    AssignedAddress,
    Delegation,
    EndpointKey,
    EndpointState,
    PendingRelease,
)
from pycni.model.resources import Handle
from tests.unit.written_books import (
    CIDR,
    FREE,
    KEY,
    POD,
    POD_HANDLE,
    START,
    TUNNEL,
    TUNNEL_HANDLE,
    books,
    empty_block,
    endpoint,
    full_block,
    give,
    kinds,
    only,
    records,
)


def test_address_without_a_record_on_a_known_node_has_leaked() -> None:
    found = only(books(records=(records(),)))

    assert (found.kind, found.address) == (Kind.ADDRESS_LEAKED, POD)
    assert (found.handle_id, found.sequence_number) == (POD_HANDLE, START + 1)
    assert found.repair == RELEASE_REPORTED
    assert "for pod default/web of node-0" in found.sentence


def test_address_with_a_journalled_release_has_not_leaked() -> None:
    debt = PendingRelease(KEY, POD_HANDLE)

    assert audit(books(records=(records(debts=(debt,)),))) == ()


@pytest.mark.parametrize(
    ("key", "handle_id"),
    [(EndpointKey("net", "c1", "eth0"), "net.c1"), (EndpointKey("n", "et.C1", "eth0"), POD_HANDLE)],
)
def test_a_record_does_not_answer_for_another_whose_handle_reads_alike(
    key: EndpointKey, handle_id: str
) -> None:
    alike = replace(endpoint(), key=key, handle_id=handle_id, addresses=())

    assert only(books(records=(records(alike),))).kind is Kind.ADDRESS_LEAKED


def test_address_of_a_pod_that_lives_on_without_its_record_has_not_leaked() -> None:
    plugged = replace(records(), aliases=frozenset({"pycni:net/C1/eth0"}))
    routed = replace(records(), routed=frozenset({POD}))

    assert audit(books(records=(plugged,))) == audit(books(records=(routed,))) == ()


def test_address_of_another_plugins_pod_lives_on_with_its_namespace() -> None:
    lent = books(blocks=(full_block(netns="/run/netns/x"),), records=(records(),))
    elsewhere = replace(records(), namespaces=frozenset({"/run/netns/y"}))
    living = replace(records(), namespaces=frozenset({"/run/netns/x"}))

    assert kinds(lent) == [Kind.ADDRESS_LEAKED]
    assert kinds(replace(lent, records=(elsewhere,))) == [Kind.ADDRESS_LEAKED]
    assert audit(replace(lent, records=(living,))) == ()


def test_damaged_record_is_told_and_its_pods_address_is_no_leak() -> None:
    damaged = replace(records(), damaged=("cannot read x",), unreadable=frozenset({KEY}))

    (found,) = audit(books(records=(damaged,)))

    assert (found.kind, found.sentence, found.repair) == (Kind.RECORD_DAMAGED, "cannot read x", "")


def test_address_of_a_node_whose_records_are_unknown_is_not_judged() -> None:
    assert audit(books(records=())) == ()


def test_address_that_we_did_not_give_is_not_judged() -> None:
    block = give(empty_block(), POD_HANDLE, node="node-0", namespace="default", pod="web")
    handle = Handle(POD_HANDLE, ((CIDR, 1),))

    assert audit(books(blocks=(block,), handles=(handle,), records=(records(),))) == ()


def test_record_whose_address_is_free_is_named() -> None:
    moved = AssignedAddress(IPv4Interface(f"{FREE}/32"), 5)
    record = endpoint(addresses=(*endpoint().addresses, moved))

    found = only(books(records=(records(record),)))

    assert (found.kind, found.address) == (Kind.RECORD_WITHOUT_ADDRESS, FREE)
    assert (found.subject, found.handle_id) == ("endpoint net/C1/eth0", POD_HANDLE)
    assert (found.sequence_number, found.node, found.repair) == (5, "node-0", "")
    assert "is free" in found.sentence


def test_record_whose_address_another_holds_is_named() -> None:
    record = endpoint(address=TUNNEL)

    assert f"{TUNNEL_HANDLE} holds" in only(books(records=(records(record),))).sentence


def test_record_whose_address_is_held_without_a_handle_is_named() -> None:
    block = full_block()
    nameless = tuple(replace(one, handle_id=None) for one in block.attributes)

    found = only(books(blocks=(replace(block, attributes=nameless),), handles=()))

    assert "somebody without a handle holds" in found.sentence


def test_unfinished_record_is_left_to_its_del() -> None:
    record = endpoint(address=FREE, state=EndpointState.INTENT)

    assert audit(books(records=(records(record),))) == ()


def test_record_in_a_corrupt_block_is_not_judged() -> None:
    broken = replace(full_block(), unallocated=())

    assert kinds(books(blocks=(broken,))) == [Kind.BLOCK_CORRUPT]


def test_record_of_another_plugins_pod_whose_namespace_is_gone_is_information() -> None:
    record = replace(endpoint(), host_veth="", netns="/run/netns/gone")
    living = records(record)
    dead = replace(living, gone=frozenset({str(record.key)}))

    assert audit(books(records=(living,))) == ()
    finding = only(books(records=(dead,)))
    assert (finding.kind, finding.is_information) == (Kind.ENDPOINT_GONE, True)
    assert "/run/netns/gone is gone: the agent takes it back" in finding.sentence


def test_record_whose_address_another_ipam_plugin_gave_is_not_compared() -> None:
    elsewhere = AssignedAddress(IPv4Interface("10.77.0.2/32"))
    record = replace(endpoint(), addresses=(elsewhere,))
    delegated = replace(record, delegation=Delegation("host-local", "", "", "{}"))
    block = books(blocks=(empty_block(),), handles=(), records=(records(delegated),))

    assert audit(block) == ()
    assert kinds(replace(block, records=(records(record),))) == [Kind.RECORD_WITHOUT_ADDRESS]
