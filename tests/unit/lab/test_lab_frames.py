"""The lab's control protocol, byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.errors import InvalidInput
from pycni.lab.frames import (
    MAX_PAYLOAD,
    Decoder,
    Frame,
    Kind,
    Request,
    Terminal,
    decode_request,
    encode,
    encode_request,
    number,
    number_of,
    resize,
    size_of,
)

frames = st.builds(Frame, st.sampled_from(Kind), st.binary(max_size=300))


@given(sent=st.lists(frames, max_size=8), cut=st.integers(1, 50))
def test_frames_survive_any_cutting(sent: list[Frame], cut: int) -> None:
    octets = b"".join(map(encode, sent))
    decoder = Decoder()

    received = [
        frame
        for start in range(0, len(octets), cut)
        for frame in decoder.feed(octets[start : start + cut])
    ]

    assert received == sent


@pytest.mark.parametrize(
    "octets", [b"\x00\x00\x00\x00\x00", b"GET / HTTP/1.1", b"\x03\xff\xff\xff\xff"]
)
def test_other_protocols_are_refused(octets: bytes) -> None:
    with pytest.raises(InvalidInput, match="no lab"):
        Decoder().feed(octets)


def test_largest_payload_passes() -> None:
    frame = Frame(Kind.STDOUT, bytes(MAX_PAYLOAD))

    assert Decoder().feed(encode(frame)) == [frame]


@pytest.mark.parametrize(
    "request_",
    [
        Request("show"),
        Request("exec", {"place": "node-1", "command": ["ip", "a"]}, Terminal("vt100", 24, 80)),
    ],
)
def test_request_arrives_as_it_was_sent(request_: Request) -> None:
    (frame,) = Decoder().feed(encode_request(request_))

    assert decode_request(frame) == request_


@pytest.mark.parametrize(
    "payload", [b"", b"no json", b"[]", b'{"verb": "up"}', b'{"verb": 1, "arguments": 2}']
)
def test_request_that_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidInput, match="can't be read"):
        decode_request(Frame(Kind.REQUEST, payload))


def test_connection_begins_with_a_request() -> None:
    with pytest.raises(InvalidInput, match="begins with a request"):
        decode_request(Frame(Kind.STDIN, b"x"))


def test_numbers_and_sizes_return() -> None:
    assert number_of(number(Kind.EXIT, value=130)) == 130
    assert size_of(resize(50, 132)) == (50, 132)
    assert size_of(resize(50, 1 << 20)) == (50, 65535)
