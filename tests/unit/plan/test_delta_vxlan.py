"""VXLAN devices and their entries: made, mended, removed; never another's."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from pycni.model.linklayer import FdbEntry, LinkLayerEntry, NeighbourEntry, Vxlan
from pycni.model.network import (
    Address,
    CreateTunnel,
    DeleteAddress,
    DeleteLink,
    DeleteNeighbour,
    KernelState,
    Link,
    Op,
    SetLink,
    SetNeighbour,
    Tunnel,
)
from pycni.plan.delta import Gate, plan
from pycni.plan.desired import Desired
from tests.unit.plan.test_delta import OWNERSHIP

NAME, MAC = "vxlan.calico", "66:fa:5e:1a:4d:f3"
PARAMETERS = Vxlan(4096, 4789, ip_address("10.10.7.20"))
TUNNEL = Tunnel(NAME, "vxlan", 1450, MAC, PARAMETERS)
LINK = Link(NAME, 9, "vxlan", 1450, MAC, is_up=True, vxlan=PARAMETERS)
REMOTE = FdbEntry(NAME, "66:00:00:00:00:02", ip_address("10.10.43.25"))
NEIGHBOUR = NeighbourEntry(NAME, ip_address("192.168.247.0"), REMOTE.mac)
ADDRESS = Address(NAME, ip_interface("192.168.39.192/32"))


def planned(
    link: Link | None = LINK,
    *,
    want: Tunnel | None = TUNNEL,
    entries: tuple[LinkLayerEntry, ...] = (),
    there: tuple[LinkLayerEntry, ...] = (),
    addresses: tuple[Address, ...] = (),
    gate: Gate | None = None,
    refused: bool = False,
) -> list[Op]:
    wanted = Desired(
        tunnels={} if want is None else {want.name: want},
        refused_devices=frozenset({NAME} if refused else ()),
        entries={one.key: one for one in entries},
    )
    have = KernelState(
        links={} if link is None else {link.name: link},
        neighbours={one.key: one for one in there},
        addresses=set(addresses),
    )
    return plan(wanted, have, ownership=OWNERSHIP, gate=gate or Gate()).ops


def test_a_missing_device_is_made_before_its_entries() -> None:
    assert planned(None, entries=(REMOTE,)) == [
        CreateTunnel(TUNNEL),
        SetLink(NAME, 1450),
        SetNeighbour(REMOTE),
    ]


@pytest.mark.parametrize("fields", [{"is_up": False}, {"mtu": 1500}])
def test_a_device_that_is_down_or_of_another_size_is_set(fields: dict[str, object]) -> None:
    assert planned(replace(LINK, **fields)) == [SetLink(NAME, 1450)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        replace(LINK, vxlan=replace(PARAMETERS, port=8472)),
        replace(LINK, vxlan=replace(PARAMETERS, local=None)),
        replace(LINK, vxlan=replace(PARAMETERS, local=ip_address("fd00::1"))),
        replace(LINK, vxlan=replace(PARAMETERS, vni=42)),
    ],
)
def test_a_device_of_ours_that_is_wrong_is_made_anew(wrong: Link) -> None:
    assert planned(wrong) == [DeleteLink(NAME), CreateTunnel(TUNNEL), SetLink(NAME, 1450)]


@pytest.mark.parametrize(
    "wrong",
    [
        replace(LINK, mac="66:00:00:00:00:01"),
        replace(LINK, vxlan=replace(PARAMETERS, local=ip_address("10.10.7.99"))),
        replace(LINK, vxlan=replace(PARAMETERS, is_learning=True), is_up=False),
    ],
)
def test_what_can_be_changed_of_a_device_is_changed_in_place(wrong: Link) -> None:
    # An empty MAC address stays as it is.
    change = replace(TUNNEL, mac=MAC if wrong.mac != MAC else "")

    assert planned(wrong) == [SetLink(NAME, 1450, change)]


@pytest.mark.parametrize(
    "wrong",
    [
        replace(LINK, vxlan=replace(PARAMETERS, is_bound=True, local=ip_address("10.10.7.99"))),
        replace(LINK, vxlan=replace(PARAMETERS, is_bound=True), mac="66:00:00:00:00:01"),
        replace(LINK, vxlan=replace(PARAMETERS, is_bound=True), mtu=1400),
    ],
)
def test_a_wrong_device_that_is_bound_to_an_interface_is_made_anew(wrong: Link) -> None:
    """It would go on sending by that, and gets no larger MTU."""
    assert planned(wrong) == [DeleteLink(NAME), CreateTunnel(TUNNEL), SetLink(NAME, 1450)]


def test_a_bound_device_that_is_otherwise_right_serves_as_it_is() -> None:
    """As Calico makes it: nothing is lost when pycni takes over."""
    bound = replace(LINK, vxlan=replace(PARAMETERS, is_bound=True))

    assert planned(bound) == []
    assert planned(replace(bound, mtu=8950)) == [SetLink(NAME, 1450)]


def test_a_device_of_which_a_change_was_refused_is_made_anew() -> None:
    wrong = replace(LINK, vxlan=replace(PARAMETERS, local=ip_address("10.10.7.99")))

    assert planned(wrong, refused=True) == [
        DeleteLink(NAME),
        CreateTunnel(TUNNEL),
        SetLink(NAME, 1450),
    ]
    assert planned(refused=True) == []


@pytest.mark.parametrize(
    "others",
    [
        replace(LINK, kind="bridge", vxlan=None),
        replace(LINK, mac="66:00:00:00:00:01", vxlan=Vxlan(42, 4789, None)),
    ],
)
def test_anothers_device_is_told_and_not_touched(others: Link) -> None:
    # The kernel refuses it, and the sentence says whose it is.
    assert planned(others) == [CreateTunnel(TUNNEL)]


def test_entries_that_are_right_cost_nothing() -> None:
    assert planned(entries=(REMOTE, NEIGHBOUR), there=(REMOTE, NEIGHBOUR)) == []


def test_an_entry_that_says_something_else_is_written_over() -> None:
    wrong = replace(NEIGHBOUR, mac="66:00:00:00:00:09")

    assert planned(entries=(NEIGHBOUR,), there=(wrong,)) == [SetNeighbour(NEIGHBOUR)]


def test_an_entry_of_somebody_elses_under_our_key_becomes_ours() -> None:
    others = replace(REMOTE, is_ours=False)

    assert planned(entries=(REMOTE,), there=(others,)) == [
        DeleteNeighbour(others),
        SetNeighbour(REMOTE),
    ]


def test_entries_that_lead_to_nodes_no_more_go_and_others_stay() -> None:
    others = replace(REMOTE, mac="66:00:00:00:00:09", is_ours=False)
    flannels = replace(REMOTE, ifname="flannel.1")
    there = (REMOTE, NEIGHBOUR, others, flannels)

    assert planned(there=there) == [DeleteNeighbour(REMOTE), DeleteNeighbour(NEIGHBOUR)]
    assert planned(there=there, gate=Gate(blocks_ready=False)) == []


def test_a_device_that_is_wanted_no_more_goes_with_its_address() -> None:
    local = Address(NAME, ip_interface("fe80::1/64"))

    ops = planned(want=None, addresses=(ADDRESS, local))

    assert ops == [DeleteAddress(ADDRESS), DeleteLink(NAME)]
    assert planned(want=None, addresses=(ADDRESS,), gate=Gate(blocks_ready=False)) == []


def test_a_device_without_address_is_ours_by_its_entries() -> None:
    """Else Calico may have left it, of another time."""
    assert planned(want=None, there=(REMOTE,)) == [DeleteNeighbour(REMOTE), DeleteLink(NAME)]
    assert planned(want=None) == []
    assert planned(want=None, there=(replace(REMOTE, is_ours=False),)) == []


@pytest.mark.parametrize(
    ("link", "addresses"),
    [
        (replace(LINK, vxlan=Vxlan(42, 4789, None)), ()),
        (replace(LINK, kind="bridge", vxlan=None), ()),
        (LINK, (Address(NAME, ip_interface("10.99.0.1/32")),)),
    ],
)
def test_a_device_that_is_anothers_or_that_others_use_stays(
    link: Link, addresses: tuple[Address, ...]
) -> None:
    assert planned(link, want=None, addresses=addresses) == []


def test_entries_of_anothers_device_stay_though_they_are_marked_as_ours() -> None:
    # FRR marks those of EVPN like that.
    foreign = replace(LINK, mac="aa:00:00:00:00:01", vxlan=replace(PARAMETERS, vni=42))

    assert planned(foreign, want=None, there=(REMOTE, NEIGHBOUR)) == []
