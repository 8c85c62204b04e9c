"""Prefixes and addresses as one object each: to everybody else they are the library's."""

import copy
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest

from pycni.model.network import MAIN_TABLE, RouteKey
from pycni.model.prefix import (
    known_address,
    known_key,
    known_prefix,
    prefix4,
    prefix6,
    read_address,
    read_prefix,
)

TEXTS = ["10.244.3.64/26", "0.0.0.0/0", "255.255.255.255/32", "fd00:10:244::40/122", "::/0"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_prefix_is_the_librarys_and_one_object(text: str) -> None:
    usual, ours = ip_network(text), read_prefix(text)
    assert ours == usual
    assert usual == ours
    assert hash(ours) == hash(usual)
    assert (str(ours), repr(ours)) == (text, repr(usual))
    assert isinstance(ours, type(usual))
    assert {usual: 1}[ours] == {ours: 1}[usual] == 1
    assert read_prefix(text) is known_prefix(usual) is ours


@pytest.mark.parametrize("text", ["192.168.84.2", "fd00:192:168::2", "fe80::1%eth0"])
def test_an_address_is_the_librarys_and_one_object(text: str) -> None:
    usual, ours = ip_address(text), read_address(text)
    assert ours == usual
    assert hash(ours) == hash(usual)
    assert (str(ours), repr(ours)) == (text, repr(usual))
    assert isinstance(ours, type(usual))
    assert read_address(text) is ours
    assert known_address(ours) is ours


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_made_from_a_prefix_is_what_the_library_makes(text: str) -> None:
    usual, ours = ip_network(text), read_prefix(text)
    assert ours.supernet() == usual.supernet()
    assert next(iter(ours.subnets())) == next(iter(usual.subnets()))
    assert ours[0] == usual[0]
    again = copy.deepcopy(ours)
    assert again == usual
    assert hash(again) == hash(usual)


def test_a_prefix_that_holds_another_can_leave_it_out() -> None:
    pool, block = read_prefix("10.0.0.0/30"), read_prefix("10.0.0.0/32")
    assert isinstance(pool, IPv4Network)
    assert isinstance(block, IPv4Network)
    rest = sorted(pool.address_exclude(block))
    assert [str(one) for one in rest] == ["10.0.0.1/32", "10.0.0.2/31"]


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1/26",
        "10.0.0.0/33",
        "10.0.0/24",
        "256.0.0.0/8",
        "010.0.0.0/8",
        "\u0661.0.0.0/8",
        "",
        "/",
    ],
)
def test_what_the_library_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        ip_network(text)
    with pytest.raises(ValueError, match=r"\S"):
        read_prefix(text)


def test_a_zone_stays() -> None:
    assert str(read_prefix("fe80::%eth0/64")) == "fe80::%eth0/64"


def test_by_number() -> None:
    assert prefix4(0x0A000000, 8) == IPv4Network("10.0.0.0/8")
    assert prefix6(0xFD00 << 112, 8) == IPv6Network("fd00::/8")
    for make, bits in ((prefix4, 32), (prefix6, 128)):
        with pytest.raises(ValueError, match="host bits"):
            make(1, bits - 1)


def test_an_address_of_bits_is_no_other() -> None:
    assert known_address(IPv4Address(1)) != known_address(IPv6Address(1))
    assert known_prefix(IPv4Network("0.0.0.0/32")) != known_prefix(IPv6Network("::/32"))


def test_a_routes_key_is_one_object() -> None:
    one = known_key(IPv4Network("10.7.0.0/26"), MAIN_TABLE, 0, 0)
    assert one is known_key(read_prefix("10.7.0.0/26"), MAIN_TABLE, 0, 0)
    assert one.dst is read_prefix("10.7.0.0/26")
    assert one == RouteKey(IPv4Network("10.7.0.0/26"))
    assert one != known_key(read_prefix("10.7.0.0/26"), MAIN_TABLE, 0, 1)
