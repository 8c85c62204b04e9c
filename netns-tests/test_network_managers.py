"""A real systemd-networkd beside pycni, with the files that install.sh gives it."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import eventually
from conftest import Namespace

ROOT = Path(__file__).resolve().parent.parent
NETWORKD = Path("/usr/lib/systemd/systemd-networkd")
pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(not NETWORKD.exists(), reason="this machine has no systemd-networkd"),
]

# What a host may have: one file for whatever there is.
GREEDY = """\
[Match]
Name=eth* cali* tunl0
[Network]
LinkLocalAddressing=no
Address=192.0.2.1/24
"""
# install.sh's own words, without all the rest of it.
HANDS_OFF = """
set -eu
prefix=$1 dry=false
note() { :; }
has_systemd() { false; }
put() { mkdir -p "$(dirname "$2")"; cat >"$2"; }
. "$2/bin/managers.sh"
install_hands_off
"""
# Its files and what it keeps are seen by it alone; without udev it looks for a read-only /sys.
ALONE = """
set -eu
mount --bind "$1/etc/systemd" /etc/systemd
mount -t tmpfs none /run
mkdir -p /run/systemd/netif
chmod 777 /run/systemd/netif
mount -t sysfs -o ro none /sys
exec "$2"
"""


@pytest.fixture
def host(netns: Callable[[], Namespace]) -> Namespace:
    """Make a host with an underlay, a pod's interface and a tunnel."""
    made = netns()
    for name in ("eth0", "cali0", "tunl0"):
        add(made, name)
    return made


def add(host: Namespace, name: str) -> None:
    host.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"peer-{name}")
    for one in (name, f"peer-{name}"):
        host.run("ip", "link", "set", one, "up")


@contextlib.contextmanager
def networkd(host: Namespace, root: Path) -> Iterator[None]:
    """Run networkd until the end of the block."""
    network = root / "etc/systemd/network"
    network.mkdir(parents=True, exist_ok=True)
    (network / "05-all.network").write_text(GREEDY, encoding="utf-8")
    line = ["unshare", "-m", "sh", "-c", ALONE, "sh", str(root), str(NETWORKD)]
    with (root / "networkd.log").open("ab") as log, host.entered():
        process = subprocess.Popen(line, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def taken(host: Namespace) -> set[str]:
    """Return the interfaces that networkd has set up."""
    return {line.split()[1] for line in host.sh("ip -o -4 addr show up").splitlines()} - {"lo"}


@pytest.mark.parametrize(
    ("is_told", "expected"),
    [(False, {"eth0", "cali0", "tunl0", "cali1", "eth1"}), (True, {"eth0", "eth1"})],
)
def test_networkd_keeps_its_hands_off_what_is_ours_once_it_is_told(
    host: Namespace, tmp_path: Path, expected: set[str], *, is_told: bool
) -> None:
    (tmp_path / "usr/lib/systemd").mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/systemd-networkd").symlink_to(NETWORKD)
    if is_told:
        line = ["sh", "-c", HANDS_OFF, "sh", str(tmp_path), str(ROOT)]
        subprocess.run(line, check=True)
    log = tmp_path / "networkd.log"

    with networkd(host, tmp_path):
        eventually(lambda: "eth0" in taken(host), within_s=60, what=log.read_text)
        # It has looked at these in turn once the last is set up.
        for name in ("cali1", "eth1"):
            add(host, name)
        eventually(lambda: taken(host) >= expected, within_s=60, what=log.read_text)

        assert taken(host) == expected
