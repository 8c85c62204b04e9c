"""When a peer has been heard completely."""

import pytest

from pycni.bgp.rib import Rib
from pycni.model.bgp import BgpEvent, Family, PeerUp
from tests.unit.bgp.ribs import EOR_4, EOR_6, LOST, A, B, down, established, neighbour, opened, told


def test_a_peer_is_heard_once_each_family_of_its_session_ended() -> None:
    rib = told(opened(), PeerUp(A), EOR_4)
    assert not rib.has_heard_all([neighbour()])

    rib.feed(EOR_6, now=0.0)

    assert rib.has_heard_all([neighbour()])


def test_a_session_of_one_family_needs_one_end_of_rib() -> None:
    assert told(opened(families="4"), PeerUp(A), EOR_4).has_heard_all([neighbour()])


def test_a_family_that_we_do_not_ask_for_is_not_waited_for() -> None:
    rib = told(opened(families="46"), PeerUp(A), EOR_4)

    assert rib.has_heard_all([neighbour(families=frozenset({Family.IPV4}))])


def test_an_unknown_peer_has_not_been_heard() -> None:
    assert not established().has_heard_all([neighbour(), neighbour(B)])


def test_nobody_to_hear_has_been_heard() -> None:
    assert Rib().has_heard_all([])


@pytest.mark.parametrize("end", [down(), LOST])
def test_a_lost_session_has_to_be_heard_again(end: BgpEvent) -> None:
    rib = established()

    rib.feed(end, now=1.0)
    rib.feed(opened(), now=2.0)
    rib.feed(PeerUp(A), now=2.0)

    assert not rib.has_heard_all([neighbour()])
