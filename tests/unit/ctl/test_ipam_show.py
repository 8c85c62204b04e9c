"""`ipam show`: pools, blocks and addresses, those that rest among them."""

from dataclasses import replace
from ipaddress import IPv4Network

from pycni.ipam import block as arithmetic
from pycni.model.resources import (
    IPAMConfig,
    IPReservation,
    Node,
    Resource,
)
from tests.unit.ctl.conftest import Machine
from tests.unit.written_books import (
    AFFINITY,
    DETAILS,
    FREE,
    OTHER,
    POD,
    POD_HANDLE,
    POOL,
    SINCE,
    TUNNEL,
    TUNNEL_HANDLE,
    UNTIL,
    books,
    empty_block,
    full_block,
    give,
)

RESTING = arithmetic.release_by_handle(full_block(), POD_HANDLE, resting_since=SINCE).block
SOUND: tuple[Resource, ...] = (POOL, Node("node-0"), full_block(), AFFINITY, *books().handles)
RESTED: tuple[Resource, ...] = (POOL, RESTING, AFFINITY, IPAMConfig(cooldown_s=1200))
LENT = give(empty_block(), POD_HANDLE, **DETAILS | {"node": "node-1"})


def test_resting_addresses_are_listed_as_resting(machine: Machine) -> None:
    machine.write(*RESTED)

    assert machine.said("show", "--addresses").splitlines()[1:] == [
        "default 192.168.0.0/16 65536 1 1 1024",
        "",
        "BLOCK NODE USED RESTING FREE",
        "192.168.39.192/26 node-0 1 1 62",
        "",
        "ADDRESS HANDLE DETAILS",
        "192.168.39.192 ipip-tunnel-addr-node-0 node=node-0 type=ipipTunnelAddress",
        f"192.168.39.193 - resting since {SINCE} until {UNTIL}",
    ]
    address = machine.document("show", "--addresses")["addresses"][1]
    assert (address["restsSince"], address["restsUntil"]) == (SINCE, UNTIL)


def test_blocks_are_grouped_by_their_pools(machine: Machine) -> None:
    stray = arithmetic.new_block(IPv4Network("10.0.0.0/30"), affinity=None, sequence_number=1)
    machine.write(*RESTED, empty_block(OTHER), stray)

    assert machine.said("show", "--show-blocks").splitlines() == [
        "GROUPING CIDR IPS TOTAL IPS IN USE IPS FREE IPS RESTING",
        "IP Pool 192.168.0.0/16 65536 1 65534 1",
        "Block 192.168.39.192/26 64 1 62 1",
        "Block 192.168.84.128/26 64 0 64 0",
        "Block 10.0.0.0/30 4 0 4 0",
    ]
    assert len(machine.document("show", "--show-blocks")["groups"]) == 4


def test_borrowed_addresses_are_listed(machine: Machine) -> None:
    machine.write(POOL, give(LENT, "tunnel", node="node-1", type="ipipTunnelAddress"))

    assert machine.said("show", "--show-borrowed").splitlines() == [
        "IP BORROWING-NODE BLOCK BLOCK OWNER TYPE ALLOCATED-TO",
        "192.168.39.192 node-1 192.168.39.192/26 node-0 pod default/web",
        "192.168.39.193 node-1 192.168.39.192/26 node-0 ipipTunnelAddress tunnel",
    ]


def test_one_address_is_shown_with_its_attributes(machine: Machine) -> None:
    machine.write(*SOUND)

    assert machine.said("show", "--ip", str(TUNNEL)).splitlines() == [
        f"IP {TUNNEL} is in use",
        "Attributes:",
        f"handle: {TUNNEL_HANDLE}",
        "node: node-0",
        "type: ipipTunnelAddress",
    ]
    document = machine.document("show", "--ip", str(POD))
    assert (document["standing"], document["handle"]) == ("in use", POD_HANDLE)
    assert document["attributes"]["pod"] == "web"


def test_one_address_is_shown_as_free_reserved_resting_or_corrupt(machine: Machine) -> None:
    reservation = IPReservation("router", (IPv4Network("192.168.39.195/32"),))
    broken = replace(empty_block(OTHER), unallocated=())
    machine.write(*RESTED, reservation, broken)

    assert machine.said("show", "--ip", str(FREE)) == f"IP {FREE} is not assigned"
    assert machine.said("show", "--ip", str(POD)) == (
        f"IP {POD} is resting since {SINCE} until {UNTIL}"
    )
    assert machine.said("show", "--ip", "192.168.39.195").endswith("not assigned, and reserved")
    assert "is corrupt: see pycnictl ipam check" in machine.said("show", "--ip", str(OTHER[0]))


def test_corrupt_block_is_left_out_and_said(machine: Machine) -> None:
    machine.write(*SOUND, replace(empty_block(OTHER), unallocated=()))

    assert machine.ctl("show") == 1

    printed = machine.capsys.readouterr()
    assert "192.168.39.192/26" in printed.out
    assert str(OTHER) not in printed.out
    assert f"not shown: block {OTHER} is corrupt" in printed.err


def test_what_is_no_address_exits_with_2(machine: Machine) -> None:
    assert machine.ctl("show", "--ip", "192.168.39") == 2


def test_what_has_rested_long_enough_is_free(machine: Machine) -> None:
    since = "2026-01-01T00:00:00Z"
    block = arithmetic.release_by_handle(full_block(), POD_HANDLE, resting_since=since).block
    machine.write(POOL, block, AFFINITY, IPAMConfig(cooldown_s=1200))

    assert machine.said("show", "--ip", str(POD)) == f"IP {POD} is not assigned"
