"""Dirt itself: what asks for it outright, and that no speck of it gets lost."""

from collections.abc import Callable
from ipaddress import ip_network

import pytest

from pycni.agent.dirty import Dirty
from pycni.agent.facts import Facts
from pycni.agent.messages import Doubt, Leaving, LookAgain
from pycni.model.network import RouteKey
from pycni.plan.inputs import Inputs, Settings
from tests.unit.agent.node_facts import dirty, keys
from tests.unit.plan.samples import OWN


def test_a_doubt_calls_for_everything_anew() -> None:
    assert dirty(Doubt("SIGHUP")) == Dirty(is_all=True, is_doubtful=True)


def test_what_was_put_off_is_looked_at_again() -> None:
    key = RouteKey(ip_network("192.168.39.193/32"))

    again = dirty(LookAgain(frozenset({key}), frozenset({"cali1"})))

    assert again == Dirty(keys={key}, links={"cali1"})


SPECKS: list[Callable[[], Dirty]] = [
    lambda: Dirty(keys=keys(OWN)),
    lambda: Dirty(links={"cali1"}),
    lambda: Dirty(is_other=True),
    lambda: Dirty(is_bgp=True),
    lambda: Dirty(is_gate=True),
    lambda: Dirty(is_all=True),
    lambda: Dirty(is_doubtful=True),
]


@pytest.mark.parametrize("speck", SPECKS)
def test_any_speck_is_dirt_and_none_gets_lost(speck: Callable[[], Dirty]) -> None:
    whole = Dirty()
    assert not whole

    whole.merge(speck())

    assert whole
    assert whole == speck()


def test_who_leaves_has_peers_told() -> None:
    facts = Facts(Inputs(Settings(node="node-0")))

    told = facts.feed(Leaving(is_wanted=True), now=0.0)

    assert (told, facts.inputs.is_leaving) == (Dirty(is_bgp=True), True)
    facts.feed(Leaving(is_wanted=False), now=0.0)
    assert not facts.inputs.is_leaving
