"""The multiplexer's wire format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.errors import InvalidInput
from pycni.lab.mux_frames import MAX_PAYLOAD, Decoder, Frame, Kind, credit, encode

STREAMS = st.integers(0, 2**32 - 1)
FRAMES = st.one_of(
    st.builds(
        Frame,
        st.sampled_from([Kind.OPEN, Kind.FIN, Kind.RESET, Kind.ALIVE]),
        STREAMS,
        st.just(b""),
    ),
    st.builds(Frame, st.just(Kind.DATA), STREAMS, st.binary(max_size=300)),
    st.builds(credit, STREAMS, st.integers(0, 2**32 - 1)),
)


@given(st.lists(FRAMES, max_size=20), st.data())
def test_frames_survive_any_cutting_of_the_line(frames: list[Frame], data: st.DataObject) -> None:
    octets = b"".join(map(encode, frames))
    decoder = Decoder()
    seen: list[Frame] = []

    while octets:
        size = data.draw(st.integers(1, len(octets)))
        seen += decoder.feed(octets[:size])
        octets = octets[size:]

    assert seen == frames


def test_credit_is_a_number_of_bytes() -> None:
    assert credit(3, 70_000).credit == 70_000


@pytest.mark.parametrize(
    "octets",
    [
        b"login: root",
        encode(Frame(Kind.DATA, 1, b"x" * (MAX_PAYLOAD + 1))),
        encode(Frame(Kind.FIN, 1, b"x")),
        encode(Frame(Kind.CREDIT, 1, b"x")),
    ],
)
def test_anything_else_on_the_line_is_refused(octets: bytes) -> None:
    with pytest.raises(InvalidInput, match="something else"):
        Decoder().feed(octets)
