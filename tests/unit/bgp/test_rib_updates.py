"""The Adj-RIB-In of sessions that are up, and of peers that are no longer wanted."""

from pycni.bgp.rib import Rib
from pycni.model.bgp import PathsChanged, PeerUp
from tests.unit.bgp.ribs import BLOCK, OTHER, A, B, announce, established, opened, path, shown, told


def test_an_announced_prefix_is_in_the_table() -> None:
    rib = told(opened(), PeerUp(A))

    touched = rib.feed(announce(path()), now=0.0)

    assert touched == {BLOCK}
    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1"]


def test_the_same_announcement_again_changes_nothing() -> None:
    rib = established(path())

    assert rib.feed(announce(path()), now=0.0) == set()


def test_a_changed_announcement_replaces_the_former() -> None:
    rib = established(path())

    touched = rib.feed(announce(path(med=7)), now=0.0)

    assert touched == {BLOCK}
    assert [p.med for p in rib.paths(BLOCK)] == [7]


def test_a_withdrawn_prefix_is_gone() -> None:
    rib = established(path())

    touched = rib.feed(PathsChanged(A, withdrawn=(BLOCK, OTHER)), now=0.0)

    assert touched == {BLOCK}
    assert shown(rib) == []


def test_paths_of_several_peers_stand_in_the_order_of_their_addresses() -> None:
    rib = told(PathsChanged(B, announced=(path(peer="10.0.0.2"),)), announce(path()))

    assert shown(rib) == [
        "192.168.1.0/26 from 10.0.0.1",
        "192.168.1.0/26 from 10.0.0.2",
    ]


def test_a_withdrawal_leaves_the_other_peers_path() -> None:
    rib = told(PathsChanged(B, announced=(path(peer="10.0.0.2"),)), announce(path()))

    rib.feed(PathsChanged(A, withdrawn=(BLOCK,)), now=0.0)

    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.2"]


def test_a_forgotten_peer_takes_its_paths_along() -> None:
    rib = told(PathsChanged(B, announced=(path(peer="10.0.0.2"),)), announce(path()))

    touched = rib.forget(A)

    assert touched == {BLOCK}
    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.2"]
    assert A not in rib.peers


def test_forgetting_a_stranger_changes_nothing() -> None:
    assert Rib().forget(A) == set()
