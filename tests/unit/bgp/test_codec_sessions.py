"""ExaBGP's spelling of sessions: how they open and end, and with whom they are kept."""

from ipaddress import ip_address

import pytest

from pycni.bgp import codec
from pycni.model.bgp import Family, PeerDown, PeerOpened, PeerUp
from tests.unit.bgp.exabgp_lines import BOTH, PEER, line, opened


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
    ],
)
def test_only_a_session_that_simply_broke_ends_gracefully(
    reason: str, *, is_graceful: bool
) -> None:
    events = codec.decode(line("state", f'"state": "down", "reason": "{reason}"'))

    assert events == (PeerDown(PEER, reason=reason, is_graceful=is_graceful),)


def test_the_end_of_our_own_exabgp_is_no_peers_doing() -> None:
    said = '"state": "down", "reason": "stop, message [shutting down]"'

    assert codec.decode(line("state", said)) == ()


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


@pytest.mark.parametrize(("kind", "direction"), [("open", "send"), ("update", "unheard-of")])
def test_what_no_peer_said_is_no_event(kind: str, direction: str) -> None:
    assert codec.decode(line(kind, f'"direction": "{direction}"')) == ()


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
