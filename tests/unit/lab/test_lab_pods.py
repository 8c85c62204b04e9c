"""What the lab tells its agents and its runtime, by the topology."""

import json
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import pytest

from pycni.lab.agents import agent_settings
from pycni.lab.layout import Layout
from pycni.lab.pods import cni_args, conflist
from pycni.topology.model import TopologyPod, load_topology

EXAMPLES = Path(__file__).parents[3] / "examples"
LAYOUT = Layout("lab")


@pytest.mark.parametrize(
    ("versions", "ipam"),
    [
        ((4,), {"type": "pycni-ipam"}),
        ((4, 6), {"type": "pycni-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}),
        ((6,), {"type": "pycni-ipam", "assign_ipv4": "false", "assign_ipv6": "true"}),
    ],
)
def test_network_gives_the_ip_versions_that_pools_serve(
    versions: tuple[int, ...], ipam: dict[str, str]
) -> None:
    network = json.loads(conflist("node-0", layout=LAYOUT, versions=versions))

    assert network["plugins"][0]["ipam"] == ipam


@pytest.mark.parametrize(
    ("four", "six", "said"),
    [
        (None, None, ""),
        ("192.168.0.9", None, ";IP=192.168.0.9"),
        ("192.168.0.9", "fd00::9", ";IP=192.168.0.9,fd00::9"),
    ],
)
def test_pod_asks_for_its_addresses(four: str | None, six: str | None, said: str) -> None:
    pod = TopologyPod(
        "default",
        "one",
        "node-0",
        address=ip_address(four) if four else None,
        address6=IPv6Address(six) if six else None,
    )

    known = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=one"
    assert cni_args(pod) == known + said


@pytest.mark.parametrize(
    ("example", "address6"), [("exercise", None), ("dual-stack", "fd00:10:10::720/64")]
)
def test_agent_is_told_the_addresses_that_its_node_has(example: str, address6: str | None) -> None:
    node = load_topology(EXAMPLES / f"{example}.yaml").nodes[0]

    settings = agent_settings(node, layout=LAYOUT)

    assert settings["node_address"] == "10.10.7.20/20"
    assert settings.get("node_address6") == address6
