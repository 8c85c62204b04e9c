"""`ipam explain`: who has an address, and the way to it."""

from dataclasses import replace

import pytest
import yaml

from pycni.ipam import block as arithmetic
from pycni.model.resources import (
    IPAMConfig,
    Node,
    Resource,
    TunnelMode,
)
from tests.unit.ctl.conftest import Machine
from tests.unit.written_books import (
    AFFINITY,
    CIDR,
    DETAILS,
    POD,
    POD_HANDLE,
    POOL,
    SINCE,
    START,
    TUNNEL,
    TUNNEL_HANDLE,
    UNTIL,
    books,
    empty_block,
    endpoint,
    full_block,
    give,
)

RESTING = arithmetic.release_by_handle(full_block(), POD_HANDLE, resting_since=SINCE).block
SOUND: tuple[Resource, ...] = (POOL, Node("node-0"), full_block(), AFFINITY, *books().handles)
RESTED: tuple[Resource, ...] = (POOL, RESTING, AFFINITY, IPAMConfig(cooldown_s=1200))
LENT = give(empty_block(), POD_HANDLE, **DETAILS | {"node": "node-1"})


ROUTES = {
    "wanted": [
        "default via 10.10.7.1 dev eth0",
        "blackhole 192.168.39.192/26 proto bird",
        "192.168.39.193 dev cali1 scope link",
        "192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink",
        "192.168.84.130 dev cali2 scope link",
        "strange line",
    ],
    "missing": ["192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink"],
    "conflicts": [{"wanted": "192.168.84.130 dev cali2 scope link", "foreign": "x"}],
}


def test_address_in_use_is_explained(agent: Machine) -> None:
    pool = replace(POOL, ipip_mode=TunnelMode.ALWAYS, nat_outgoing=True)
    block = give(
        give(empty_block(), TUNNEL_HANDLE), POD_HANDLE, **DETAILS, timestamp="2026-01-01 00:00:00"
    )
    agent.write(pool, Node("node-0"), block, AFFINITY)
    agent.serve(endpoint())
    agent.answers["routes"] = ROUTES

    assert agent.said("explain", str(POD)).splitlines() == [
        "ITEM VALUE",
        "address 192.168.39.193",
        "standing in use",
        "handle net.C1",
        "pod default/web",
        "node node-0",
        "since 2026-01-01 00:00:00",
        "details container=C1 interface=eth0 network=net",
        "reserved no",
        "block 192.168.39.192/26 of node-0",
        "pool default (192.168.0.0/16), IP-in-IP Always, NAT out",
        "advertised 192.168.39.192/26 by node-0, whose block it is",
        "route from here 192.168.39.193 dev cali1 scope link",
    ]


def test_a_pools_tunnel_is_named(machine: Machine) -> None:
    machine.write(*(value for value in SOUND if value != POOL))
    machine.write(replace(POOL, vxlan_mode=TunnelMode.CROSS_SUBNET))

    assert machine.document("explain", str(POD))["pool"]["vxlanMode"] == "CrossSubnet"
    assert "VXLAN CrossSubnet, no NAT out" in machine.said("explain", str(POD))


def test_explanation_is_a_document_too(machine: Machine) -> None:
    machine.write(*SOUND)

    document = machine.document("explain", str(POD))

    assert document["sequenceNumber"] == START + 1
    assert document["block"] == {"cidr": str(CIDR), "node": "node-0"}
    assert document["pool"] == {
        "name": "default",
        "cidr": "192.168.0.0/16",
        "ipipMode": "Never",
        "vxlanMode": "Never",
        "natOutgoing": False,
        "disabled": False,
        "disableBGPExport": False,
    }
    assert (document["borrowed"], document["reserved"], document["route"]) == (False, False, None)
    assert machine.ctl("explain", str(POD), "-o", "yaml") == 0
    assert yaml.safe_load(machine.capsys.readouterr().out) == document


def test_borrowed_address_is_explained(machine: Machine) -> None:
    machine.write(replace(POOL, is_disabled=True), LENT, AFFINITY)

    said = machine.said("explain", str(TUNNEL))

    assert "block 192.168.39.192/26 of node-0, borrowed" in said
    assert "advertised 192.168.39.192/32 by node-1, which borrows it; 192.168.39.192/26" in said
    assert "not tunnelled, no NAT out, disabled" in said


def test_resting_address_is_explained(machine: Machine) -> None:
    machine.write(*RESTED)

    assert f"standing resting since {SINCE} until {UNTIL}" in machine.said("explain", str(POD))


def test_address_that_nobody_knows_is_explained(machine: Machine) -> None:
    lent = replace(LENT, affinity=None)
    machine.write(lent)

    said = machine.said("explain", "10.0.0.1")

    assert "standing in no pool" in said
    assert "block none\npool none\nadvertised not at all: it lies in no pool" in said
    assert "block 192.168.39.192/26 without owner, borrowed" in machine.said("explain", str(TUNNEL))


@pytest.mark.parametrize(
    ("address", "route"),
    [
        ("192.168.39.194", "blackhole 192.168.39.192/26 proto bird"),
        ("192.168.84.129", "tunl0 proto bird onlink (wanted, and missing)"),
        ("192.168.84.130", "cali2 scope link (wanted; somebody else's is there)"),
        ("8.8.8.8", "default via 10.10.7.1 dev eth0"),
        ("fd00::1", "::/0"),
    ],
)
def test_route_with_the_longest_prefix_leads_there(
    agent: Machine, address: str, route: str
) -> None:
    agent.write(*SOUND)
    agent.serve(endpoint())
    agent.answers["routes"] = ROUTES
    if address == "fd00::1":
        agent.answers["routes"] = ROUTES | {"wanted": []}
        route = "none of ours: by what else the kernel has"

    assert str(agent.document("explain", address)["route"]).endswith(route)


def test_what_is_no_address_exits_with_2(machine: Machine) -> None:
    assert machine.ctl("explain", "192.168.39") == 2
