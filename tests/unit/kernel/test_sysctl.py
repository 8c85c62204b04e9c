"""Names of sysctls and the files behind them."""

from pathlib import Path

import pytest

from pycni.errors import InvalidInput
from pycni.kernel.sysctl import find_root, read_sysctl, sysctl_path
from pycni.plan.podsysctls import interface_sysctl


def test_dots_become_slashes_and_slashes_dots() -> None:
    assert sysctl_path("net.ipv4.ip_forward") == "/proc/sys/net/ipv4/ip_forward"
    assert sysctl_path("net.ipv4.conf.eth0/100.rp_filter") == (
        "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"
    )


def test_an_interface_with_a_dot_keeps_it() -> None:
    name = interface_sysctl("ipv4", ifname="eth0.100", key="rp_filter")

    assert sysctl_path(name) == "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"
    assert interface_sysctl("ipv4.neigh", ifname="cali0", key="proxy_delay") == (
        "net.ipv4.neigh.cali0.proxy_delay"
    )


@pytest.mark.parametrize("name", ["", "net..ip_forward", "net.//.x", "net.ipv4\0", "/.x"])
def test_names_cannot_leave_their_folder(name: str) -> None:
    with pytest.raises(InvalidInput, match="malformed"):
        sysctl_path(name)


def test_a_missing_sysctl_has_no_value() -> None:
    assert read_sysctl("net.no_such_thing") is None


def test_the_hosts_sysctls_are_used_where_they_are_mounted(tmp_path: Path) -> None:
    assert find_root(f"{tmp_path}/") == "/proc/sys/"

    (tmp_path / "net").mkdir()

    assert find_root(f"{tmp_path}/") == f"{tmp_path}/"
