"""What of VXLAN makes what dirty."""

from dataclasses import replace
from ipaddress import ip_address
from itertools import permutations

import pytest

from pycni.agent.dirty import Dirty
from pycni.agent.facts import Facts
from pycni.agent.messages import KernelTold
from pycni.model.linklayer import FdbEntry, Vxlan
from pycni.model.network import (
    CreateTunnel,
    Failure,
    Link,
    LinkChanged,
    LinkGone,
    NeighbourChanged,
    SetLink,
    Tunnel,
)
from pycni.model.resources import AllocationAttribute, Block
from pycni.model.tunnels import TunnelKind
from pycni.model.vxlan import VxlanEnd
from pycni.plan import desired
from pycni.plan.overlay import FarEnd, far_ends
from tests.unit.agent.node_facts import dirty, facts, gone, keys, told_of
from tests.unit.plan.samples import affinity, node

BLOCK = "192.168.9.0/26"
DEVICE = Link(
    "vxlan.calico", 9, "vxlan", is_up=True, vxlan=Vxlan(4096, 4789, ip_address("10.10.7.20"))
)
ENTRY = FdbEntry("vxlan.calico", "66:00:00:00:00:02", ip_address("10.10.43.25"))


def test_the_block_of_a_nodes_end_concerns_everything_by_that_tunnel() -> None:
    other = node("node-3", "10.10.7.30/20")
    behind = replace(other, vxlan=VxlanEnd(ip_address("192.168.9.0")))
    claim = told_of(affinity(BLOCK, "node-3"))

    assert dirty(claim, told_of(behind)) == Dirty(keys=keys(BLOCK), is_all=True)
    assert dirty(claim, told_of(other)) == Dirty(keys=keys(BLOCK))


def test_the_device_concerns_everything() -> None:
    came = KernelTold(LinkChanged(DEVICE))
    went = KernelTold(LinkGone("vxlan.calico"))

    assert dirty(came) == Dirty(is_other=True, is_all=True, is_doubtful=True)
    assert dirty(went, came) == Dirty(is_other=True, is_all=True)


def test_an_entry_that_somebody_changes_is_looked_at() -> None:
    came = KernelTold(NeighbourChanged(ENTRY, is_present=True))
    made = facts()

    assert made.feed(came, now=0.0) == Dirty(is_neighbour=True)
    assert not made.feed(came, now=0.0)


def test_an_entry_of_anothers_device_is_not() -> None:
    theirs = replace(ENTRY, ifname="flannel.1")

    assert not dirty(KernelTold(NeighbourChanged(theirs, is_present=True)))


def test_the_new_block_of_an_end_that_moves_concerns_everything_and_ends_the_move() -> None:
    """Whichever of the two is heard first."""
    there = replace(node("node-3", "10.10.7.30/20"), vxlan=VxlanEnd(ip_address("192.168.9.0")))
    elsewhere = replace(there, vxlan=VxlanEnd(ip_address("192.168.100.1")))
    claim = told_of(affinity("192.168.100.0/26", "node-3"))
    made = facts(told_of(affinity(BLOCK, "node-3")), told_of(there), told_of(elsewhere))

    assert end_of_node_3(made) == "192.168.9.0"

    assert made.feed(claim, now=0.0).is_all

    assert end_of_node_3(made) == "192.168.100.1"
    made = facts(told_of(affinity(BLOCK, "node-3")), claim, told_of(there), told_of(elsewhere))
    assert end_of_node_3(made) == "192.168.100.1"


THERE = replace(node("node-3", "10.10.7.30/20"), vxlan=VxlanEnd(ip_address("192.168.9.0")))
ELSEWHERE = replace(THERE, vxlan=VxlanEnd(ip_address("192.168.100.1")))
OLD, NEW = affinity(BLOCK, "node-3"), affinity("192.168.100.0/26", "node-3")
MOVE = {"old block": gone(OLD), "node": told_of(ELSEWHERE), "new block": told_of(NEW)}


def end_of_node_3(made: Facts) -> str:
    """Return where node-3's end is taken to be, or "" where it can't be used."""
    end = far_ends(made.inputs, TunnelKind.VXLAN)["node-3"]
    return str(end.address) if isinstance(end, FarEnd) else ""


@pytest.mark.parametrize("order", list(permutations(MOVE)), ids=" - ".join)
def test_once_its_node_is_heard_an_end_that_moves_is_reached_in_any_order(
    order: tuple[str, ...],
) -> None:
    made = facts(told_of(OLD), told_of(THERE))
    heard: set[str] = set()

    for what in order:
        made.feed(MOVE[what], now=0.0)
        heard.add(what)
        if "node" in heard or "old block" not in heard:
            there = "192.168.100.1" if {"node", "new block"} <= heard else "192.168.9.0"
            assert end_of_node_3(made) == there


def test_an_end_whose_new_block_was_anothers_before_is_reached_as_soon_as_it_is_nobodys() -> None:
    stale = affinity("192.168.100.0/26", "node-9")
    made = facts(told_of(OLD), told_of(THERE), told_of(stale), told_of(ELSEWHERE))
    assert end_of_node_3(made) == ""

    made.feed(gone(stale), now=0.0)

    assert end_of_node_3(made) == "192.168.9.0"


def test_of_two_ends_that_have_moved_from_one_address_one_is_reached_there() -> None:
    node_2 = replace(node("node-2", "10.10.43.25/20"), vxlan=THERE.vxlan)
    claim = affinity(BLOCK, "node-2")
    made = facts(told_of(OLD), told_of(THERE), told_of(ELSEWHERE), gone(OLD))
    for message in (told_of(claim), told_of(node_2)):
        made.feed(message, now=0.0)
    made.feed(told_of(replace(node_2, vxlan=VxlanEnd(ip_address("192.168.101.1")))), now=0.0)
    made.feed(gone(claim), now=0.0)

    ends = far_ends(made.inputs, TunnelKind.VXLAN)

    assert isinstance(ends["node-2"], FarEnd)
    assert ends["node-3"] == "it has moved from 192.168.9.0, by which node-2 is reached (yet)"


def test_a_borrowed_end_that_moves_is_reached_as_before() -> None:
    end = VxlanEnd(ip_address("192.168.200.5"))
    lender = affinity("192.168.200.0/26", "node-2")
    attribute = AllocationAttribute("vxlan-tunnel-addr-node-3", (("node", "node-3"),))
    lent = Block(
        lender.cidr,
        affinity="node-2",
        allocations=tuple(0 if ordinal == 5 else None for ordinal in range(64)),
        unallocated=tuple(ordinal for ordinal in range(64) if ordinal != 5),
        attributes=(attribute,),
        sequence_numbers=(None,) * 64,
    )
    made = facts(told_of(lender), told_of(replace(THERE, vxlan=end)), told_of(lent))

    for message in (gone(lent), told_of(ELSEWHERE)):
        made.feed(message, now=0.0)

    assert end_of_node_3(made) == ""  # the lender has it again
    made.feed(gone(lender), now=0.0)
    assert end_of_node_3(made) == "192.168.200.5"


def test_a_device_that_can_not_be_made_is_remembered_until_it_can() -> None:
    made = facts()
    op = CreateTunnel(Tunnel("vxlan.calico", "vxlan", 1450, vxlan=DEVICE.vxlan))
    up = SetLink("vxlan.calico", 1450)

    made.learn_outcome([op, up], [Failure(op, 17, "no"), Failure(up, 19, "no")])
    assert made.inputs.refused_devices == {"vxlan.calico"}
    made.learn_outcome([up], [])
    assert made.inputs.refused_devices == {"vxlan.calico"}
    made.learn_outcome([op, up], [])
    assert made.inputs.refused_devices == set()


def test_a_device_that_can_not_be_changed_is_remembered_until_it_is_made_anew() -> None:
    made = facts()
    wanted = Tunnel("vxlan.calico", "vxlan", 1450, vxlan=DEVICE.vxlan)
    op = SetLink(wanted.name, 1450, wanted)

    made.learn_outcome([op], [Failure(op, 22, "no")])
    assert desired.compute(made.inputs).refused_devices == {wanted.name}
    made.learn_outcome([CreateTunnel(wanted)], [])

    assert desired.compute(made.inputs).refused_devices == set()


def test_far_ends_are_found_once_until_nodes_or_their_books_change() -> None:
    other = node("node-3", "10.10.7.30/20")
    behind = replace(other, vxlan=VxlanEnd(ip_address("192.168.9.0")))
    made = facts(told_of(behind))
    kind = TunnelKind.VXLAN

    found = made.ground().far_ends(kind)
    made.feed(told_of(affinity("192.168.200.0/26", "node-3")), now=0.0)
    assert made.ground().far_ends(kind) is found

    made.feed(told_of(affinity(BLOCK, "node-3")), now=0.0)

    assert isinstance(made.ground().far_ends(kind)["node-3"], FarEnd)
