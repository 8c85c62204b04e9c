"""An end of a VXLAN tunnel moves to a new block, and is reached as before until that is known."""

from ipaddress import ip_address, ip_network

import pytest

from pycni.model.network import IPAddress
from pycni.model.tunnels import TunnelKind
from pycni.model.vxlan import VxlanEnd
from pycni.plan.inputs import Inputs
from pycni.plan.overlay import FarEnd, far_ends
from tests.unit.plan.samples import THEIRS, affinity
from tests.unit.plan.test_overlay import change, end, overlay

OLD, NEW = ip_address("192.168.247.0"), ip_address("192.168.100.1")
NEW_BLOCK = "192.168.100.0/26"


def where(made: Inputs) -> IPAddress | str:
    """Return where node-2's end is taken to be, or why it has none."""
    found = far_ends(made, TunnelKind.VXLAN)["node-2"]
    return found.address if isinstance(found, FarEnd) else found


def give(made: Inputs, block: str, node: str | None) -> None:
    """Let a block be a node's, or nobody's."""
    made.affinities.pop(ip_network(block), None)
    if node is not None:
        made.affinities[ip_network(block)] = affinity(block, node)
    if node is not None:
        made.look_at_ends(node)


def moved() -> Inputs:
    made = overlay()
    change(made, "node-2", vxlan=end(str(NEW)))
    return made


def test_an_end_that_moves_stays_until_its_new_block_is_heard_of() -> None:
    made = moved()
    assert where(made) == OLD

    give(made, NEW_BLOCK, "node-2")

    assert where(made) == NEW
    give(made, NEW_BLOCK, None)
    assert "no block affinity covers" in str(where(made))


@pytest.mark.parametrize("holder", [None, "node-1"])
def test_its_old_block_may_go_but_not_to_another(holder: str | None) -> None:
    made = moved()

    give(made, THEIRS, holder)

    assert (where(made) == OLD) is (holder is None)
    assert made.concerns_end(ip_network(THEIRS))


def test_an_end_that_moves_twice_stays_where_the_books_had_it() -> None:
    made = moved()
    change(made, "node-2", vxlan=end("192.168.200.1"))

    assert where(made) == OLD


def test_a_new_block_that_is_anothers_counts_at_once() -> None:
    made = moved()

    give(made, NEW_BLOCK, "node-1")

    assert where(made) == f"its address inside the VXLAN tunnel, {NEW}, is held by node-1"


def test_an_end_that_is_taken_back_is_no_end() -> None:
    made = moved()

    change(made, "node-2", vxlan=VxlanEnd())

    assert where(made) == "it has no address inside the VXLAN tunnel (yet)"
    change(made, "node-2", vxlan=end(str(NEW)))
    assert "no block affinity covers" in str(where(made))


def test_a_node_that_is_gone_is_forgotten_in_both_versions() -> None:
    made = moved()
    change(made, "node-2", vxlan6=end("fd00:1::3:1"))
    assert len([name for name, _ in made.last_ends if name == "node-2"]) == 2

    made.set_node("node-2", None)

    assert not [name for name, _ in made.last_ends if name == "node-2"]


def test_what_the_books_never_gave_a_node_is_no_end_of_it() -> None:
    made = overlay()
    change(made, "node-2", vxlan=end("192.168.84.150"))  # of node-1's block

    change(made, "node-2", vxlan=end(str(NEW)))

    assert where(made) == OLD
