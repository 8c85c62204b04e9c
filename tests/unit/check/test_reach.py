"""Probes over loopback: what answers, and what doesn't."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from pycni.check import reach
from pycni.check.paths import Peer, Way
from pycni.model.network import IPAddress

LOOPBACK, LOOPBACK6 = ip_address("127.0.0.1"), ip_address("::1")
BOTH = pytest.mark.parametrize("address", [LOOPBACK, LOOPBACK6], ids=str)


@BOTH
def test_a_kernel_on_which_nobody_listens_answers(address: IPAddress) -> None:
    assert asyncio.run(reach.passes(address, payload=1000))


@BOTH
def test_what_no_packet_can_hold_does_not_pass(address: IPAddress) -> None:
    assert not asyncio.run(reach.passes(address, payload=65536))


@BOTH
def test_a_healthy_peer_leaves_no_finding(address: IPAddress) -> None:
    way = Way(address, 1500)

    assert asyncio.run(reach.try_peers([Peer("a", way), Peer("b", way, way)])) == []


@pytest.fixture
def resolver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.settimeout(10)
        yield one


@pytest.mark.parametrize(("prefix", "is_answer"), [(b"", True), (b"x", False)])
def test_a_resolver_counts_when_it_answers_our_question(
    resolver: socket.socket, prefix: bytes, is_answer: bool
) -> None:
    def serve() -> None:
        for _ in range(1 if is_answer else reach.ATTEMPTS):
            query, sender = resolver.recvfrom(512)
            resolver.sendto(prefix + query, sender)

    server = threading.Thread(target=serve)
    server.start()
    did = asyncio.run(reach.resolves("127.0.0.1", port=resolver.getsockname()[1]))
    server.join()

    assert did == is_answer


def test_a_resolver_that_is_not_there_does_not_resolve() -> None:
    assert not asyncio.run(reach.resolves("::1", port=1))
