"""The implementations of the `PodNet` door, each on a node of its own with pods to plug."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from pycni.kernel import netns
from pycni.kernel.fake import FakeKernel
from pycni.kernel.fake_podnet import FakePodNet
from pycni.kernel.podnet import LinuxPodNet
from pycni.model.network import Address, IPInterface, IPNetwork, NextHop, Route, RouteKey, Scope
from pycni.plan.iproute import route_text

if TYPE_CHECKING:
    from pycni.ports import PodNet

PODS = 4


class FakeNode:
    """A fake kernel with a fake `PodNet`; namespaces are mere numbers."""

    def __init__(self) -> None:
        self.kernel = FakeKernel()
        self.podnet: PodNet = FakePodNet(self.kernel, host_netns_fd=100)
        self.host_fd = 100
        self.pod_fds = list(range(PODS))

    def add_host_link(self, name: str, *, alias: str = "") -> None:
        self.kernel.add_link(name, alias=alias)

    def delete_host_link(self, name: str) -> None:
        self.kernel.delete_link(name)

    def rename_host_link(self, name: str, *, to: str) -> None:
        self.kernel.rename_link(name, to=to)

    def has_host_link(self, name: str) -> bool:
        return self.kernel.link(name) is not None

    def add_host_route(self, dst: IPNetwork, *, dev: str) -> None:
        self.kernel.append_route(
            Route(RouteKey(dst), scope=Scope.LINK, next_hops=frozenset({NextHop(dev)}))
        )

    def add_host_address(self, interface: IPInterface, *, dev: str) -> None:
        self.kernel.add_address(Address(dev, interface))

    def host_routes(self) -> list[str]:
        lines = (route_text(route) for route in self.kernel.routes())
        return sorted(line for line in lines if not line.startswith("fe80"))

    def break_mtu(self, name: str) -> None:
        self.kernel.change_link(name, mtu=1300)

    def break_sysctl(self, name: str, value: str) -> None:
        self.kernel.write_sysctl(name, value)

    def break_address(self, name: str, address: str) -> None:
        self.kernel.delete_address(Address(name, ip_interface(address)))


def _run(*words: str) -> str:
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    assert ran.returncode == 0, f"{' '.join(words)}: {ran.stderr}"
    return ran.stdout


class RealNode:
    """This process, moved into a fresh network namespace, and more of them for its pods."""

    def __init__(self, *, host_fd: int, pod_fds: list[int]) -> None:
        _run("ip", "link", "set", "lo", "up")
        self._real = LinuxPodNet()
        self.podnet: PodNet = self._real
        self.host_fd = host_fd
        self.pod_fds = pod_fds

    def close(self) -> None:
        self._real.close()

    def add_host_link(self, name: str, *, alias: str = "") -> None:
        far = f"far-{name[-9:]}"
        _run("ip", "link", "add", name, "type", "veth", "peer", "name", far)
        for end in (name, far):
            _run("ip", "link", "set", end, "addrgenmode", "none", "up")
        if alias:
            _run("ip", "link", "set", name, "alias", alias)

    def delete_host_link(self, name: str) -> None:
        _run("ip", "link", "delete", name)

    def rename_host_link(self, name: str, *, to: str) -> None:
        # Kernels before 6.2 rename what is down only.
        _run("ip", "link", "set", name, "down")
        _run("ip", "link", "set", name, "name", to)
        _run("ip", "link", "set", to, "up")

    def has_host_link(self, name: str) -> bool:
        words = ["ip", "link", "show", name]
        return subprocess.run(words, check=False, capture_output=True).returncode == 0

    def add_host_route(self, dst: IPNetwork, *, dev: str) -> None:
        _run("ip", "route", "add", str(dst), "dev", dev)

    def add_host_address(self, interface: IPInterface, *, dev: str) -> None:
        _run("ip", "addr", "add", str(interface), "dev", dev, "nodad")

    def host_routes(self) -> list[str]:
        lines = (_run("ip", "-4", "route") + _run("ip", "-6", "route")).splitlines()
        # Link-local prefixes come from the kernel alone, and late.
        return sorted(" ".join(line.split()) for line in lines if not line.startswith("fe80"))

    def break_mtu(self, name: str) -> None:
        _run("ip", "link", "set", name, "mtu", "1300")

    def break_sysctl(self, name: str, value: str) -> None:
        _run("sysctl", "-qw", f"{name}={value}")

    def break_address(self, name: str, address: str) -> None:
        _run("ip", "address", "del", address, "dev", name)


Node = FakeNode | RealNode


def _unshare() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(netns.CLONE_NEWNET) != 0:
        pytest.skip(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}")
    return netns.open_own()


@pytest.fixture(params=["fake", "real"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    if request.param == "fake":
        yield FakeNode()
        return
    if os.geteuid() != 0:
        pytest.skip("needs root: makes network namespaces")
    with ExitStack() as stack:
        home = netns.open_own()
        stack.callback(os.close, home)
        # Nameless namespaces: the kernel removes them even if this process is killed.
        stack.callback(netns.setns, home)
        pods = [_unshare() for _ in range(PODS)]
        host = _unshare()
        for fd in (*pods, host):
            stack.callback(os.close, fd)
        real = RealNode(host_fd=host, pod_fds=pods)
        stack.callback(real.close)
        yield real
