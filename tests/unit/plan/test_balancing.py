"""Which LoadBalancer addresses a Service keeps, loses and gets."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.ipam.block import Given
from pycni.model.resources import AllocationAttribute, AssignmentMode, IPPool, PoolUse
from pycni.model.services import BalancedService
from pycni.plan.balancing import Verdict, judge, wanted_ingress

USES = frozenset({PoolUse.LOAD_BALANCER})
MANUAL = AssignmentMode.MANUAL
POOLS = (
    IPPool("four", ip_network("198.51.100.0/24"), allowed_uses=USES),
    IPPool("other", ip_network("203.0.113.0/24"), allowed_uses=USES, assignment_mode=MANUAL),
    IPPool("six", ip_network("2001:db8::/112"), block_size=122, allowed_uses=USES),
    IPPool("pods", ip_network("192.168.0.0/16")),
)
SHOP = BalancedService("web/shop", "u1", is_ours=True, versions=(4,))
DUAL = replace(SHOP, versions=(4, 6))


def held(*texts: str) -> tuple[Given, ...]:
    return tuple(
        Given(ip_address(text), AllocationAttribute(SHOP.handle_id), number)
        for number, text in enumerate(texts)
    )


def ingress(service: BalancedService, *has: str, lost: tuple[str, ...] = ()) -> list[str]:
    addresses = [ip_address(text) for text in has]
    return [str(one) for one in wanted_ingress(service, addresses, lost=held(*lost), pools=POOLS)]


def said(service: BalancedService, *texts: str) -> tuple[list[str], list[str], list[str]]:
    """Return what is kept, what is lost and what is wanted."""
    verdict = judge(service, held(*texts), POOLS)
    assert not verdict.fault
    gone = (*verdict.loses, *verdict.yields)
    keeps, loses = ([str(one.address) for one in some] for some in (verdict.keeps, gone))
    return keeps, loses, [str(one) for one in verdict.wants]


def test_what_can_be_replaced_is_given_up_only_then() -> None:
    asks = replace(SHOP, addresses=(ip_address("198.51.100.7"),))

    verdict = judge(asks, held("198.51.100.1", "192.0.2.1", "2001:db8::1", "198.51.100.2"), POOLS)

    assert verdict.yields == held("198.51.100.1")
    assert [str(one.address) for one in verdict.loses] == [
        "192.0.2.1",
        "2001:db8::1",
        "198.51.100.2",
    ]


def test_a_service_gets_one_address_of_each_of_its_ip_versions() -> None:
    assert said(SHOP) == ([], [], ["4"])
    assert said(DUAL, "2001:db8::1") == (["2001:db8::1"], [], ["4"])
    assert said(DUAL, "198.51.100.1", "2001:db8::1") == (["198.51.100.1", "2001:db8::1"], [], [])


def test_a_service_that_is_not_ours_loses_what_it_has() -> None:
    assert said(replace(SHOP, is_ours=False), "198.51.100.1") == ([], ["198.51.100.1"], [])


@pytest.mark.parametrize(
    ("service", "lost"),
    [
        (SHOP, "2001:db8::1"),  # no version of its own any more
        (SHOP, "192.168.0.1"),  # in no pool for load balancers
        (SHOP, "203.0.113.1"),  # of a pool that serves those who name it
        (replace(SHOP, ipv4_pools=("other",)), "198.51.100.1"),
        (replace(SHOP, addresses=(ip_address("198.51.100.7"),)), "198.51.100.1"),
    ],
)
def test_what_is_not_wished_any_more_is_lost(service: BalancedService, lost: str) -> None:
    keeps, loses, wants = said(service, lost)

    assert (keeps, loses) == ([], [lost])
    assert wants == [str(one) for one in service.addresses or (4,)]


def test_of_two_addresses_the_one_that_is_known_stays() -> None:
    known = replace(SHOP, ingress=(ip_address("198.51.100.9"),))

    assert said(known, "198.51.100.1", "198.51.100.9") == (["198.51.100.9"], ["198.51.100.1"], [])
    assert said(SHOP, "198.51.100.1", "198.51.100.9") == (["198.51.100.1"], ["198.51.100.9"], [])


def test_requested_addresses_are_got_of_any_pool_for_load_balancers() -> None:
    asks = replace(DUAL, addresses=(ip_address("203.0.113.7"),))

    assert said(asks) == ([], [], ["203.0.113.7"])
    assert said(asks, "203.0.113.7") == (["203.0.113.7"], [], [])


def test_pools_are_named_by_name_or_cidr() -> None:
    asks = replace(DUAL, ipv4_pools=("203.0.113.0/24",), ipv6_pools=("six",))

    assert said(asks, "203.0.113.7", "2001:db8::1") == (["203.0.113.7", "2001:db8::1"], [], [])


@pytest.mark.parametrize(
    ("service", "fault"),
    [
        (replace(SHOP, fault="that is no list"), "that is no list"),
        (replace(SHOP, ipv4_pools=("lost",)), "pool lost: it does not exist or is disabled"),
        (replace(SHOP, ipv4_pools=("pods",)), "pool pods: it does not exist or is disabled"),
    ],
)
def test_a_mistake_takes_nothing_away(service: BalancedService, fault: str) -> None:
    verdict = judge(service, held("198.51.100.1"), POOLS)

    assert verdict == Verdict(keeps=held("198.51.100.1"), fault=verdict.fault)
    assert fault in verdict.fault


def test_with_a_mistake_only_what_has_a_pool_stays() -> None:
    asks = replace(SHOP, ipv4_pools=("lost",))

    verdict = judge(asks, held("198.51.100.1", "192.0.2.1"), POOLS)

    assert verdict.fault
    assert [str(one.address) for one in verdict.keeps] == ["198.51.100.1"]
    assert [str(one.address) for one in verdict.loses] == ["192.0.2.1"]


SIX_MISTAKEN = replace(DUAL, ipv6_pools=("lost",))
SIX_UNREADABLE = replace(DUAL, pool_faults=((6, "write a list in JSON"),))


@pytest.mark.parametrize("service", [SIX_MISTAKEN, SIX_UNREADABLE])
def test_a_mistake_about_pools_of_one_ip_version_costs_the_other_nothing(
    service: BalancedService,
) -> None:
    new = judge(service, (), POOLS)
    holding = judge(service, held("203.0.113.1", "2001:db8::1", "192.0.2.1"), POOLS)

    assert (new.keeps, new.wants) == ((), (4,))
    # What is not wished any more is replaced; of the other it has what it has.
    assert [str(one.address) for one in holding.keeps] == ["2001:db8::1"]
    assert [str(one.address) for one in holding.yields] == ["203.0.113.1"]
    assert holding.wants == (4,)
    assert new.fault == holding.fault != ""


def test_one_that_requires_both_ip_versions_gets_neither_with_a_mistake_about_one() -> None:
    verdict = judge(replace(SIX_MISTAKEN, requires_all=True), held("198.51.100.1"), POOLS)

    assert verdict == Verdict(keeps=held("198.51.100.1"), fault=verdict.fault)
    assert "pool lost: it does not exist" in verdict.fault


def test_with_mistakes_about_both_it_gets_neither_and_is_told_of_both() -> None:
    verdict = judge(replace(SIX_UNREADABLE, ipv4_pools=("pods",)), (), POOLS)

    assert verdict.wants == ()
    assert "write a list in JSON" in verdict.fault
    assert "pool pods: it does not exist" in verdict.fault


def test_a_mistake_about_pools_does_not_take_away_what_is_not_asked_for_any_more() -> None:
    asks = replace(SIX_UNREADABLE, addresses=(ip_address("2001:db8::7"),))

    assert judge(asks, held("2001:db8::1"), POOLS).keeps == held("2001:db8::1")
    both = (ip_address("198.51.100.7"), ip_address("2001:db8::7"))
    verdict = judge(replace(asks, addresses=both), held("2001:db8::1"), POOLS)
    assert (verdict.keeps, verdict.wants) == (held("2001:db8::1"), both[:1])


def test_pools_of_an_ip_version_that_it_does_not_have_do_not_matter() -> None:
    assert said(replace(SHOP, ipv6_pools=("lost",))) == ([], [], ["4"])
    asks = replace(DUAL, addresses=(ip_address("203.0.113.7"),), ipv6_pools=("lost",))
    assert said(asks) == ([], [], ["203.0.113.7"])


def test_the_status_has_the_services_first_ip_version_first() -> None:
    has = ["2001:db8::1", "198.51.100.1"]

    assert ingress(DUAL, *has) == ["198.51.100.1", "2001:db8::1"]
    assert ingress(replace(DUAL, versions=(6, 4)), *has) == ["2001:db8::1", "198.51.100.1"]


def test_others_addresses_stay_in_the_status_until_there_is_one_of_ours() -> None:
    ours, former, theirs = "198.51.100.1", "192.0.2.1", "8.8.8.8"
    service = replace(SHOP, ingress=tuple(map(ip_address, (ours, former, theirs))))

    assert ingress(service, lost=(former,)) == [theirs]
    assert ingress(replace(service, is_ours=False), lost=(ours, former)) == [theirs]
    assert ingress(service, ours) == [ours]


def test_the_handle_is_the_one_of_calico() -> None:
    # sha256 of "shop-web-u1", base64url without padding, '-' and '_'.
    assert SHOP.handle_id == "lb-xEg3VOjdrMtldcwwRSVb296kfOTZmGbZ1azL0v2g"
    assert replace(SHOP, uid="u2").handle_id != SHOP.handle_id
