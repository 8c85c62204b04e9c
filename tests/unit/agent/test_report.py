"""What `pycnictl status` says of sessions that stay down or that nothing passes, and of Nodes."""

from ipaddress import ip_address

from pycni.agent.report import (
    NAMED,
    down_session_text,
    missing_filter_text,
    unread_annotations,
)
from pycni.model.resources import Node


def test_a_node_whose_session_is_down_has_an_agent_to_look_at() -> None:
    assert down_session_text("10.10.7.99", node="node-9", port=179, down_s=31.4) == (
        "the BGP session with node-9 (10.10.7.99) is down for 31 s: look whether that agent runs,"
        " and whether TCP port 179 gets there"
    )


def test_a_session_that_leads_one_way_names_the_peering() -> None:
    said = down_session_text("10.10.7.99", node="node-9", port=179, down_s=31, one_way="there")

    assert said == (
        "the BGP session with node-9 (10.10.7.99) is down for 31 s: BGPPeer there has"
        " reversePeering Manual, and none of node-9 leads back: make one, or write Auto"
    )


def test_a_router_whose_session_is_down_is_no_agent() -> None:
    assert down_session_text("10.10.0.1", node="", port=1179, down_s=40) == (
        "the BGP session with 10.10.0.1 is down for 40 s: look whether that router runs and has"
        " this node as its neighbour, with the same AS numbers, password and ttlSecurity, and"
        " whether TCP port 1179 gets there"
    )


def test_what_the_ends_said_is_part_of_it() -> None:
    said = down_session_text(
        "10.10.0.1", node="", port=179, down_s=40, last_error="notification sent (2,2)"
    )

    assert "is down for 40 s (we sent OPEN Message Error: Bad Peer AS (2,2)): look" in said


def test_annotations_that_can_not_be_read_are_named_with_the_way_out() -> None:
    nodes = [Node("node-1", unread=("projectcalico.org/ASNumber",)), Node("node-0")]

    (sentence,) = unread_annotations(nodes)

    assert sentence == (
        "Node node-1: its annotation projectcalico.org/ASNumber can't be read and counts as absent:"
        " correct it (kubectl annotate --overwrite node node-1 projectcalico.org/ASNumber=VALUE, or"
        " projectcalico.org/ASNumber-)"
    )


def test_of_many_such_annotations_a_few_are_named() -> None:
    nodes = [Node(f"node-{n}", unread=("a", "b")) for n in range(NAMED)]

    *named, more = unread_annotations(nodes)

    assert len(named) == NAMED
    assert more == f"and {NAMED} more annotations of Nodes can't be read"


def test_a_missing_filter_is_named_with_what_it_stops_and_what_helps() -> None:
    assert missing_filter_text(ip_address("10.10.0.1"), "rack", "mine") == (
        "BGP peer 10.10.0.1: nothing is announced to it or taken from it, because BGPFilter mine,"
        " which BGPPeer rack names, is not there: apply it, or take its name out of the peer"
    )
