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
    assert not NOTHING.covers(ip_network("10.0.0.0/30"))


def test_what_is_reserved_is_held_in_both_families() -> None:
    some = reserved("10.0.0.4/31", "fd00::/126")

    assert some
    assert ip_address("10.0.0.5") in some
    assert ip_address("10.0.0.6") not in some
    assert ip_address("fd00::3") in some
    assert ip_address("fd00::4") not in some
    assert "10.0.0.5" not in some


@pytest.mark.parametrize(
    ("texts", "is_covered"),
    [
        (("10.0.0.0/30",), True),
        (("10.0.0.0/8",), True),
        (("10.0.0.0/31", "10.0.0.2/31"), True),
        (("10.0.0.0/31", "10.0.0.2/32", "10.0.0.3/32", "10.0.0.3/32"), True),
        (("10.0.0.0/31", "10.0.0.0/32", "10.0.0.1/32", "10.0.0.2/32"), False),
        (("10.0.0.4/30",), False),
        (("fd00::/8",), False),
    ],
)
def test_a_block_is_covered_only_whole(texts: tuple[str, ...], is_covered: bool) -> None:
    assert reserved(*texts).covers(ip_network("10.0.0.0/30")) is is_covered
