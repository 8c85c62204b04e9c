"""What `pycnictl status` prints of the choice of a node's address."""

from collections.abc import Sequence
from typing import Any

import pytest

from pycni.ctl.main import main
from tests.unit.ctl.conftest import Machine

ETH0 = {
    "interface": "eth0",
    "addresses": ["10.0.0.5/24"],
    "more": 0,
    "reason": "it fits, and 172.16.0.5/16 of eth1 comes first",
}
IPVS = {
    "interface": "kube-ipvs0",
    "addresses": ["10.96.0.1/32", "10.96.0.10/32"],
    "more": 12,
    "reason": "the interface is for pods or Services",
}


def told(
    agent: Machine, *, address: str | None, interface: str | None, passed: Sequence[object] = ()
) -> None:
    status: dict[str, Any] = dict.fromkeys(
        ("node", "version", "tunnel_address", "nat", "endpoints", "kernel_routes")
    )
    status |= {
        "uptime_s": 1.0,
        "address": address,
        "converged": True,
        "problems": [],
        "blocks": [],
        "peers": [],
        "advertised": [],
        "drops": {},
        "autodetection": [
            {
                "version": 4,
                "setting": "ip_autodetection_method",
                "method": "first-found",
                "address": address,
                "interface": interface,
                "passed_over": list(passed),
            }
        ],
    }
    agent.answers["status"] = status


def shown(agent: Machine) -> str:
    agent.capsys.readouterr()
    assert main(["status", "--run-dir", str(agent.run_dir)]) == 0
    printed: str = agent.capsys.readouterr().out
    return printed


def test_the_choice_and_what_was_passed_over_are_shown(agent: Machine) -> None:
    told(agent, address="172.16.0.5/16", interface="eth1", passed=(ETH0, IPVS))

    assert shown(agent).endswith(
        """
ip_autodetection_method first-found: 172.16.0.5/16 of eth1
PASSED OVER  ADDRESSES                                WHY
eth0         10.0.0.5/24                              it fits, and 172.16.0.5/16 of eth1 comes first
kube-ipvs0   10.96.0.1/32, 10.96.0.10/32 and 12 more  the interface is for pods or Services
"""
    )


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("10.0.0.5/24", "first-found: 10.0.0.5/24, which does not fit any more\n"),
        (None, "first-found: nothing\n"),
    ],
)
def test_a_choice_that_finds_nothing_says_so(
    agent: Machine, address: str | None, said: str
) -> None:
    told(agent, address=address, interface=None)

    assert shown(agent).endswith(said)


def test_addresses_inside_vxlan_tunnels_are_shown_where_there_are_some(agent: Machine) -> None:
    told(agent, address="10.0.0.5/24", interface="eth0")
    assert "vxlan" not in shown(agent)

    agent.answers["status"]["tunnels"] = {"tunl0": "10.1.0.1", "vxlan.calico": "10.2.0.1"}

    assert "vxlan.calico    10.2.0.1\n" in shown(agent)
