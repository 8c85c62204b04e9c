"""From what peers were told to what they are to be told."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

from pycni.bgp.adj_out import changes
from pycni.bgp.announcer import Announcer
from pycni.model.bgp import AdjRibsOut, Advertisement, Family, Neighbour
from pycni.model.network import IPAddress

OWN, A, B, C = (ip_address(f"10.0.0.{number}") for number in (1, 2, 3, 4))
SIX = ip_address("fd00::2")


def neighbour(peer: IPAddress) -> Neighbour:
    families = frozenset({Family.IPV4 if peer.version == 4 else Family.IPV6})
    return Neighbour(peer, OWN, 64512, 64512, router_id=OWN, families=families)


def adverts(*prefixes: str, via: str = "10.0.0.1") -> frozenset[Advertisement]:
    return frozenset(Advertisement(ip_network(p), ip_address(via)) for p in prefixes)


def told(before: AdjRibsOut, after: AdjRibsOut, *peers: IPAddress, leaving: str = "") -> list[str]:
    staying = {peer for peer in peers if str(peer) != leaving}
    found = changes(before, after, configured=[neighbour(p) for p in peers], staying=staying)
    return [
        f"{'-' if c.is_withdrawal else '+'} {c.advertisement.nlri} via {c.advertisement.next_hop}"
        f" to {', '.join(map(str, c.peers))}"
        for c in found
    ]


def test_withdrawals_come_first_and_each_names_all_that_it_is_for() -> None:
    before = AdjRibsOut(adverts("192.168.0.0/26", "192.168.1.0/26"))
    after = AdjRibsOut(adverts("192.168.0.0/26", "192.168.2.0/26"))

    assert told(before, after, A, B) == [
        "- 192.168.1.0/26 via 10.0.0.1 to 10.0.0.2, 10.0.0.3",
        "+ 192.168.2.0/26 via 10.0.0.1 to 10.0.0.2, 10.0.0.3",
    ]


def test_what_is_the_same_is_no_change() -> None:
    same = adverts("192.168.0.0/26")

    assert told(AdjRibsOut(same), AdjRibsOut(same, {B: same}), A, B) == []


def test_a_particular_peer_has_changes_of_its_own() -> None:
    before = AdjRibsOut(adverts("192.168.0.0/26"))
    after = AdjRibsOut(adverts("192.168.0.0/26", "192.168.1.0/26"), {B: adverts("192.168.2.0/26")})

    assert told(before, after, A, B, C) == [
        "- 192.168.0.0/26 via 10.0.0.1 to 10.0.0.3",
        "+ 192.168.1.0/26 via 10.0.0.1 to 10.0.0.2, 10.0.0.4",
        "+ 192.168.2.0/26 via 10.0.0.1 to 10.0.0.3",
    ]


def test_another_next_hop_takes_the_place_of_the_old_one() -> None:
    before = AdjRibsOut(adverts("192.168.0.0/26"))
    after = AdjRibsOut(adverts("192.168.0.0/26", via="10.0.0.9"))

    assert told(before, after, A) == ["+ 192.168.0.0/26 via 10.0.0.9 to 10.0.0.2"]


def test_a_session_carries_its_own_families_alone() -> None:
    after = AdjRibsOut(adverts("192.168.0.0/26") | adverts("fd00:1::/122", via="fd00::1"))

    assert told(AdjRibsOut(), after, A, SIX) == [
        "+ 192.168.0.0/26 via 10.0.0.1 to 10.0.0.2",
        "+ fd00:1::/122 via fd00::1 to fd00::2",
    ]
    assert told(after, AdjRibsOut(), A) == ["- 192.168.0.0/26 via 10.0.0.1 to 10.0.0.2"]


def test_who_is_about_to_go_hears_of_withdrawals_only() -> None:
    before = AdjRibsOut(adverts("192.168.0.0/26", "192.168.1.0/26"), {B: adverts("192.168.1.0/26")})
    after = AdjRibsOut(adverts("192.168.0.0/26", "192.168.2.0/26"))

    assert told(before, after, A, B, leaving=str(B)) == [
        "- 192.168.1.0/26 via 10.0.0.1 to 10.0.0.2, 10.0.0.3",
        "+ 192.168.2.0/26 via 10.0.0.1 to 10.0.0.2",
    ]


# --- the commands -------------------------------------------------------------------------------


def test_all_peers_are_told_by_one_command_and_some_by_their_names() -> None:
    commands: list[str] = []
    announcer = Announcer(commands.append)
    two = [neighbour(A), neighbour(B)]
    announcer.up.add(A)

    announcer.change(
        AdjRibsOut(adverts("192.168.0.0/26"), {B: frozenset()}), configured=two, staying={A, B}
    )
    announcer.change(AdjRibsOut(), configured=two, staying={A, B})
    announcer.change(AdjRibsOut(adverts("192.168.1.0/26")), configured=two, staying={A, B})

    assert commands == [
        "neighbor 10.0.0.2 announce route 192.168.0.0/26 next-hop 10.0.0.1",
        "neighbor 10.0.0.2 withdraw route 192.168.0.0/26 next-hop 10.0.0.1",
        "announce route 192.168.1.0/26 next-hop 10.0.0.1",
    ]


def test_while_nobody_is_up_nothing_is_announced_but_withdrawals_are_kept() -> None:
    commands: list[str] = []
    announcer = Announcer(commands.append)
    for wanted in (AdjRibsOut(adverts("192.168.0.0/26")), AdjRibsOut()):
        announcer.change(wanted, configured=[neighbour(A)], staying={A})

    assert commands == ["withdraw route 192.168.0.0/26 next-hop 10.0.0.1"]


def test_a_peer_that_comes_up_when_it_is_wanted_no_more_hears_nothing() -> None:
    commands: list[str] = []
    announcer = Announcer(commands.append)
    announcer.begin(AdjRibsOut(adverts("192.168.0.0/26")))

    announcer.greet(A, None)
    assert (commands, announcer.up) == ([], {A})
    announcer.greet(B, replace(neighbour(B)))

    assert commands == [
        "neighbor 10.0.0.3 announce route 192.168.0.0/26 next-hop 10.0.0.1",
        "neighbor 10.0.0.3 announce eor ipv4 unicast",
    ]
