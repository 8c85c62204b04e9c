"""Messages that the kernel rarely sends, and what must not be mistaken for something else."""

import errno
import struct

import pytest

from pycni.kernel import wire_conf, wire_link, wire_route
from pycni.kernel.wire import (
    Ack,
    Message,
    Request,
    attribute,
    attributes,
    messages,
    pack_batch,
    parse_ack,
    text,
    u32,
)
from pycni.model.network import Scope

NAMES = {2: "eth0"}


def error(code: int, *tail: bytes, flags: int = 0) -> Message:
    return Message(2, flags, 9, struct.pack("=i", -code) + b"".join(tail))


def test_a_refusal_without_words() -> None:
    assert parse_ack(error(errno.EEXIST, bytes(16))) == Ack(9, errno.EEXIST, "")


def test_a_refusal_with_words_after_a_capped_request() -> None:
    message = error(errno.EINVAL, bytes(16), text(1, "no such thing"), flags=0x300)

    assert parse_ack(message) == Ack(9, errno.EINVAL, "no such thing")


def test_a_refusal_with_words_after_the_whole_request() -> None:
    request = Request(24, 0, b"12345").packed(9)
    message = error(errno.EINVAL, request, text(1, "no such thing"), flags=0x200)

    assert parse_ack(message).text == "no such thing"


def test_the_end_of_a_listing_may_carry_an_error() -> None:
    done = Message(3, 0x200, 9, struct.pack("=i", -errno.EINTR) + text(1, "try again"))

    assert parse_ack(done) == Ack(9, errno.EINTR, "try again")


def test_a_success_has_no_words() -> None:
    warned = error(0, bytes(16), text(1, "beware"), flags=0x300)

    assert parse_ack(warned) == Ack(9, 0, "")


def test_only_the_last_of_a_batch_asks_for_an_answer() -> None:
    batch = [Request(16, 0x400, b"12345"), Request(24, 0x600, b"1234"), Request(20, 0, b"")]

    packed = pack_batch(batch, first=7)

    sent = [(m.type, m.flags, m.sequence, m.body) for m in messages(packed)]
    assert sent == [(16, 0x401, 7, b"12345"), (24, 0x601, 8, b"1234"), (20, 0x005, 9, b"")]


def test_a_truncated_datagram_gives_its_whole_messages_only() -> None:
    whole = Request(24, 0, b"1234").packed(1)

    assert [m.body for m in messages(whole + whole[:-1])] == [b"1234"]
    assert list(messages(b"\x01" + bytes(31))) == []


def test_truncated_attributes_are_left_out() -> None:
    good = u32(1, 7)

    assert attributes(good + b"\xff\x00\x02\x00") == {1: struct.pack("=I", 7)}
    assert attributes(good + bytes(4)) == {1: struct.pack("=I", 7)}
    assert attributes(attribute(0x8002, b"abc")) == {2: b"abc"}


def rtmsg(*attrs: bytes, family: int = 2, table: int = 254, kind: int = 1, flags: int = 0) -> bytes:
    return struct.pack("=BBBBBBBBI", family, 24, 0, 0, table, 12, 0, kind, flags) + b"".join(attrs)


DST, OIF = attribute(1, b"\x0a\0\0\0"), u32(4, 2)


@pytest.mark.parametrize(
    "body",
    [
        rtmsg(DST, OIF, table=255),
        rtmsg(DST, OIF, u32(15, 255), table=0),
        rtmsg(DST, OIF, flags=0x200),
        rtmsg(DST, OIF, family=28),
        rtmsg(DST, u32(4, 77)),
        rtmsg(DST, attribute(9, struct.pack("=HBBi", 8, 0, 0, 77))),
    ],
    ids=["local", "local-long", "clone", "mpls", "gone", "gone-multipath"],
)
def test_routes_that_the_agent_does_not_look_at(body: bytes) -> None:
    assert wire_route.RouteReader(NAMES.get).read(body) is None


def test_dead_and_linkdown_are_the_links_state_not_the_routes() -> None:
    reader = wire_route.RouteReader(NAMES.get)

    assert reader.read(rtmsg(DST, OIF, flags=0x11)) == reader.read(rtmsg(DST, OIF))


def test_an_ipv6_blackhole_leaves_by_no_device() -> None:
    packed = attribute(1, b"\xfd" + bytes(15))

    route = wire_route.RouteReader(NAMES.get).read(rtmsg(packed, OIF, family=10, kind=6))

    assert route is not None
    assert route.next_hops == frozenset()


def test_a_bridges_word_about_its_port_is_not_about_the_link() -> None:
    assert wire_link.read_link(struct.pack("=BxHiII", 7, 0, 2, 0, 0)) is None


def test_settings_are_attributes_by_their_numbers() -> None:
    # pyroute2 knows only the array of all settings, which the kernel sends but doesn't take.
    spec = attributes(wire_conf.ipv4_conf({"forwarding": "1", "rp_filter": "2"}))
    conf = attributes(attributes(spec[26])[2])

    assert attributes(conf[1]) == {1: struct.pack("=I", 1), 8: struct.pack("=I", 2)}


def test_a_bare_link_has_no_group() -> None:
    assert wire_link.read_group(struct.pack("=BxHiII", 0, 0, 2, 0, 0)) == 0


@pytest.mark.parametrize("family", [2, 28])
def test_addresses_without_address_or_of_other_families(family: int) -> None:
    head = struct.pack("=BBBBI", family, 24, 0, 0, 2)
    packed = attribute(2, b"\x0a\0\0\1") if family != 2 else b""

    assert wire_link.read_address(head + packed, name_of=NAMES.get) is None
    assert wire_link.read_address(head + attribute(2, bytes(4)), name_of=lambda _: None) is None


def test_scopes_between_the_named_ones_exist() -> None:
    assert (Scope(100), Scope(100).name) == (100, "SCOPE_100")
    for bad in (256, -1):
        with pytest.raises(ValueError, match="is not a valid Scope"):
            Scope(bad)
