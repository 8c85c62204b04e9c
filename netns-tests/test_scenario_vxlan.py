"""Pools with VXLAN between three nodes: what is on the underlay, changes, losses and repairs."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from cluster import (
    DNSUTILS,
    ROOT,
    Cluster,
    eventually,
    lab,
    wait_for_answer,
    wait_until_steady,
)

if TYPE_CHECKING:
    from pings import Loss

pytestmark = [pytest.mark.netns, pytest.mark.alone, pytest.mark.timeout(360)]

VXLAN = ROOT / "examples" / "vxlan.yaml"
FAR = ("192.168.247.10", "fd00:192:168::f70a")
# It takes a fraction of a second.  The pass over everything, each minute, would be too late.
MENDED_S = 30
POOLS = {4: ("default-ipv4-ippool", "192.168.0.0/16", 26),
         6: ("default-ipv6-ippool", "fd00:192:168::/112", 122)}  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("vxlan", topology=VXLAN) as running:
        yield running


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes in one subnet, and a third in another."""
    document = yaml.safe_load(VXLAN.read_text())
    own, near = document["nodes"][0], document["nodes"][1]
    near |= {"address": "10.10.7.30/20", "address6": "fd00:10:0::730/64"}
    near |= {key: own[key] for key in ("gateway", "gateway6")}
    document["pods"].append({"name": "default/near", "node": "node-1"})
    path: Path = tmp_path_factory.mktemp("vxlan") / "topology.yaml"
    path.write_text(yaml.safe_dump(document))
    with lab("vxnear", topology=path) as running:
        yield running


@contextlib.contextmanager
def streams(cluster: Cluster, *targets: str, seconds: float) -> Iterator[list[list[Loss]]]:
    """Send to all of these addresses at once."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(cluster.stream(DNSUTILS, target, seconds=seconds))
            for target in targets
        ]


def ctl(cluster: Cluster, words: str) -> str:
    """Run pycnictl on the cluster's datastore."""
    base = f"/run/pycni-lab/{cluster.name}"
    command = f"{base}/venv/bin/python -I -m pycni.ctl --datastore {base}/datastore.db"
    return cluster.run("node-0", f"{words.replace('pycnictl', command)}")


def apply(cluster: Cluster, version: int, **spec: object) -> None:
    name, cidr, size = POOLS[version]
    manifest = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": name},
        "spec": {"cidr": cidr, "blockSize": size, "natOutgoing": True, **spec},
    }
    ctl(cluster, f"printf '%s' '{json.dumps(manifest)}' | pycnictl apply -f -")


def vxlan_state(cluster: Cluster, node: str) -> str:
    """Return a node's devices with their addresses, and who is behind them."""
    return cluster.run(
        node,
        "for i in vxlan.calico vxlan-v6.calico; do"
        " ip -d link show $i | grep -o 'mtu [0-9]*\\|link/ether [0-9a-f:]*\\|vxlan id.*nolearning';"
        " ip -br address show $i | grep -o '192[^ ]*\\|fd00[^ ]*';"
        " ip neigh show dev $i nud permanent | sort; bridge fdb show dev $i | sort; done",
        check=False,
    )


def addresses_of(cluster: Cluster, pod: str) -> list[str]:
    listed = json.loads(cluster.run(pod, "ip -j addr show eth0"))
    found = [a["local"] for a in listed[0]["addr_info"] if a["scope"] == "global"]
    return [str(address) for address in found]


def test_all_is_as_predicted_and_packets_are_encapsulated(cluster: Cluster) -> None:
    wait_until_steady(cluster)

    said = cluster.lab("test", timeout=120)

    assert "PASS  VXLAN on the underlay  " in said
    assert "PASS  VXLAN on the underlay (IPv6)" in said
    assert " 0 FAIL" in said


def test_agents_that_die_and_come_back_lose_no_packet(cluster: Cluster) -> None:
    wait_until_steady(cluster)

    with streams(cluster, *FAR, seconds=8) as losses:
        for node in ("node-0", "node-2"):
            cluster.lab("agent", "kill", node)
        time.sleep(1)
        for node in ("node-0", "node-2"):
            cluster.lab("agent", "start", node)

    assert [loss.missing for (loss,) in losses] == [(), ()], cluster.news()


@pytest.mark.parametrize(
    "breakage",
    [
        "ip link delete vxlan.calico",
        "ip link delete vxlan-v6.calico",
        "ip link set vxlan.calico down",
        "ip link set vxlan.calico mtu 1300",
        "ip link set vxlan.calico address 66:00:00:00:00:01",
        "ip link set vxlan.calico type vxlan local 10.10.7.99",
        # The agent may be faster.
        "ip link delete vxlan.calico; ip link add vxlan.calico type vxlan id 4096 dstport 8; true",
        "ip address flush dev vxlan.calico",
        "bridge fdb delete $(mac) dev vxlan.calico",
        "bridge fdb replace $(mac) dev vxlan.calico dst 10.10.7.99 self permanent",
        "ip neigh delete 192.168.247.0 dev vxlan.calico",
        "ip neigh replace 192.168.247.0 lladdr 66:00:00:00:00:01 dev vxlan.calico nud permanent",
        # What is not permanent would be learned away sooner or later.
        "bridge fdb replace $(mac) dev vxlan.calico dst 10.10.7.99 self dynamic",
        "ip neigh replace 192.168.247.0 lladdr 66:00:00:00:00:01 dev vxlan.calico nud reachable",
        "ip neigh replace 192.168.247.0 lladdr 66:00:00:00:00:01 dev vxlan.calico nud stale",
        "ip neigh change 192.168.247.0 dev vxlan.calico nud failed",
        "ip -6 neigh delete fd00:192:168::f700 dev vxlan-v6.calico",
        "ip -6 route delete fd00:192:168::f700/128 dev vxlan-v6.calico",
    ],
)
def test_what_somebody_breaks_is_mended(cluster: Cluster, breakage: str) -> None:
    wait_until_steady(cluster)
    tables = [cluster.routes("node-0", family=family) for family in (4, 6)]
    before = vxlan_state(cluster, "node-0")
    assert before.count("nolearning") == 2

    first = "mac() { bridge fdb show dev vxlan.calico | head -n 1 | cut -d' ' -f1; }"
    cluster.run("node-0", f"{first}; {breakage}")

    eventually(
        lambda: vxlan_state(cluster, "node-0") == before,
        within_s=MENDED_S,
        what=lambda: vxlan_state(cluster, "node-0"),
    )
    eventually(
        lambda: [cluster.routes("node-0", family=family) for family in (4, 6)] == tables,
        within_s=MENDED_S,
        what=lambda: [cluster.routes("node-0", family=family) for family in (4, 6)],
    )
    for target in FAR:
        wait_for_answer(cluster, DNSUTILS, target, within_s=MENDED_S)


def test_what_others_have_written_stays(cluster: Cluster) -> None:
    wait_until_steady(cluster)
    cluster.run(
        "node-0",
        "bridge fdb add 66:11:11:11:11:11 dev vxlan.calico dst 10.10.0.99 self permanent;"
        " ip neigh add 192.168.255.1 lladdr 66:11:11:11:11:11 dev vxlan.calico nud permanent",
    )
    theirs = vxlan_state(cluster, "node-0")

    cluster.lab("agent", "stop", "node-0")
    cluster.lab("agent", "start", "node-0")
    eventually(lambda: cluster.status("node-0")["converged"], within_s=60)

    assert vxlan_state(cluster, "node-0") == theirs
    assert theirs.count("66:11:11:11:11:11") == 2
    cluster.run(
        "node-0",
        "bridge fdb delete 66:11:11:11:11:11 dev vxlan.calico;"
        " ip neigh delete 192.168.255.1 dev vxlan.calico",
    )


def test_a_node_that_is_gone_leaves_nothing_on_the_others(cluster: Cluster) -> None:
    wait_until_steady(cluster)
    before = vxlan_state(cluster, "node-0")
    assert before.count("10.10.24.89") == 1
    cluster.lab("agent", "stop", "node-1")

    ctl(cluster, "pycnictl delete node node-1")

    eventually(
        lambda: (
            "10.10.24.89" not in vxlan_state(cluster, "node-0")
            and "192.168.84.128" not in vxlan_state(cluster, "node-0")
            and "fd00:10:1::2489" not in vxlan_state(cluster, "node-0")
        ),
        within_s=MENDED_S,
        what=lambda: vxlan_state(cluster, "node-0"),
    )
    cluster.lab("agent", "start", "node-1")
    eventually(
        lambda: vxlan_state(cluster, "node-0") == before,
        within_s=60,
        what=lambda: vxlan_state(cluster, "node-0"),
    )


CHANGES = [
    (
        {"vxlanMode": "Always"},
        {"vxlanMode": "Always"},
        ["vxlan.calico", "vxlan.calico", "vxlan-v6.calico", "vxlan-v6.calico"],
    ),
    (
        {"vxlanMode": "CrossSubnet"},
        {"vxlanMode": "CrossSubnet"},
        ["vxlan.calico", "eth0", "eth0", "vxlan-v6.calico"],
    ),
    (
        {"ipipMode": "CrossSubnet"},
        {"vxlanMode": "Always"},
        ["tunl0", "eth0", "vxlan-v6.calico", "vxlan-v6.calico"],
    ),
    (
        {"vxlanMode": "Always"},
        {"vxlanMode": "CrossSubnet"},
        ["vxlan.calico", "vxlan.calico", "eth0", "vxlan-v6.calico"],
    ),
    (
        {"ipipMode": "Always"},
        {"vxlanMode": "CrossSubnet"},
        ["tunl0", "tunl0", "eth0", "vxlan-v6.calico"],
    ),
]


def test_mode_of_a_pool_changes_without_losing_a_packet(neighbours: Cluster) -> None:
    """From each mode and kind of tunnel to the next, one after another."""
    start_with_vxlan(neighbours)
    targets = (*FAR, *addresses_of(neighbours, "default/near"))
    for four, six, devices in CHANGES:
        with streams(neighbours, *targets, seconds=6) as losses:
            apply(neighbours, 4, **four)
            apply(neighbours, 6, **six)

        said = (four, six, neighbours.news())
        assert [loss.missing for (loss,) in losses] == [()] * len(targets), said
        seen = partial(ways, neighbours)
        eventually(lambda d=devices, s=seen: s() == d, within_s=60, what=seen)  # type: ignore[misc]


def start_with_vxlan(cluster: Cluster) -> None:
    """Have all nodes reach each other, whatever the test before has left."""
    wanted = ["vxlan.calico", "eth0", "eth0", "vxlan-v6.calico"]
    for version in (4, 6):
        apply(cluster, version, vxlanMode="CrossSubnet")
    eventually(lambda: ways(cluster) == wanted, within_s=60, what=lambda: ways(cluster))
    for target in (*FAR, *addresses_of(cluster, "default/near")):
        wait_for_answer(cluster, DNSUTILS, target)


def ways(cluster: Cluster) -> list[str]:
    """Return by which devices node-0 reaches the others' blocks: node-2's, node-1's, of IPv6 both.

    In the order of their texts.
    """
    found = {}
    for family in (4, 6):
        for line in cluster.routes("node-0", family=family):
            words = line.split()
            if "/" in words[0] and "via" in words and words[0] != "default":
                found[words[0]] = words[words.index("dev") + 1]
    four = [found[key] for key in sorted(found) if key.startswith("192.168.")]
    six = [found[key] for key in sorted(found) if key.startswith("fd00:192:168:")]
    return [*four, *six]


def test_a_pool_between_neighbours_loses_and_gets_vxlan_without_losing_a_packet(
    neighbours: Cluster,
) -> None:
    """Without tunnel the far node is out of reach, and the near one is not."""
    start_with_vxlan(neighbours)
    near = addresses_of(neighbours, "default/near")
    for mode in ("Never", "Always", "Never"):
        with streams(neighbours, *near, seconds=6) as losses:
            for version in (4, 6):
                apply(neighbours, version, vxlanMode=mode)
        assert [loss.missing for (loss,) in losses] == [()] * len(near), mode
