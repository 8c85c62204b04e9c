"""What changes of Services and their endpoints make dirty: nothing, unless it is announced."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.agent.dirty import Dirty
from pycni.agent.facts import Facts
from pycni.agent.messages import Message
from pycni.model.resources_bgp import BGPConfiguration
from pycni.model.service_ranges import ServiceRanges
from pycni.model.services import (
    EndpointSlice,
    Service,
    ServiceChanged,
    ServicesListed,
    SliceChanged,
    SlicesListed,
)
from pycni.plan.services import announced_services
from tests.unit.agent.node_facts import facts, told_of

RANGES = ServiceRanges(cluster=(ip_network("10.96.0.0/12"),))
SHOP = Service("web/shop", is_local=True, cluster_ips=(ip_address("10.96.0.7"),))
HERE = EndpointSlice("web/a", "web/shop", 4, frozenset({"node-0"}), is_ready=True)
THERE = EndpointSlice("web/b", "web/shop", 4, frozenset({"node-1"}), is_ready=True)


def known(*messages: Message) -> Facts:
    """Return facts that know the ranges, a Service of policy Local, and an endpoint here."""
    first = (
        told_of(BGPConfiguration(services=RANGES)),
        ServicesListed((SHOP,)),
        SlicesListed((HERE,)),
    )
    return facts(*first, *messages)


def announced(made: Facts) -> list[str]:
    return sorted(map(str, announced_services(made.inputs)))


def test_services_count_as_known_when_both_kinds_are_listed() -> None:
    made = facts(told_of(BGPConfiguration(services=RANGES)))

    states = [made.has_services]
    for message in (ServicesListed(()), SlicesListed(())):
        made.feed(message, now=0.0)
        states.append(made.has_services)

    assert states == [False, False, True]
    assert facts().has_services


def test_what_is_listed_is_all_there_is() -> None:
    made = known()
    assert announced(made) == ["10.96.0.0/12", "10.96.0.7/32"]

    assert made.feed(SlicesListed((THERE,)), now=0.0) == Dirty(is_bgp=True)

    assert announced(made) == ["10.96.0.0/12"]
    made.feed(SliceChanged("web/b", HERE), now=0.0)
    made.feed(ServicesListed(()), now=0.0)
    assert announced(made) == ["10.96.0.0/12"]


@pytest.mark.parametrize(
    "message",
    [
        SliceChanged("web/a", None),
        SliceChanged("web/a", replace(HERE, nodes=frozenset(), is_ready=False)),
        SliceChanged("web/a", replace(HERE, service="web/other")),
        ServiceChanged("web/shop", None),
        ServiceChanged("web/shop", replace(SHOP, is_local=False)),
    ],
)
def test_what_is_announced_no_more_is_withdrawn(message: Message) -> None:
    made = known()

    assert made.feed(message, now=0.0) == Dirty(is_bgp=True)
    assert announced(made) == ["10.96.0.0/12"]


@pytest.mark.parametrize(
    "message",
    [
        SliceChanged("web/b", THERE),
        SliceChanged("web/c", None),
        SliceChanged("web/a", replace(HERE, nodes=frozenset({"node-0", "node-1"}))),
        SliceChanged("web/d", replace(HERE, name="web/d")),
        ServiceChanged("web/shop", replace(SHOP, external_ips=(ip_address("8.8.8.8"),))),
        ServiceChanged("web/other", Service("web/other")),
        ServiceChanged("web/lost", None),
    ],
)
def test_what_makes_no_difference_here_is_not_looked_at(message: Message) -> None:
    assert not known().feed(message, now=0.0)


def test_a_slice_that_returns_is_announced_again() -> None:
    made = known(SliceChanged("web/a", None))

    assert made.feed(SliceChanged("web/a", HERE), now=0.0) == Dirty(is_bgp=True)
    assert announced(made) == ["10.96.0.0/12", "10.96.0.7/32"]


def test_one_of_two_slices_goes_and_the_other_one_serves_on() -> None:
    made = known(SliceChanged("web/d", replace(HERE, name="web/d")))

    assert not made.feed(SliceChanged("web/a", None), now=0.0)
    assert announced(made) == ["10.96.0.0/12", "10.96.0.7/32"]
    assert made.feed(SliceChanged("web/d", None), now=0.0) == Dirty(is_bgp=True)
