"""What we write for ExaBGP: its configuration and commands for routes."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.bgp import codec
from pycni.errors import InvalidInput
from pycni.model.bgp import Advertisement, Family, Neighbour

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
NEAR = replace(ROUTER, hops=2, restart_time_s=0)
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
receive { parsed; open; update; notification; refresh; } send { parsed; update; } }
  connect 179;
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
receive { parsed; open; update; notification; refresh; } send { parsed; update; } }
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
    assert text.count("\n") == CONFIGURATION.count("\n") - 17
    assert f'  md5-password "{password}";\n' in text


@pytest.mark.parametrize("word", ["", "/run/my dir/x", "/run/x;", "/run/{x}", "/run/x\n"])
def test_a_path_that_could_carry_syntax_is_refused(word: str) -> None:
    with pytest.raises(InvalidInput):
        codec.render_configuration([], run=[word], nudges={})


def test_communities_of_both_kinds_are_attributes_of_a_route() -> None:
    tags = frozenset({"64512:2", "64512:10", "1:2:3"})
    block = Advertisement(ip_network("192.168.39.192/26"), ip_address("10.10.7.20"), tags)

    assert codec.announce(block) == (
        "announce route 192.168.39.192/26 next-hop 10.10.7.20"
        " community [ 64512:10 64512:2 ] large-community [ 1:2:3 ]"
    )
    assert codec.withdraw(block) == "withdraw route 192.168.39.192/26 next-hop 10.10.7.20"


@pytest.mark.parametrize(
    "text", ["1", "1:2 ]\nshutdown", "1:x", "65536:1", "no-export", "\u0661:1"]
)
def test_a_community_that_could_carry_syntax_is_refused(text: str) -> None:
    block = Advertisement(ip_network("10.0.0.0/26"), ip_address("10.0.0.1"), frozenset({text}))

    with pytest.raises(InvalidInput):
        codec.announce(block)


def test_commands_for_routes() -> None:
    block = Advertisement(ip_network("192.168.39.192/26"), ip_address("10.10.7.20"))

    commands = [
        codec.announce(block),
        codec.announce(block, peers=[NODE_1.peer]),
        codec.withdraw(block),
        codec.withdraw(block, peers=[NODE_1.peer, ip_address("10.10.43.25")]),
        codec.end_of_rib(Family.IPV6, peer=NODE_1.peer),
    ]

    assert commands == [
        "announce route 192.168.39.192/26 next-hop 10.10.7.20",
        "neighbor 10.10.24.89 announce route 192.168.39.192/26 next-hop 10.10.7.20",
        "withdraw route 192.168.39.192/26 next-hop 10.10.7.20",
        (
            "neighbor 10.10.24.89 , neighbor 10.10.43.25"
            " withdraw route 192.168.39.192/26 next-hop 10.10.7.20"
        ),
        "neighbor 10.10.24.89 announce eor ipv6 unicast",
    ]


def test_neighbour_that_can_not_be_configured_is_named_without_its_password() -> None:
    hostile = 'se"cret'
    mistake = codec.mistake_in(replace(NODE_1, password=hostile))

    assert mistake is not None
    assert "password" in mistake
    assert "cret" not in mistake
    assert codec.mistake_in(NODE_1) is None


def test_a_near_peers_distance_is_proved_by_the_ttl() -> None:
    text = codec.render_configuration([NEAR], run=["/bin/true"], nudges={})

    assert "  outgoing-ttl 255;\n  incoming-ttl 254;\n" in text


def test_ipv4_over_ipv6_needs_the_peers_consent() -> None:
    six, seven = ip_address("fd00::6"), ip_address("fd00::7")
    over_six = replace(NEAR, local=six, peer=seven, families=frozenset(Family))

    text = codec.render_configuration([over_six], run=["/bin/true"], nudges={})

    assert "  nexthop { ipv4 unicast ipv6; }\n" in text
    assert "nexthop" not in codec.render_configuration([NEAR], run=["/bin/true"], nudges={})


def test_without_time_there_is_no_graceful_restart() -> None:
    text = codec.render_configuration([NEAR], run=["/bin/true"], nudges={})

    assert "graceful-restart disable;" in text
