"""What peers say makes their prefixes dirty, and nothing else."""

from ipaddress import ip_address, ip_network

from pycni.agent.dirty import Dirty
from pycni.agent.messages import BgpTold
from pycni.model.bgp import EndOfRib, Family, PathsChanged, PeerUp
from tests.unit.agent.node_facts import dirty, facts, keys
from tests.unit.plan.samples import THEIRS, path

PEER = ip_address("10.10.43.25")


def test_an_update_concerns_its_prefixes() -> None:
    announced = BgpTold(PathsChanged(PEER, announced=(path(THEIRS),)))
    withdrawn = BgpTold(PathsChanged(PEER, withdrawn=(ip_network(THEIRS),)))

    assert dirty(announced) == Dirty(keys=keys(THEIRS))
    assert dirty(withdrawn, announced) == Dirty(keys=keys(THEIRS))


def test_end_of_rib_may_open_a_gate() -> None:
    assert dirty(BgpTold(EndOfRib(PEER, Family.IPV4))).is_gate


def test_a_session_alone_concerns_nothing() -> None:
    assert not dirty(BgpTold(PeerUp(PEER)))


def test_a_peer_that_is_no_longer_wanted_takes_its_paths_along() -> None:
    made = facts(BgpTold(PathsChanged(PEER, announced=(path(THEIRS),))))

    assert made.keep_peers([]) == Dirty(keys=keys(THEIRS))
    assert made.inputs.paths == {}
    assert not made.keep_peers([])
