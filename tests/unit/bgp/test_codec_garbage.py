"""Lines that ExaBGP never wrote: any of them is decoded or not understood, and nothing else."""

import json
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.bgp import codec
from pycni.model.bgp import PathsChanged
from tests.unit.bgp.exabgp_lines import update


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"neighbor": {}}',
        b'{"neighbor": {"address": {"peer": 1}}}',
        b"[" * 100_000,
        update('"update": { "attribute": [], "announce": { "ipv4 unicast": {} } }'),
        update('"update": { "withdraw": [ "10.0.0.0/26" ] }'),
        update('"update": { "withdraw": { "ipv4 unicast": [ { "nlri": 10 } ] } }'),
        update('"update": { "withdraw": { "ipv4 unicast": [ { "nlri": "10.0.0.1/26" } ] } }'),
        update(
            '"update": { "attribute": { "origin": "igp", "as-path": [] }, "announce": '
            '{ "ipv4 unicast": { "10.8.0.2": [ { "nlri": "10.0.0.0/26" } ] } } }'
        ),
        update(
            '"update": { "attribute": { "origin": "igp", "med": Infinity }, "announce": '
            '{ "ipv4 unicast": { "10.8.0.2": [ { "nlri": "10.0.0.0/26" } ] } } }'
        ),
        update('"eor": { "afi" : "l2vpn", "safi" : "evpn" }'),
    ],
)
def test_garbage_is_not_understood(text: bytes) -> None:
    with pytest.raises(codec.NotUnderstood):
        codec.decode(text)


def test_an_announcement_that_is_no_object_says_nothing() -> None:
    assert codec.decode(update('"update": { "announce": [] }')) == ()


def test_the_complaint_does_not_repeat_a_long_line() -> None:
    with pytest.raises(codec.NotUnderstood) as caught:
        codec.decode(b"{" + b"x" * 10_000)

    assert len(str(caught.value)) < 1000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
WORDS = [
    "neighbor", "address", "peer", "type", "state", "direction", "receive", "open", "update",
    "message", "eor", "capabilities", "1", "64", "families", "time", "address-family-flags",
    "announce", "withdraw", "attribute", "ipv4 unicast", "nlri", "10.8.0.2", "as-path", "med",
]  # fmt: skip
likely_values = st.recursive(
    json_values | st.sampled_from(WORDS),
    lambda inner: st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_not_understood(text: bytes) -> None:
    try:
        codec.decode(text)
    except codec.NotUnderstood:
        return


@given(kind=st.sampled_from(["state", "open", "update"]), value=likely_values)
def test_any_document_is_decoded_or_not_understood(kind: str, value: object) -> None:
    document = {
        "type": kind,
        "neighbor": {
            "address": {"peer": "10.8.0.2"},
            "direction": "receive",
            "state": value,
            "open": value,
            "message": value,
        },
    }
    try:
        codec.decode(json.dumps(document).encode())
    except codec.NotUnderstood:
        return


@given(value=likely_values)
def test_any_update_is_decoded_or_not_understood(value: object) -> None:
    attribute = {"origin": "igp", "as-path": value, "med": value, "community": value}
    announce = {"ipv4 unicast": {"10.8.0.2": [{"nlri": "10.0.0.0/26"}, value]}}
    message = {"update": {"attribute": attribute, "announce": announce, "withdraw": value}}
    document = {
        "type": "update",
        "neighbor": {
            "address": {"peer": "10.8.0.2"},
            "direction": "receive",
            "message": message,
        },
    }
    try:
        codec.decode(json.dumps(document).encode())
    except codec.NotUnderstood:
        return


prefixes = st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,4}){2,4}(/[0-9]{1,3})?", fullmatch=True) | st.text()


odd = ["010.0.0.0/8", "10.0.0.0/08", "10.0.0.0/8\n", "\u06610.0.0.0/8"]


@given(prefixes | st.sampled_from(odd))
def test_prefixes_are_what_the_library_takes_them_for(text: str) -> None:
    withdrawn = {"ipv4 unicast": [{"nlri": text}]}
    line = update(f'"update": {{ "withdraw": {json.dumps(withdrawn)} }}')
    try:
        wanted = ip_network(text)
    except ValueError:
        with pytest.raises(codec.NotUnderstood):
            codec.decode(line)
    else:
        (event,) = codec.decode(line)
        assert isinstance(event, PathsChanged)
        assert event.withdrawn == (wanted,)
