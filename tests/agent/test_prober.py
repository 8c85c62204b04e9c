"""A silent peer that answers again is noticed, once."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address

import pytest

from pycni.agent.prober import Prober
from pycni.model.network import IPAddress
from tests.agent.own_node import needs_root, node

__all__ = ["node"]  # the fixture, for pytest to find
PEER = ip_address("10.10.7.99")


@pytest.fixture
def returned() -> list[IPAddress]:
    return []


@pytest.fixture
def down() -> list[IPAddress]:
    return [PEER]


@pytest.fixture
def prober(down: list[IPAddress], returned: list[IPAddress]) -> Iterator[Prober]:
    with closing(Prober(down_peers=lambda: down, returned=returned.append)) as made:
        yield made


def probe(prober: Prober, *, times: int) -> None:
    for _ in range(times):
        prober.probe()
        time.sleep(0.005)  # the answer is the kernel's, by ICMP over loopback


@needs_root
@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("peer", ["10.10.7.99", "203.0.113.1"], ids=["no-host", "no-route"])
def test_returning_peer_is_reported_once(
    prober: Prober, down: list[IPAddress], returned: list[IPAddress], peer: str
) -> None:
    down[:] = [ip_address(peer)]
    probe(prober, times=3)
    assert returned == []

    subprocess.run(["ip", "addr", "add", f"{peer}/32", "dev", "lo"], check=True)
    probe(prober, times=5)

    assert returned == down


@needs_root
@pytest.mark.usefixtures("node")
def test_peer_that_always_answers_is_not_reported(
    prober: Prober, returned: list[IPAddress]
) -> None:
    subprocess.run(["ip", "addr", "add", f"{PEER}/32", "dev", "lo"], check=True)

    probe(prober, times=5)

    assert returned == []


@needs_root
@pytest.mark.usefixtures("node")
def test_peer_that_is_up_is_forgotten(
    prober: Prober, down: list[IPAddress], returned: list[IPAddress]
) -> None:
    probe(prober, times=2)
    down.clear()
    probe(prober, times=1)
    subprocess.run(["ip", "addr", "add", f"{PEER}/32", "dev", "lo"], check=True)
    down.append(PEER)

    probe(prober, times=3)

    assert returned == []
