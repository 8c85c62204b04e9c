"""A BGPPeer between our nodes: the one that is called calls back, and both expect the same."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from pycni.model.bgp import Neighbour
from pycni.model.resources_bgp import BGPConfiguration, BGPPeer
from pycni.plan.imports import Rejected, judge
from pycni.plan.inputs import Inputs
from pycni.plan.peering import (
    peering_with,
    session_with,
    unanswered,
    wanted_neighbours,
)
from tests.unit.plan.samples import THEIRS, inputs, path

NODE_0, NODE_1, NODE_2 = "10.10.7.20", "10.10.24.89", "10.10.43.25"
AS = 64512


def known(*peers: BGPPeer, **settings: object) -> Inputs:
    """What node-0 knows of a cluster without mesh."""
    made = inputs()
    made.bgp = replace(made.bgp, is_node_mesh_enabled=False, **settings)  # type: ignore[arg-type]
    made.peers = {peer.name: peer for peer in peers}
    return made


def peer(name: str, address: str, number: int = AS, **fields: object) -> BGPPeer:
    return BGPPeer(name, ip_address(address), number, **fields)  # type: ignore[arg-type]


def calls(made: Inputs) -> list[str]:
    return [f"{n.peer} port {n.port} as {n.peer_as}" for n in wanted_neighbours(made)]


def only(made: Inputs) -> Neighbour:
    (neighbour,) = wanted_neighbours(made)
    return neighbour


def test_a_node_that_is_named_by_its_address_calls_back() -> None:
    made = known(peer("zero", NODE_0, node="node-1"))

    assert calls(made) == [f"{NODE_1} port 179 as 64512"]


def test_named_for_every_node_it_calls_all_of_them_back_by_the_same_ip_version() -> None:
    four, six = known(peer("zero", NODE_0)), known(peer("zero", "fd10::7"))

    assert [str(n.peer) for n in wanted_neighbours(four)] == ["10.10.7.30", NODE_1, NODE_2]
    assert [str(n.peer) for n in wanted_neighbours(six)] == ["fd10::24", "fd11::43"]


@pytest.mark.parametrize(
    "named",
    [
        peer("zero", NODE_0, 65001, node="node-1"),
        peer("zero", NODE_0, node="node-1", port=1790),
        peer("zero", NODE_0, node="node-1", is_called_back=False),
        peer("zero", NODE_0, node="nobody"),
    ],
    ids=["another AS number", "another port", "Manual", "no node has it"],
)
def test_what_is_not_this_nodes_bgp_is_not_called_back(named: BGPPeer) -> None:
    assert calls(known(named)) == []


def test_manual_leaves_selected_nodes_without_a_way_back_too() -> None:
    made = known(BGPPeer("a", node="node-2", peer_selector="all()", is_called_back=False))

    assert calls(made) == []


def test_manual_peerings_in_both_directions_make_a_session() -> None:
    made = known(
        peer("there", NODE_1, node="node-0", is_called_back=False),
        peer("back", NODE_0, node="node-1", is_called_back=False),
    )

    assert calls(made) == [f"{NODE_1} port 179 as 64512"]
    assert peering_with(made, ip_address(NODE_1)) == made.peers["there"]


def test_the_way_back_has_the_settings_of_the_way_there() -> None:
    made = known(
        peer("zero", NODE_0, node="node-1", password="x", restart_time_s=7, hops=1)  # noqa: S106
    )

    back = only(made)

    assert (back.password, back.restart_time_s, back.hops) == ("x", 7, 1)


def test_a_peering_of_ones_own_goes_before_one_that_is_answered() -> None:
    made = known(
        peer("mine", NODE_1, node="node-0", restart_time_s=1),
        peer("theirs", NODE_0, node="node-1", restart_time_s=2),
    )

    assert only(made).restart_time_s == 1


def test_both_ends_choose_the_peering_that_names_an_address() -> None:
    made = known(
        BGPPeer("selected", node="node-0", peer_selector="all()", restart_time_s=1),
        peer("named", NODE_0, node="node-1", restart_time_s=2),
    )
    times = {str(n.peer): n.restart_time_s for n in wanted_neighbours(made)}

    assert (times[NODE_1], times[NODE_2]) == (2, 1)
    assert peering_with(made, ip_address(NODE_1)) == made.peers["named"]


def test_of_two_by_selector_ones_own_goes_before_one_that_is_answered() -> None:
    made = known(
        BGPPeer("mine", node="node-0", peer_selector="all()", restart_time_s=1),
        BGPPeer("theirs", node="node-1", peer_selector="all()", restart_time_s=2),
    )
    times = {str(n.peer): n.restart_time_s for n in wanted_neighbours(made)}

    assert (times[NODE_1], times[NODE_2]) == (1, 1)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_of_two_alike_the_later_name_counts_in_whichever_order_they_come(names: str) -> None:
    made = known(*(peer(name, NODE_1, restart_time_s=ord(name)) for name in names))

    assert only(made).restart_time_s == ord("b")
    assert peering_with(made, ip_address(NODE_1)) == made.peers["b"]


def test_one_peering_of_an_ip_version_leaves_the_meshs_session_of_the_other() -> None:
    made = known(peer("zero", NODE_0, node="node-1"))
    made.bgp = replace(made.bgp, is_node_mesh_enabled=True)

    asked = map(ip_address, (NODE_1, "fd10::24"))
    assert [peering_with(made, address) for address in asked] == [made.peers["zero"], None]


def test_a_nodes_own_port_counts_unless_one_is_written() -> None:
    made = known(peer("near", NODE_1), peer("far", "10.10.0.1"), listen_port=1179)

    assert calls(made) == ["10.10.0.1 port 179 as 64512", f"{NODE_1} port 1179 as 64512"]


def test_the_port_that_nodes_listen_on_may_be_written() -> None:
    made = known(peer("zero", NODE_0, node="node-1", port=1179), listen_port=1179)

    assert calls(made) == [f"{NODE_1} port 1179 as 64512"]


@pytest.mark.parametrize(
    ("written", "called"), [(1790, [f"{NODE_1} port 179 as 64512"]), (179, [])]
)
def test_where_one_node_has_a_port_of_its_own_that_one_names_it(
    written: int, called: list[str]
) -> None:
    made = known(peer("zero", NODE_0, node="node-1", port=written))
    made.set_bgp("node-0", BGPConfiguration("node.node-0", listen_port=1790))

    assert calls(made) == called


@pytest.mark.parametrize(
    "peering",
    [peer("a", NODE_1, local_as=65001), BGPPeer("a", peer_selector="all()", local_as=65001)],
    ids=["named", "selected"],
)
def test_no_other_local_as_number_between_our_nodes(peering: BGPPeer) -> None:
    made = known(peering)
    asked = ip_address(NODE_1)

    assert {n.local_as for n in wanted_neighbours(made)} == {AS}
    assert session_with(made, asked).local_as == AS
    assert session_with(made, asked).is_internal


def test_a_local_as_number_counts_towards_what_else_runs_at_a_nodes_address() -> None:
    made = known(peer("a", NODE_1, 65009, local_as=65001))

    assert (only(made).local_as, only(made).peer_as) == (65001, 65009)
    assert not session_with(made, ip_address(NODE_1)).is_internal


def test_a_node_that_a_peering_names_speaks_for_itself_alone() -> None:
    made = known(peer("a", NODE_1))

    verdict = judge(made, path(THEIRS, NODE_2, peer=NODE_1))

    assert isinstance(verdict, Rejected)
    assert verdict.reason == f"next hop {NODE_2} is not the address of node-1"


MANUAL = peer("there", NODE_1, node="node-0", is_called_back=False)


@pytest.mark.parametrize(
    ("peers", "is_answered"),
    [
        ([MANUAL], False),
        ([replace(MANUAL, is_called_back=True)], True),
        ([MANUAL, peer("back", NODE_0, node="node-1", is_called_back=False)], True),
        ([MANUAL, peer("back", NODE_0, node="node-2", is_called_back=False)], False),
        ([peer("router", "10.10.0.1")], True),
        ([], True),
    ],
    ids=["Manual", "Auto", "both ways", "of another node", "a router", "none"],
)
def test_a_session_that_leads_one_way_is_known(peers: list[BGPPeer], *, is_answered: bool) -> None:
    made = known(*peers)
    address = ip_address(NODE_1 if MANUAL in peers else "10.10.0.1")

    assert unanswered(made, address) == (None if is_answered else MANUAL)


def test_the_mesh_answers_a_session_too() -> None:
    made = known(MANUAL)
    made.bgp = replace(made.bgp, is_node_mesh_enabled=True)

    assert unanswered(made, ip_address(NODE_1)) is None


def test_before_our_node_is_known_nothing_is_unanswered() -> None:
    made = known(MANUAL)
    made.set_node("node-0", None)

    assert unanswered(made, ip_address(NODE_1)) is None
