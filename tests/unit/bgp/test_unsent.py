"""What peers have to be sent yet, as ExaBGP's lines tell it."""

from ipaddress import ip_address, ip_network

from pycni.bgp.codec import Sent, decode
from pycni.bgp.unsent import Unsent
from pycni.model.bgp import Family
from tests.unit.bgp.exabgp_lines import PEER, line

BLOCK, OTHER = ip_network("192.168.1.0/26"), ip_network("192.168.1.64/26")
ABSENT = ip_address("10.8.0.9")


def sent(message: str) -> bytes:
    return line("update", f'"direction": "send", "message": {{ {message} }}')


def greeted() -> Unsent:
    unsent = Unsent()
    unsent.begin(PEER, [])
    return unsent


def test_a_peer_that_came_up_has_all_after_the_end_of_each_family() -> None:
    unsent = Unsent()
    unsent.begin(PEER, [Family.IPV4, Family.IPV6])

    unsent.note(Sent(PEER, end_of_rib=Family.IPV4))
    assert not unsent.has_all(PEER)
    unsent.note(Sent(PEER, end_of_rib=Family.IPV6))

    assert unsent.has_all(PEER)


def test_a_peer_has_all_when_each_withdrawal_was_sent() -> None:
    unsent = greeted()
    unsent.withdraw(BLOCK, [PEER, ABSENT])
    unsent.withdraw(OTHER, [PEER])

    unsent.note(Sent(PEER, withdrawn=(BLOCK,)))
    assert not unsent.has_all(PEER)
    unsent.note(Sent(PEER, withdrawn=(OTHER,)))

    assert unsent.has_all(PEER)
    assert not unsent.has_all(ABSENT)


def test_a_withdrawal_waits_for_nobody_whose_session_is_down() -> None:
    unsent = greeted()
    unsent.withdraw(BLOCK, [PEER])
    unsent.end(PEER)
    unsent.note(Sent(PEER, withdrawn=(BLOCK,)))

    assert not unsent.has_all(PEER)
    unsent.begin(PEER, [])
    assert unsent.has_all(PEER)
    unsent.clear()
    assert not unsent.has_all(PEER)


def test_lines_of_what_was_sent_are_read() -> None:
    withdrawal = '"update": { "withdraw": { "ipv4 unicast": [ { "nlri": "192.168.1.0/26" } ] } }'
    end = '"eor": { "afi" : "ipv4", "safi" : "unicast" }'
    announcement = '"update": { "announce": { "ipv4 unicast": { } } }'

    assert decode(sent(withdrawal)) == (Sent(PEER, withdrawn=(BLOCK,)),)
    assert decode(sent(end)) == (Sent(PEER, end_of_rib=Family.IPV4),)
    assert decode(sent(announcement)) == (Sent(PEER),)
