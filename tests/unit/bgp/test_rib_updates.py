"""The Adj-RIB-In of sessions that are up, and of peers that are no longer wanted."""

from ipaddress import ip_network

import pytest

from pycni.agent.report import full_peers
from pycni.bgp import rib as rib_module
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


def test_a_peer_that_announces_without_end_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rib_module, "MAX_PATHS", 2)
    rib = established(path(), path("192.168.2.0/26"))
    assert full_peers(rib) == []

    assert rib.feed(announce(path("192.168.3.0/26"), path(med=5)), now=0.0) == {BLOCK}

    assert shown(rib) == ["192.168.1.0/26 from 10.0.0.1", "192.168.2.0/26 from 10.0.0.1"]
    (problem,) = full_peers(rib)
    assert problem.startswith("BGP peer 10.0.0.1 announces over 200,000 prefixes")
    rib.feed(PathsChanged(A, withdrawn=(OTHER, ip_network("192.168.3.0/26"))), now=0.0)
    rib.feed(announce(path("192.168.4.0/26")), now=0.0)
    assert "192.168.4.0/26 from 10.0.0.1" in shown(rib)
    assert full_peers(rib) == [problem], "nobody knows what was left out"
    rib.feed(opened(), now=0.0)
    assert full_peers(rib) == []
