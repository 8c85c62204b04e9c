"""A lab whose pools are tunnelled by VXLAN: what it needs, and what is predicted of it."""

import asyncio
from ipaddress import ip_address
from pathlib import Path

import pytest

from pycni.lab import launch
from pycni.lab.expected import expected_source, tunnel_to
from pycni.model.tunnels import TunnelKind
from pycni.plan.mtu import pod_mtu
from pycni.topology.model import load_topology
from pycni.topology.predict import predict

TOPOLOGY = load_topology(Path(__file__).parents[3] / "examples" / "vxlan.yaml")


@pytest.mark.parametrize(("asked", "tunnel"), [("auto", "none"), ("bpf", "bpf")])
def test_without_ip_in_ip_no_kernel_for_it_is_looked_for(asked: str, tunnel: str) -> None:
    said: list[str] = []

    assert launch.decide_tunnel(asked, has_ipip=False, say=said.append) == (tunnel, "host")
    assert said == []


@pytest.mark.parametrize(
    ("target", "kind", "source"),
    [
        ("192.168.247.10", TunnelKind.VXLAN, "192.168.39.192"),
        ("fd00:192:168::f70a", TunnelKind.VXLAN_V6, "fd00:192:168::27c0"),
        ("203.0.113.10", None, "10.10.7.20"),
    ],
)
def test_the_tunnel_and_the_source_follow_from_the_route(
    target: str, kind: TunnelKind | None, source: str
) -> None:
    found = asyncio.run(predict(TOPOLOGY))
    address = ip_address(target)

    assert tunnel_to(found, node="node-0", target=address) is kind
    assert expected_source(found, node="node-0", target=address) == ip_address(source)


def test_pods_have_room_for_the_longer_headers() -> None:
    assert pod_mtu(TOPOLOGY.pools, underlay_mtu=1500) == 1430
