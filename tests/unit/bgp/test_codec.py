"""ExaBGP's spelling: lines as version 5.0.15 wrote them with BIRD 2 as its peer, and what we write.

Only times, process ids and the host's name were made plain.
"""

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.bgp import codec
from pycni.errors import InvalidInput
from pycni.model.bgp import (
    Advertisement,
    EndOfRib,
    Family,
    Neighbour,
    Origin,
    Path,
    PathsChanged,
    PeerDown,
    PeerOpened,
    PeerUp,
)

PEER = ip_address("10.8.0.2")
BOTH = frozenset({Family.IPV4, Family.IPV6})


def line(kind: str, rest: str) -> bytes:
    return (
        '{ "exabgp": "5.0.0", "time": 1700000000.5, "host" : "node-1", "pid" : 35, "ppid" : 34, '
        f'"counter": 2, "type": "{kind}", "neighbor": {{ "address": {{ "local": "10.8.0.1", '
        '"peer": "10.8.0.2" }, "asn": { "local": 64512, "peer": 64512 }, '
        f'"router-id": "10.8.0.1" , {rest} }} }}'
    ).encode()


def update(message: str) -> bytes:
    return line("update", f'"direction": "receive", "message": {{ {message} }}')


def opened(capabilities: str) -> bytes:
    return line(
        "open",
        '"direction": "receive", "open": { "version": 4, "asn": 64512, "hold_time": 30, '
        f'"router_id": "10.8.0.2", "capabilities": {{ {capabilities} }} }}',
    )


def path(nlri: str, next_hop: str = "10.8.0.2", **attributes: Any) -> Path:  # noqa: ANN401 - any field of Path.
    return Path(ip_network(nlri), ip_address(next_hop), peer=PEER, **attributes)


# --- sessions -----------------------------------------------------------------------------------


def test_a_session_that_is_up() -> None:
    assert codec.decode(line("state", '"state": "up"')) == (PeerUp(PEER),)


def test_a_mere_connection_is_no_event() -> None:
    assert codec.decode(line("state", '"state": "connected"')) == ()


@pytest.mark.parametrize(
    ("reason", "is_graceful"),
    [
        ("closing connection", True),
        ("process problem", True),
        ("notification received (6,4)", False),
        ("notification sent (4,0)", False),
        ("stop, message [removed]", False),
        ("stop, message [shutting down]", False),
    ],
)
def test_only_a_session_that_simply_broke_ends_gracefully(
    reason: str, *, is_graceful: bool
) -> None:
    events = codec.decode(line("state", f'"state": "down", "reason": "{reason}"'))

    assert events == (PeerDown(PEER, reason=reason, is_graceful=is_graceful),)


def test_a_session_down_without_reason_broke() -> None:
    events = codec.decode(line("state", '"state": "down"'))

    assert events == (PeerDown(PEER, reason="no reason given", is_graceful=True),)


MULTIPROTOCOL = (
    '"1": { "name": "multiprotocol", "families": [ "ipv4/unicast", "ipv6/unicast" ] }, '
    '"2": { "name": "route-refresh", "variant": "RFC" }'
)
RESTART = (
    '"64": { "name": "graceful restart", "time": 120, "address-family-flags": '
    '{ "ipv4/unicast": [ %s] , "ipv6/unicast": [ ] }, "restart-flags": [ ]  }'
)


def test_an_open_with_graceful_restart_names_families_and_time() -> None:
    events = codec.decode(opened(f"{MULTIPROTOCOL}, {RESTART % ''}"))

    assert events == (PeerOpened(PEER, restart_time_s=120, preserved=frozenset(), families=BOTH),)


def test_the_forwarding_bit_of_a_family_shows_as_restart() -> None:
    restart = RESTART % '"restart" '

    (event,) = codec.decode(opened(f"{MULTIPROTOCOL}, {restart}"))

    assert isinstance(event, PeerOpened)
    assert event.preserved == {Family.IPV4}


def test_an_open_without_capability_64_has_no_graceful_restart() -> None:
    events = codec.decode(opened(MULTIPROTOCOL))

    assert events == (PeerOpened(PEER, restart_time_s=None, preserved=frozenset(), families=BOTH),)


def test_an_open_without_multiprotocol_carries_ipv4_only() -> None:
    (event,) = codec.decode(opened('"65": { "name": "asn4", "asn4": 64512 }'))

    assert isinstance(event, PeerOpened)
    assert event.families == {Family.IPV4}


@pytest.mark.parametrize(
    "capabilities",
    [
        '"1": { "families": "ipv4/unicast" }',
        '"64": { "time": 120, "address-family-flags": [] }',
        '"64": { "time": "soon", "address-family-flags": {} }',
        '"64": { "time": 120 }',
    ],
)
def test_an_open_with_strange_capabilities_is_not_understood(capabilities: str) -> None:
    with pytest.raises(codec.NotUnderstood):
        codec.decode(opened(capabilities))


# --- routes -------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("kind", ["open", "update"])
def test_what_we_sent_ourselves_is_no_event(kind: str) -> None:
    assert codec.decode(line(kind, '"direction": "send"')) == ()


def test_a_notification_alone_is_no_event_since_the_session_goes_down_with_it() -> None:
    text = line(
        "notification",
        '"direction": "receive", "notification": { "code": 6, "subcode": 4, "data": "0x", '
        '"message": "" } ',
    )

    assert codec.decode(text) == ()


def test_the_word_of_farewell_is_no_event() -> None:
    text = b'{ "exabgp": "5.0.0", "type": "notification", "notification": "shutdown" }'

    assert codec.decode(text) == ()


# --- garbage ------------------------------------------------------------------------------------


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


# --- the list of neighbours ---------------------------------------------------------------------


def test_the_answer_of_show_neighbor_names_the_peers() -> None:
    answer = b'[{"peer": {"address": "10.8.0.2"}}, {"peer": {"address": "fd08::2"}}]'

    assert codec.configured_peers(answer) == frozenset(
        {ip_address("10.8.0.2"), ip_address("fd08::2")}
    )


def test_another_answer_names_no_peers() -> None:
    assert codec.configured_peers(b"done") is None


@pytest.mark.parametrize("answer", [b"[", b"[1]", b"[{}]", b'[{"peer": {"address": 7}}]'])
def test_a_damaged_list_of_neighbours_is_not_understood(answer: bytes) -> None:
    with pytest.raises(codec.NotUnderstood):
        codec.configured_peers(answer)


# --- what we write ------------------------------------------------------------------------------

NODE_1 = Neighbour(
    peer=ip_address("10.10.24.89"),
    local=ip_address("10.10.7.20"),
    local_as=64512,
    peer_as=64512,
    router_id=ip_address("10.10.7.20"),
)
ROUTER = replace(
    NODE_1,
    peer=ip_address("10.10.0.1"),
    peer_as=65001,
    hold_time_s=30,
    restart_time_s=60,
    port=1179,
    password="s3cret!",  # noqa: S106 - an example.
    families=frozenset({Family.IPV4}),
)
CONFIGURATION = """\
process agent {
  run /usr/bin/python3 -IES /run/pycni/exabgp/bridge.py /run/pycni/exabgp/helper.sock;
  encoder json;
}

neighbor 10.10.24.89 {
  router-id 10.10.7.20;
  local-address 10.10.7.20;
  local-as 64512;
  peer-as 64512;
  hold-time 90;
  host-name pycni-2;
  manual-eor true;
  adj-rib-in false;
  adj-rib-out true;
  group-updates true;
  family { ipv4 unicast; ipv6 unicast; }
  capability { asn4 enable; route-refresh enable; graceful-restart 120; }
  api { processes [ agent ]; neighbor-changes; \
receive { parsed; open; update; notification; refresh; } }
}

neighbor 10.10.0.1 {
  router-id 10.10.7.20;
  local-address 10.10.7.20;
  local-as 64512;
  peer-as 65001;
  hold-time 30;
  host-name pycni-0;
  manual-eor true;
  adj-rib-in false;
  adj-rib-out true;
  group-updates true;
  family { ipv4 unicast; }
  capability { asn4 enable; route-refresh enable; graceful-restart 60; }
  api { processes [ agent ]; neighbor-changes; \
receive { parsed; open; update; notification; refresh; } }
  connect 1179;
  md5-password "s3cret!";
}
"""
RUN = ["/usr/bin/python3", "-IES", "/run/pycni/exabgp/bridge.py", "/run/pycni/exabgp/helper.sock"]


def test_the_configuration_of_two_neighbours() -> None:
    text = codec.render_configuration([NODE_1, ROUTER], run=RUN, nudges={NODE_1.peer: 2})

    assert text == CONFIGURATION


def test_the_configuration_without_neighbours_has_the_process_alone() -> None:
    text = codec.render_configuration([], run=RUN, nudges={})

    assert text == CONFIGURATION.partition("\n\n")[0] + "\n"


@pytest.mark.parametrize(
    "password",
    [
        "",
        'a"; } process evil { run /bin/sh',
        "a'b",
        "a}b",
        "a;b",
        "a#b",
        "a\\b",
        "a b",
        "a\nb",
        "pässword",
        "a`id`",
        "$HOME",
        "x" * 81,
    ],
)
def test_a_password_that_could_carry_syntax_is_refused_without_being_shown(password: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.render_configuration([replace(ROUTER, password=password)], run=RUN, nudges={})

    assert not password or password not in str(caught.value)


@given(st.text(max_size=90))
def test_a_password_that_is_accepted_stays_in_its_quotes(password: str) -> None:
    try:
        text = codec.render_configuration([replace(ROUTER, password=password)], run=RUN, nudges={})
    except InvalidInput:
        return

    changed = CONFIGURATION.partition("\n\nneighbor 10.10.24.89")[0]
    assert text.startswith(changed)
    assert text.count("\n") == CONFIGURATION.count("\n") - 16
    assert f'  md5-password "{password}";\n' in text


@pytest.mark.parametrize("word", ["", "/run/my dir/x", "/run/x;", "/run/{x}", "/run/x\n"])
def test_a_path_that_could_carry_syntax_is_refused(word: str) -> None:
    with pytest.raises(InvalidInput):
        codec.render_configuration([], run=[word], nudges={})


def test_commands_for_routes() -> None:
    block = Advertisement(ip_network("192.168.39.192/26"), ip_address("10.10.7.20"))

    commands = [
        codec.announce(block),
        codec.announce(block, peer=NODE_1.peer),
        codec.withdraw(block),
        codec.end_of_rib(Family.IPV6, peer=NODE_1.peer),
    ]

    assert commands == [
        "announce route 192.168.39.192/26 next-hop 10.10.7.20",
        "neighbor 10.10.24.89 announce route 192.168.39.192/26 next-hop 10.10.7.20",
        "withdraw route 192.168.39.192/26 next-hop 10.10.7.20",
        "neighbor 10.10.24.89 announce eor ipv6 unicast",
    ]


def test_neighbour_that_can_not_be_configured_is_named_without_its_password() -> None:
    hostile = 'se"cret'
    mistake = codec.mistake_in(replace(NODE_1, password=hostile))

    assert mistake is not None
    assert "password" in mistake
    assert "cret" not in mistake
    assert codec.mistake_in(NODE_1) is None
