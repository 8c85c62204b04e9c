"""How a restarted agent recognises what its predecessor made."""

from ipaddress import ip_address, ip_network

import pytest

from pycni.model.endpoints import EndpointKey
from pycni.model.network import KernelState, Link, NextHop, Route, RouteKey
from pycni.plan.ownership import Ownership, alias_of, host_veths, key_of_alias

OWNERSHIP = Ownership(
    route_protocol=12,
    tunnel_name="tunl0",
    pools=frozenset({ip_network("192.168.0.0/16"), ip_network("fd00::/48")}),
    host_veths=frozenset({"cali1", "cali2"}),
)
KEY = EndpointKey("net", "container", "eth0")


def route(dst: str, *devs: str, protocol: int = 12, table: int = 254) -> Route:
    hops = frozenset(NextHop(dev, gateway=ip_address("10.0.0.1")) for dev in devs)
    return Route(RouteKey(ip_network(dst), table=table), next_hops=hops, protocol=protocol)


@pytest.mark.parametrize(
    ("one", "is_ours"),
    [
        (route("192.168.1.0/26", "eth0"), True),
        (route("192.168.1.0/26"), True),
        (route("fd00:0:0:7::/64", "eth0"), True),
        (route("172.16.0.0/16", "tunl0"), True),
        (route("10.0.0.1/32", "cali1", protocol=3), True),
        (route("10.0.0.1/32", "cali1", "cali2", protocol=3), True),
        (route("10.0.0.1/32", "cali1", "eth0", protocol=3), False),
        (route("192.168.1.0/26", "eth0", protocol=4), False),
        (route("172.16.0.0/16", "tunl0", protocol=4), False),
        (route("172.16.0.0/16", "eth0"), False),
        (route("192.0.0.0/8", "eth0"), False),
        (route("192.168.1.0/26", "eth0", table=100), False),
        (route("10.0.0.1/32", "cali1", table=100), False),
    ],
    ids=str,
)
def test_a_route_says_whose_it_is(one: Route, *, is_ours: bool) -> None:
    assert OWNERSHIP.owns(one) is is_ours


def test_a_host_end_is_ours_by_record_or_by_alias() -> None:
    links = [
        Link("cali1", 1, alias="pycni:net/container/eth0"),
        Link("cali2", 2),
        Link("cali3", 3, alias="somebody's"),
    ]
    state = KernelState(links={link.name: link for link in links})

    assert host_veths(state, recorded=["cali2"]) == {"cali1", "cali2"}


def test_an_alias_names_its_endpoint() -> None:
    assert alias_of(KEY) == "pycni:net/container/eth0"
    assert key_of_alias(alias_of(KEY)) == KEY


def test_the_alias_of_a_long_key_is_a_hash_that_fits() -> None:
    key = EndpointKey("n" * 100, "c" * 200, "eth0")

    assert len(alias_of(key)) <= 255
    assert alias_of(key) == alias_of(key)
    assert alias_of(key) != alias_of(EndpointKey("n" * 100, "c" * 200, "eth1"))
    assert key_of_alias(alias_of(key)) is None


def test_other_aliases_name_nothing() -> None:
    assert key_of_alias("uplink") is None
    assert key_of_alias("pycni:") is None
