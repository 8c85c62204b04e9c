"""A node's address found among those of a real host, by the real kernel's routes, and followed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from conftest import link
from pycni.autodetection import parse_method
from pycni.kernel.linux import LinuxKernel
from pycni.plan.candidates import Host, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Namespace
    from pycni.model.network import IPAddress, KernelState

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]

SETTINGS = {4: "ip_autodetection_method", 6: "ip6_autodetection_method"}


@pytest.fixture
def hosts(netns: Callable[[], Namespace]) -> tuple[Namespace, Namespace]:
    """Return a host with several interfaces, and one that it reaches by its eth1 alone."""
    first, second, nowhere = netns(), netns(), netns()
    link(first, "eth0", nowhere, "far0")
    link(first, "eth1", second, "eth0")
    # By their names alone: not every kernel that tests run on has bridges and dummies.
    for number, name in enumerate(("eth2", "docker0", "dummy7"), 2):
        link(first, name, nowhere, f"far{number}")
    first.sh(
        "ip addr add 10.10.7.20/20 dev eth0; ip addr add fd00:10::20/64 dev eth0 nodad\n"
        "ip addr add 172.16.0.5/24 dev eth1; ip addr add 172.16.0.9/32 dev eth1\n"
        "ip addr add 10.99.0.5/24 dev eth2; ip link set eth2 down\n"
        "ip addr add 172.17.0.1/16 dev docker0\n"
        "ip addr add 192.0.2.7/32 dev dummy7\n"
        "ip route add default via 10.10.0.1; ip -6 route add default via fd00:10::1\n"
        "ip route add 198.51.100.0/24 via 172.16.0.1\n"
        "ip route add 203.0.113.0/24 via 172.16.0.1 table 77\n"
        "ip rule add to 203.0.113.0/24 table 77"
    )
    second.sh("ip addr add 172.16.0.6/24 dev eth0")
    return first, second


def looked_at(host: Namespace, destination: str) -> tuple[KernelState, IPAddress | None]:
    """Return what the kernel of a host shows, and from where it sends to a destination."""
    with host.entered():
        kernel = LinuxKernel()
        try:
            source = kernel.source_to(ip_address(destination)) if destination else None
            return asyncio.run(kernel.snapshot([])), source
        finally:
            kernel.close()


@pytest.mark.parametrize(
    ("version", "text", "expected"),
    [
        (4, "first-found", "eth1 172.16.0.5/24"),
        (6, "first-found", "eth0 fd00:10::20/64"),
        (4, "skip-interface=eth1", "eth0 10.10.7.20/20"),
        (4, "interface=dummy.*", "dummy7 192.0.2.7/32"),
        (4, "interface=eth2", None),
        (4, "cidr=10.0.0.0/8", "eth0 10.10.7.20/20"),
        (4, "can-reach=8.8.8.8", "eth0 10.10.7.20/20"),
        (4, "can-reach=198.51.100.1", "eth1 172.16.0.5/24"),
        (4, "can-reach=203.0.113.1", "eth1 172.16.0.5/24"),
        (4, "can-reach=10.10.7.20", "eth0 10.10.7.20/20"),
        (6, "can-reach=2001:db8::1", "eth0 fd00:10::20/64"),
    ],
)
def test_each_method_finds_an_address_of_a_real_host(
    hosts: tuple[Namespace, Namespace], version: int, text: str, expected: str | None
) -> None:
    method = parse_method(text, setting=SETTINGS[version], version=version)

    state, source = looked_at(hosts[0], str(method.destination))
    found = choose(method, Host(state.links, state.addresses, "tunl0", source=source))

    assert (f"{found.ifname} {found.interface}" if found else None) == expected


def test_a_temporary_address_is_not_found(netns: Callable[[], Namespace]) -> None:
    host, far = netns(), netns()
    link(host, "eth0", far, "far0")
    host.sh(
        "sysctl -qw net.ipv6.conf.eth0.use_tempaddr=2\n"
        "ip addr add fd00:10::ffff:0:0:20/64 dev eth0 mngtmpaddr nodad"
    )
    method = parse_method("first-found", setting=SETTINGS[6], version=6)

    state, _ = looked_at(host, "")
    found = choose(method, Host(state.links, state.addresses, "tunl0"))

    temporary = [str(one.interface) for one in state.addresses if one.is_temporary]
    assert len(temporary) == 1, state.addresses
    assert found is not None
    assert str(found.interface) == "fd00:10::ffff:0:0:20/64"


class Node:
    """An agent in a host's namespace."""

    def __init__(self, host: Namespace, directory: Path, name: str, **settings: str) -> None:
        self.host = host
        self.run_dir = directory / name / "run"
        config = directory / f"{name}.yaml"
        stated = {
            "node": name,
            "run_dir": str(self.run_dir),
            "state_dir": str(directory / name / "state"),
            "datastore": str(directory / "shared.db"),
            "hold_time_s": 9,
            "metrics_port": 0,
            **settings,
        }
        self.run_dir.mkdir(parents=True)
        config.write_text(json.dumps(stated))
        self._command = [sys.executable, "-m", "pycni.agent", "--config", str(config)]

    @contextmanager
    def running(self) -> Iterator[None]:
        with self.host.entered():
            agent = subprocess.Popen(self._command)
        try:
            yield
        finally:
            agent.terminate()
            agent.wait(60)

    def status(self) -> dict[str, Any]:
        """Return what `pycnictl status` says; nothing while no agent answers."""
        words = ["status", "-o", "json", "--run-dir", str(self.run_dir)]
        said = self.host.run(sys.executable, "-m", "pycni.ctl", *words, check=False).stdout
        document: dict[str, Any] = json.loads(said or "{}")
        return document

    def until(self, is_so: Callable[[dict[str, Any]], bool], *, within_s: float) -> dict[str, Any]:
        """Ask for the status until it is so; return it."""
        deadline = time.monotonic() + within_s
        while not is_so(status := self.status()):
            assert time.monotonic() < deadline, status
            time.sleep(0.3)
        return status


def has_session(address: str) -> Callable[[dict[str, Any]], bool]:
    """Tell whether a status shows one session, up, with a node at this address."""

    def is_so(status: dict[str, Any]) -> bool:
        peers = [(one["peer"], one["state"]) for one in status.get("peers", ())]
        return peers == [(address, "up")]

    return is_so


def test_peers_find_a_node_where_it_found_itself_and_follow_it(
    hosts: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    first = Node(hosts[0], tmp_path, "node-0", ip_autodetection_method="can-reach=172.16.0.6")
    second = Node(hosts[1], tmp_path, "node-1", ip_autodetection_method="first-found")

    with ExitStack() as agents:
        for node in (first, second):
            agents.enter_context(node.running())
        second.until(has_session("172.16.0.5"), within_s=90)
        is_up = has_session("172.16.0.6")
        status = first.until(lambda one: is_up(one) and not one["problems"], within_s=90)

        assert (status["address"], status["problems"]) == ("172.16.0.5/24", [])
        (choice,) = status["autodetection"]
        assert (choice["address"], choice["interface"]) == ("172.16.0.5/24", "eth1")
        reasons = {row["interface"]: row["reason"] for row in choice["passed_over"]}
        assert reasons["eth2"] == "the interface is down"
        assert reasons["eth0"] == "the kernel does not send from it to 172.16.0.6"

        hosts[0].sh("ip addr del 172.16.0.5/24 dev eth1; ip addr add 172.16.0.7/24 dev eth1")

        second.until(has_session("172.16.0.7"), within_s=90)
        first.until(lambda one: one.get("address") == "172.16.0.7/24", within_s=60)
