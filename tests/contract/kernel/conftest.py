"""The implementations of the `Kernel` door, each with hands that act on it from outside."""

import asyncio
import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_interface

import pytest

from pycni.kernel import netns
from pycni.kernel.fake import FakeKernel
from pycni.kernel.linux import LinuxKernel
from pycni.model.linklayer import FdbEntry, LinkLayerEntry
from pycni.model.network import Address, KernelState, Route
from pycni.plan.iproute import ip_route_lines, route_text
from tests.contract.kernel.worlds import World


class FakeWorld:
    """A fake kernel, and others who act on it."""

    def __init__(self) -> None:
        self.kernel = FakeKernel()

    def add_link(self, name: str) -> None:
        self.kernel.add_link(name)

    def set_up(self, name: str, *, is_up: bool) -> None:
        self.kernel.change_link(name, is_up=is_up)

    def rename(self, name: str, *, to: str) -> None:
        self.kernel.rename_link(name, to=to)

    def delete_link(self, name: str) -> None:
        self.kernel.delete_link(name)

    def add_address(self, name: str, text: str) -> None:
        self.kernel.add_address(Address(name, ip_interface(text)))

    def delete_address(self, name: str, text: str) -> None:
        self.kernel.delete_address(Address(name, ip_interface(text)))

    def append(self, route: Route) -> None:
        self.kernel.append_route(route)

    def delete(self, route: Route) -> None:
        self.kernel.delete_route(route)

    def set_neighbour(self, entry: LinkLayerEntry) -> None:
        self.kernel.set_neighbour(entry)

    def delete_neighbour(self, entry: LinkLayerEntry) -> None:
        self.kernel.delete_neighbour(entry)

    def tamper_with_ruleset(self) -> None:
        self.kernel.write_ruleset("something else")

    def delete_ruleset(self) -> None:
        self.kernel.write_ruleset(None)

    def ip_route(self, family: int) -> list[str]:
        return ip_route_lines(self.snapshot(), family=family)

    def snapshot(self) -> KernelState:
        return asyncio.run(self.kernel.snapshot([]))


def ip(*words: str) -> str:
    ran = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=20)
    assert ran.returncode == 0, f"ip {' '.join(words)}: {ran.stderr}"
    return ran.stdout


class RealWorld:
    """This machine's kernel in a fresh network namespace, and iproute2 acting on it."""

    def __init__(self) -> None:
        ip("link", "set", "lo", "up")
        self.kernel = LinuxKernel()

    def add_link(self, name: str) -> None:
        ip("link", "add", "name", name, "type", "veth", "peer", "name", f"{name}-far")
        # Without IPv6 at the far end and of their own, the links are as quiet as the fake's.
        for end in (name, f"{name}-far"):
            ip("link", "set", end, "addrgenmode", "none", "up")

    def set_up(self, name: str, *, is_up: bool) -> None:
        ip("link", "set", name, "up" if is_up else "down")

    def rename(self, name: str, *, to: str) -> None:
        ip("link", "set", name, "name", to)

    def delete_link(self, name: str) -> None:
        ip("link", "delete", name)

    def add_address(self, name: str, text: str) -> None:
        ip("address", "add", text, "dev", name, *(["nodad"] if ":" in text else []))

    def delete_address(self, name: str, text: str) -> None:
        ip("address", "delete", text, "dev", name)

    def append(self, route: Route) -> None:
        ip(f"-{route.key.dst.version}", "route", "append", *route_text(route).split())

    def delete(self, route: Route) -> None:
        ip(f"-{route.key.dst.version}", "route", "delete", *route_text(route).split())

    def set_neighbour(self, entry: LinkLayerEntry) -> None:
        self._change("replace", entry, "permanent", *(["extern_learn"] if entry.is_ours else []))

    def delete_neighbour(self, entry: LinkLayerEntry) -> None:
        self._change("delete", entry)

    def _change(self, verb: str, entry: LinkLayerEntry, *words: str) -> None:
        if isinstance(entry, FdbEntry):
            line = [entry.mac, "dev", entry.ifname, "dst", str(entry.remote), "self", *words]
            subprocess.run(["bridge", "fdb", verb, *line], check=True)
        else:
            state = ["lladdr", entry.mac, "nud"] if words else []
            ip("neigh", verb, str(entry.address), "dev", entry.ifname, *state, *words)

    def tamper_with_ruleset(self) -> None:
        subprocess.run(["nft", "flush", "chain", "inet", "pycni", "input"], check=True)

    def delete_ruleset(self) -> None:
        subprocess.run(["nft", "delete", "table", "inet", "pycni"], check=True)

    def ip_route(self, family: int) -> list[str]:
        lines = ip(f"-{family}", "route").splitlines()
        return [" ".join(line.split()) for line in lines]

    def snapshot(self) -> KernelState:
        return asyncio.run(self.kernel.snapshot([]))


@contextmanager
def fresh_namespace() -> Iterator[None]:
    """Move this process into an empty network namespace, and back.

    It has no name, so the kernel removes it even if this process is killed.
    """
    home = netns.open_own()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(netns.CLONE_NEWNET) != 0:
        pytest.skip(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        netns.setns(home)
        os.close(home)


@contextmanager
def fresh_world() -> Iterator[RealWorld]:
    """Yield the real kernel, and leave nothing of what was done to it."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a network namespace")
    with fresh_namespace():
        real = RealWorld()
        try:
            yield real
        finally:
            real.kernel.close()


@pytest.fixture
def real_world() -> Iterator[RealWorld]:
    with fresh_world() as real:
        yield real


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        yield FakeWorld()
    else:
        with fresh_world() as real:
            yield real


@pytest.fixture
def node(world: World) -> World:
    """A node with an uplink and a tunnel."""
    for name, addresses in (
        ("eth0", ("10.0.0.1/20", "fd00::1/64")),
        ("tunl0", ("192.168.0.1/32",)),
    ):
        world.add_link(name)
        for address in addresses:
            world.add_address(name, address)
    return world
