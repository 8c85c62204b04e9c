"""ExaBGP's spelling of what peers announce and withdraw."""

from ipaddress import ip_network

import pytest

from pycni.bgp import codec
from pycni.model.bgp import EndOfRib, Family, Origin, PathsChanged
from tests.unit.bgp.exabgp_lines import PEER, path, update


def test_an_announcement_of_ibgp() -> None:
    events = codec.decode(
        update(
            '"update": { "attribute": { "origin": "igp", "local-preference": 100 }, "announce": '
            '{ "ipv4 unicast": { "10.8.0.2": [ { "nlri": "192.168.10.64/26" } ] } } }'
        )
    )

    assert events == (PathsChanged(PEER, announced=(path("192.168.10.64/26"),)),)


def test_all_attributes_of_an_announcement() -> None:
    events = codec.decode(
        update(
            '"update": { "attribute": { "origin": "egp", "as-path": {"0": {"element": '
            '"as-sequence", "value": [65002, 65001]}}, "med": 5, "local-preference": 200, '
            '"community": [ [ 64512, 7 ] ] }, "announce": { "ipv4 unicast": '
            '{ "10.8.0.2": [ { "nlri": "192.168.10.0/26" } ] } } }'
        )
    )

    expected = path(
        "192.168.10.0/26",
        as_path=(65002, 65001),
        local_pref=200,
        med=5,
        origin=Origin.EGP,
        communities=frozenset({"64512:7"}),
    )
    assert events == (PathsChanged(PEER, announced=(expected,)),)


def test_an_as_set_counts_as_one_hop() -> None:
    (event,) = codec.decode(
        update(
            '"update": { "attribute": { "origin": "igp", "as-path": {"0": {"element": '
            '"as-sequence", "value": [65002]}, "1": {"element": "as-set", "value": [65003, 65004]}'
            '} }, "announce": { "ipv4 unicast": { "10.8.0.2": [ { "nlri": "10.0.0.0/26" } ] } } }'
        )
    )

    assert isinstance(event, PathsChanged)
    assert event.announced[0].as_path == (65002, 65003)


def test_the_link_local_next_hop_of_ipv6_is_left_out() -> None:
    events = codec.decode(
        update(
            '"update": { "attribute": { "origin": "igp", "local-preference": 100 }, "announce": '
            '{ "ipv6 unicast": { "fd08::2": [ { "nlri": "fd00:1::/122" } ], '
            '"fe80::1": [ { "nlri": "fd00:1::/122" } ] } } }'
        )
    )

    assert events == (PathsChanged(PEER, announced=(path("fd00:1::/122", "fd08::2"),)),)


def test_withdrawals() -> None:
    events = codec.decode(
        update(
            '"update": { "withdraw": { "ipv4 unicast": [ { "nlri": "192.168.10.64/26" }, '
            '{ "nlri": "192.168.10.0/26" } ] } }'
        )
    )

    withdrawn = (ip_network("192.168.10.64/26"), ip_network("192.168.10.0/26"))
    assert events == (PathsChanged(PEER, withdrawn=withdrawn),)


@pytest.mark.parametrize(("afi", "family"), [("ipv4", Family.IPV4), ("ipv6", Family.IPV6)])
def test_end_of_rib(afi: str, family: Family) -> None:
    events = codec.decode(update(f'"eor": {{ "afi" : "{afi}", "safi" : "unicast" }}'))

    assert events == (EndOfRib(PEER, family),)


def test_families_that_we_did_not_ask_for_are_passed_over() -> None:
    events = codec.decode(
        update(
            '"update": { "attribute": { "origin": "igp" }, "announce": '
            '{ "ipv4 multicast": { "10.8.0.2": [ { "nlri": "10.0.0.0/26" } ] } } }'
        )
    )

    assert events == ()
