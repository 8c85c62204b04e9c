"""A pool gets VXLAN where there was none: from cold, with agents that die in the middle, or not."""

import json
import time
from collections.abc import Iterator

import pytest

from cluster import DNSUTILS, Cluster, eventually, lab, wait_for_answer

pytestmark = [pytest.mark.netns, pytest.mark.long, pytest.mark.timeout(240)]

NODES = ("node-0", "node-1", "node-2")
FAR = "192.168.247.10"
BLOCK = "192.168.247.0/26"


@pytest.fixture
def cold() -> Iterator[Cluster]:
    """Make the exercise's cluster, with IP in IP and without any VXLAN device."""
    with lab("vxcold") as running:
        for node in NODES:
            assert running.run(node, "ip link show type vxlan") == ""
        yield running


def change(cluster: Cluster, **modes: str) -> None:
    """Give the exercise's pool other modes."""
    manifest = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": "default-ipv4-ippool"},
        "spec": {"cidr": "192.168.0.0/16", "blockSize": 26, "natOutgoing": True, **modes},
    }
    base = f"/run/pycni-lab/{cluster.name}"
    cluster.run(
        "node-0",
        f"printf '%s' '{json.dumps(manifest)}' | {base}/venv/bin/python -I -m pycni.ctl"
        f" --datastore {base}/datastore.db apply -f -",
    )


def way(cluster: Cluster, node: str = "node-0") -> str:
    """Return the route by which a node reaches the web server's block."""
    return next((one for one in cluster.routes(node) if one.startswith(f"{BLOCK} via")), "")


def has_way_by(cluster: Cluster, device: str) -> None:
    eventually(
        lambda: f" dev {device} " in way(cluster),
        within_s=60,
        what=lambda: cluster.routes("node-0"),
    )


@pytest.mark.parametrize("mode", ["Always", "CrossSubnet"])
def test_the_first_vxlan_of_a_cluster_loses_no_packet(cold: Cluster, mode: str) -> None:
    with cold.stream(DNSUTILS, FAR, seconds=8) as losses:
        change(cold, vxlanMode=mode)

    assert losses[0].missing == (), cold.news()
    has_way_by(cold, "vxlan.calico")


@pytest.mark.parametrize("after_s", [0.2, 2.0, 6.0])
def test_agents_that_die_while_a_pool_changes_lose_no_packet(cold: Cluster, after_s: float) -> None:
    """There and back, at whatever moment of the change."""
    for modes, device in (
        ({"vxlanMode": "Always"}, "vxlan.calico"),
        ({"ipipMode": "Always"}, "tunl0"),
    ):
        with cold.stream(DNSUTILS, FAR, seconds=14) as losses:
            change(cold, **modes)
            time.sleep(after_s)
            for node in ("node-0", "node-2"):
                cold.lab("agent", "kill", node)
            for node in ("node-0", "node-2"):
                cold.lab("agent", "start", node)

        assert losses[0].missing == (), (modes, cold.news())
        has_way_by(cold, device)


def test_a_node_whose_device_can_not_be_made_is_reached_as_before(cold: Cluster) -> None:
    """And by VXLAN as soon as it can; it says of itself why not."""
    cold.run("node-2", "ip link add vxlan7 type vxlan id 4096 dstport 4789 local 10.10.43.25")
    with cold.stream(DNSUTILS, FAR, seconds=15) as losses:
        change(cold, vxlanMode="Always")

    assert losses[0].missing == (), cold.news()
    assert " dev tunl0 " in way(cold)
    eventually(
        lambda: "another VXLAN device has VNI 4096" in str(cold.status("node-2")["problems"]),
        within_s=60,
        what=lambda: cold.status("node-2")["problems"],
    )
    assert " dev tunl0 " in way(cold)

    cold.run("node-2", "ip link delete vxlan7")

    has_way_by(cold, "vxlan.calico")
    wait_for_answer(cold, DNSUTILS, FAR)
