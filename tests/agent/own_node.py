"""A network namespace that the test process moves into, like a node's; and one for a pod."""

import ctypes
import os
import subprocess
from collections.abc import Iterator

import pytest

from pycni.kernel import netns

CLONE_NEWNET = 0x40000000
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces")


@pytest.fixture
def node() -> Iterator[int]:
    """Move into a new namespace with an underlay and something called tunl0; give a pod's."""
    home = netns.open_own()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNET) == 0
    pod = netns.open_own()
    assert libc.unshare(CLONE_NEWNET) == 0
    try:
        for line in (
            "link set lo up",
            "link add eth0 type veth peer name far0",
            "addr add 10.10.7.20/20 dev eth0",
            "addr add fd00:10::20/64 dev eth0 nodad",
            "link set eth0 up",
            "link set far0 up",
            "link add tunl0 type veth peer name tunl0x",
            "link set tunl0x up",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        yield pod
    finally:
        netns.setns(home)
        os.close(home)
        os.close(pod)
