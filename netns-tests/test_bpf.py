"""The tc programs that stand in for tunl0, between two nodes on this machine's kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycni.lab import bpf

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

CLONE = Path(__file__).resolve().parent.parent


def sh(script: str) -> str:
    ran = subprocess.run(
        ["sh", "-euc", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, f"{script}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def wait_until_listening(sniffer: subprocess.Popen[str]) -> None:
    assert sniffer.stderr is not None
    for line in sniffer.stderr:
        if "listening on" in line:
            return
    pytest.fail("tcpdump ended before it listened")


@pytest.fixture(scope="session")
def programs() -> Path:
    ran = subprocess.run(
        [CLONE / "bin" / "ensure", "bpf"], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        pytest.skip("clang or libbpf-dev is missing")
    path = Path(ran.stdout.strip())
    if obstacle := bpf.find_obstacle(path):
        pytest.skip(f"this kernel can't: {obstacle}")
    return path


NODES = """
ip netns add a; ip netns add b; ip -n a link add eth0 mtu 1500 type veth peer name eth0 netns b
for n in a b; do ip -n $n link set lo up; ip -n $n link set eth0 up; done
ip -n a addr add 10.0.0.1/24 dev eth0; ip -n b addr add 10.0.0.2/24 dev eth0
"""
TUNNELS = """
for n in a b; do
    ip -n $n link set tunl0 up
    # The agent's sysctls on every node; the programs' route lookups need forwarding.
    ip netns exec $n sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
done
ip -n a addr add 192.168.1.0/32 dev tunl0; ip -n b addr add 192.168.2.0/32 dev tunl0
ip -n a route add 192.168.2.0/26 via 10.0.0.2 dev tunl0 proto 12 onlink
ip -n b route add 192.168.1.0/26 via 10.0.0.1 dev tunl0 proto 12 onlink
"""


@pytest.fixture
def nodes(programs: Path) -> Iterator[None]:
    try:
        sh(NODES)
        for name in ("a", "b"):
            bpf.install(Path("/run/netns", name), "eth0", programs)
        sh(TUNNELS)
        # The packet that waits for the underlay's ARP is lost here, unlike in a real tunnel.
        sh("ip netns exec a ping -q -c 3 -i 0.2 -W 1 192.168.2.0")
        yield
    finally:
        sh("for n in a b; do ip netns del $n || :; done")


@pytest.mark.usefixtures("nodes")
def test_packets_travel_in_protocol_4_from_the_tunnels_own_address() -> None:
    sniffer = subprocess.Popen(
        [
            "ip",
            "netns",
            "exec",
            "b",
            "tcpdump",
            "-nn",
            "-l",
            "-c",
            "1",
            "-i",
            "eth0",
            "ip",
            "proto",
            "4",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    with sniffer:
        wait_until_listening(sniffer)
        sh("ip netns exec a ping -q -c 1 -W 2 192.168.2.0")
        seen = sniffer.communicate(timeout=10)[0]

    assert "IP 10.0.0.1 > 10.0.0.2: IP 192.168.1.0 > 192.168.2.0: ICMP echo request" in seen


@pytest.mark.usefixtures("nodes")
def test_full_size_packet_passes_and_one_byte_more_does_not() -> None:
    sh("ip netns exec a ping -q -c 1 -W 2 -M do -s 1452 192.168.2.0")

    sh("! ip netns exec a ping -q -c 1 -W 1 -M do -s 1453 192.168.2.0")


@pytest.mark.usefixtures("nodes")
def test_new_interface_looks_like_the_kernels_own(programs: Path) -> None:
    sh("ip netns add c; ip -n c link add eth0 type bridge")
    try:
        bpf.install(Path("/run/netns/c"), "eth0", programs)
        line = sh("ip -n c -o link show tunl0")
    finally:
        sh("ip netns del c")

    assert "mtu 1480" in line
    assert "NOARP" in line
    assert "UP" not in line.split(">")[0]


def test_missing_programs_are_told_with_the_next_step(tmp_path: Path) -> None:
    assert "bin/ensure bpf" in bpf.find_obstacle(tmp_path / "none.o")


TRY = """\
import sys
from pathlib import Path
from pycni.lab import bpf

def mounts():
    return Path("/proc/self/mounts").read_text()

before = mounts()
assert bpf.find_obstacle(Path(sys.argv[1])) == ""
assert mounts() == before, mounts()
"""


def test_the_try_mounts_nothing(programs: Path) -> None:
    """As on a host that has no file system on /sys/fs/bpf yet."""
    alone = 'while umount /sys/fs/bpf 2>/dev/null; do :; done; exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", alone, "sh", sys.executable, "-c", TRY]

    ran = subprocess.run(
        [*words, str(programs)], capture_output=True, text=True, timeout=60, check=False
    )

    assert ran.returncode == 0, ran.stderr
