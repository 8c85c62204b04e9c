"""Reservations: which addresses they hold, and which blocks they leave nothing of."""

from ipaddress import ip_address, ip_network

import pytest

from pycni.ipam.reserved import NOTHING, Reserved
from pycni.model.resources import IPReservation


def reserved(*texts: str) -> Reserved:
    # One reservation for each, as if several people had made them.
    return Reserved(IPReservation(text, (ip_network(text),)) for text in texts)


def test_nothing_reserved_is_false_and_holds_nothing() -> None:
    assert not NOTHING
    assert ip_address("10.0.0.1") not in NOTHING
    assert NOTHING.whole_blocks(ip_network("10.0.0.0/30")) == 0


def test_what_is_reserved_is_held_in_both_families() -> None:
    some = reserved("10.0.0.4/31", "fd00::/126")

    assert some
    assert ip_address("10.0.0.5") in some
    assert ip_address("10.0.0.6") not in some
    assert ip_address("fd00::3") in some
    assert ip_address("fd00::4") not in some
    assert "10.0.0.5" not in some


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("0.0.0.0/0", ("0.0.0.0", "10.0.0.1", "255.255.255.255"), ("::", "::a00:1")),
        ("::/0", ("::", "fd00::1", "ffff:" * 7 + "ffff"), ("0.0.0.0", "10.0.0.1")),
    ],
)
def test_a_whole_family_can_be_reserved_and_the_other_stays_free(
    text: str, inside: tuple[str, ...], outside: tuple[str, ...]
) -> None:
    family = reserved(text)

    assert [ip_address(one) in family for one in inside] == [True] * len(inside)
    assert [ip_address(one) in family for one in outside] == [False] * len(outside)
    assert family.whole_blocks(ip_network(inside[0])) > 1
    assert family.whole_blocks(ip_network(outside[0])) == 0


@pytest.mark.parametrize("order", [1, -1])
def test_one_inside_another_is_counted_once_in_ipv6(order: int) -> None:
    texts = ("fd00::/120", "fd00::/122", "fd00::40/123", "fd00::5/128")

    nested = reserved(*texts[::order])

    assert nested.whole_blocks(ip_network("fd00::/122")) == 4
    assert ip_address("fd00::ff") in nested
    assert ip_address("fd00::100") not in nested


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        (("10.0.0.0/30",), 1),
        (("10.0.0.0/28",), 4),
        (("10.0.0.0/31", "10.0.0.2/31"), 1),
        (("10.0.0.0/31", "10.0.0.2/32", "10.0.0.3/32", "10.0.0.3/32"), 1),
        (("10.0.0.0/29", "10.0.0.4/30", "10.0.0.8/29"), 4),
        (("10.0.0.0/30", "10.0.0.4/31"), 1),
        (("9.255.255.248/29", "10.0.0.0/29"), 2),
        (("10.0.0.0/31", "10.0.0.0/32", "10.0.0.1/32", "10.0.0.2/32"), 0),
        (("10.0.0.1/32", "10.0.0.2/31"), 0),
        (("10.0.0.4/30",), 0),
        (("9.0.0.0/8",), 0),
        (("fd00::/8",), 0),
    ],
)
def test_blocks_in_a_row_are_counted_only_whole(texts: tuple[str, ...], count: int) -> None:
    assert reserved(*texts).whole_blocks(ip_network("10.0.0.0/30")) == count


@pytest.mark.parametrize(
    ("cidr", "length", "ends", "others"),
    [
        ("10.0.0.0/24", 24, ["10.0.0.0", "10.0.0.255"], ["10.0.0.63", "10.0.0.64", "10.0.1.0"]),
        ("10.0.0.0/24", 26, ["10.0.0.63", "10.0.0.64", "10.0.0.255"], ["10.0.0.1", "10.0.1.0"]),
        ("fd00::/120", 122, ["fd00::", "fd00::40"], ["fd00::3f", "fd00::ff", "fd00::100"]),
        # Of two both are neighbours.
        ("10.0.0.0/30", 31, [], ["10.0.0.0", "10.0.0.1", "10.0.0.3"]),
        ("fd00::/126", 127, [], ["fd00::", "fd00::1"]),
    ],
)
def test_what_means_a_whole_link_is_reserved_on_it(
    cidr: str, length: int, ends: list[str], others: list[str]
) -> None:
    kept = reserved("10.9.0.0/32").on_links([(ip_network(cidr), length)])

    assert kept
    assert ip_address("10.9.0.0") in kept
    assert [one for one in (*ends, *others) if ip_address(one) in kept] == ends


def test_a_block_that_is_the_end_of_a_link_is_reserved_whole() -> None:
    kept = NOTHING.on_links([(ip_network("10.0.0.0/24"), 24)])

    assert kept.whole_blocks(ip_network("10.0.0.255/32")) == 1
    assert kept.whole_blocks(ip_network("10.0.0.1/32")) == 0
    assert kept.whole_blocks(ip_network("10.0.0.0/31")) == 0
