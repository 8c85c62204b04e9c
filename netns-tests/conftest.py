"""Network namespaces for tests on the real kernel."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from pycni.kernel import netns as kernel_netns


@dataclass(frozen=True)
class Namespace:
    """An open network namespace without a name: the kernel removes it when nobody holds it."""

    fd: int
    home: int

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run a stretch of the test inside."""
        with kernel_netns.inside(self.fd, home=self.home):
            yield

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside; it must succeed unless `check` is False."""
        with self.entered():
            ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert not check or ran.returncode == 0, f"{' '.join(words)}: {ran.stderr}{ran.stdout}"
        return ran

    def sh(self, script: str) -> str:
        """Run shell lines inside, all of which must succeed."""
        return self.run("sh", "-euc", script).stdout

    @property
    def path(self) -> str:
        """A path under which `ip` and other processes find the namespace."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"


def link(one: Namespace, name: str, other: Namespace, far_name: str) -> None:
    """Connect two namespaces by a veth pair, up at both ends."""
    one.run(
        "ip", "link", "add", "name", name, "type", "veth",
        "peer", "name", far_name, "netns", other.path,
    )  # fmt: skip
    one.run("ip", "link", "set", name, "up")
    other.run("ip", "link", "set", far_name, "up")


@pytest.fixture
def netns() -> Iterator[Callable[[], Namespace]]:
    """Return a factory of empty network namespaces whose `lo` is up."""
    with namespaces() as make:
        yield make


@contextmanager
def namespaces() -> Iterator[Callable[[], Namespace]]:
    """Do what the fixture `netns` does, for as long as one likes."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes network namespaces")
    home = kernel_netns.open_own()
    libc = ctypes.CDLL(None, use_errno=True)
    opened = [home]

    def make() -> Namespace:
        if libc.unshare(kernel_netns.CLONE_NEWNET) != 0:
            pytest.skip(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            fd = kernel_netns.open_own()
        finally:
            kernel_netns.setns(home)
        opened.append(fd)
        made = Namespace(fd, home)
        made.run("ip", "link", "set", "lo", "up")
        return made

    try:
        yield make
    finally:
        for fd in opened:
            os.close(fd)
