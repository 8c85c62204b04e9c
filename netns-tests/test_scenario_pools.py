"""Pools and blocks in a running cluster: the last block, borrowed addresses, pools that change."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from addresses_page import require_documented
from cluster import DNSUTILS, LAB, ROOT, Cluster, eventually, lab, renew_server, wait_for_answer

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]


def topology(directory: Path, *, cidr: str, block_size: int, pods: list[dict[str, str]]) -> Path:
    document = yaml.safe_load((ROOT / "examples" / "exercise.yaml").read_text())
    document["resources"][0] |= {"metadata": {"name": "small"}}
    document["resources"][0]["spec"] |= {"cidr": cidr, "blockSize": block_size}
    document["pods"] = pods
    path = directory / "topology.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Cluster]:
    """Make a cluster with four blocks of four addresses, three of them full."""
    pods = [
        {"name": f"default/p{node}{i}", "node": f"node-{node}"}
        for node in range(3)
        for i in range(3)
    ]
    path = topology(tmp_path, cidr="192.168.0.0/28", block_size=30, pods=pods)
    with lab("small", topology=path) as running:
        yield running


def test_two_nodes_race_for_the_last_block_and_both_pods_work(small: Cluster) -> None:
    racers = [
        subprocess.Popen(
            [LAB, "pod", "--name", small.name, "add", f"default/race{node}",
             "--node", f"node-{node}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node in (0, 1)
    ]  # fmt: skip
    said = [racer.communicate(timeout=120)[0] for racer in racers]

    assert [racer.returncode for racer in racers] == [0, 0], said
    addresses = [address_of(small, f"default/race{node}") for node in (0, 1)]
    assert len(set(addresses)) == 2
    for address in addresses:
        wait_for_answer(small, "default/p20", address)


def test_exhausted_pool_fails_the_add_and_leaves_nothing(small: Cluster) -> None:
    for number in range(4):
        small.lab("pod", "add", f"default/fill{number}", "--node", "node-2", check=False)
    links = small.run("node-2", "ip -o link show type veth | wc -l")

    require_documented(refusal(small, "default/toomany", node="node-2"))

    assert small.run("node-2", "ip -o link show type veth | wc -l") == links


def test_an_address_of_another_nodes_block_is_reached_where_it_is_borrowed(small: Cluster) -> None:
    small.lab("pod", "add", "default/owner", "--node", "node-0")
    small.lab("pod", "add", "default/guest", "--node", "node-1")
    address = address_of(small, "default/guest")

    require_documented(ctl(small, "ipam", "show", "--show-borrowed"))
    eventually(
        lambda: any(
            line.startswith(f"{address} via 10.10.24.89") for line in small.routes("node-2")
        ),
        within_s=60,
        what=lambda: small.routes("node-2"),
    )
    for neighbour in ("default/owner", "default/p20"):
        wait_for_answer(small, neighbour, address)

    ctl(small, "ipam", "configure", "--strict-affinity", "true")
    renew(small, "node-1")
    require_documented(refusal(small, "default/another", node="node-1"))
    small.lab("pod", "add", "default/of-the-owner", "--node", "node-0")


def renew(cluster: Cluster, node: str) -> None:
    renew_server(
        lambda: cluster.status(node)["cni_pid"], lambda pid: cluster.run(node, f"kill -9 {pid}")
    )


def refusal(cluster: Cluster, pod: str, *, node: str) -> str:
    """Add a pod that gets no address; return the plugin's sentence."""
    ran = subprocess.run(
        [LAB, "pod", "--name", cluster.name, "add", pod, "--node", node],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode != 0, ran.stdout
    said = re.search(r"cannot assign .*`pycnictl ipam show`", ran.stdout + ran.stderr)
    assert said is not None, ran.stdout + ran.stderr
    return said[0]


def ctl(cluster: Cluster, *words: str) -> str:
    """Run pycnictl on the cluster's datastore."""
    base = f"/run/pycni-lab/{cluster.name}"
    command = f"{base}/venv/bin/python -I -m pycni.ctl --datastore {base}/datastore.db"
    return cluster.run("node-0", f"{command} {' '.join(words)}")


def address_of(cluster: Cluster, pod: str) -> str:
    listed = json.loads(cluster.run(pod, "ip -j -4 addr show eth0"))
    return str(listed[0]["addr_info"][0]["local"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("pools") as running:
        yield running


def apply(cluster: Cluster, cidr: str, **spec: object) -> None:
    manifest = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": "default-ipv4-ippool" if cidr == "192.168.0.0/16" else "second"},
        "spec": {"cidr": cidr, "blockSize": 26, **spec},
    }
    base = f"/run/pycni-lab/{cluster.name}"
    cluster.run(
        "node-0",
        f"printf '%s' '{json.dumps(manifest)}' | {base}/venv/bin/python -I -m pycni.ctl"
        f" --datastore {base}/datastore.db apply -f -",
    )


def test_mode_of_a_pool_changes_without_losing_a_packet(cluster: Cluster) -> None:
    for node, gateway in (("node-0", "10.10.0.1"), ("node-1", "10.10.16.1")):
        cluster.run(node, f"ip route show | grep -q {gateway}")
    with cluster.stream(DNSUTILS, "192.168.247.10", seconds=4) as losses:
        # All nodes are in different subnets, so CrossSubnet still tunnels: same routes, and the
        # change must not disturb them.
        apply(cluster, "192.168.0.0/16", ipipMode="CrossSubnet", natOutgoing=True)

    assert losses[0].lost == 0
    apply(cluster, "192.168.0.0/16", ipipMode="Always", natOutgoing=True)


def test_pool_in_use_is_split_without_losing_a_packet_or_changing_a_route() -> None:
    with lab("split") as running:
        before = {f"node-{number}": running.routes(f"node-{number}") for number in range(3)}
        rules = running.run("node-0", "nft list table inet pycni")
        with running.stream(DNSUTILS, "192.168.247.10", seconds=4) as losses:
            parts = ctl(running, "ipam", "split", "default-ipv4-ippool", "4")

        assert losses[0].lost == 0
        assert parts.split()[-3:] == ["default-ipv4-ippool-3", "192.168.192.0/18", "1"]
        assert {node: running.routes(node) for node in before} == before
        elements = re.compile(r"counter packets \d+ bytes \d+")
        after = running.run("node-0", "nft list table inet pycni")
        assert elements.sub("", after) == elements.sub("", rules)
        running.lab("pod", "add", "default/later", "--node", "node-1")
        address = address_of(running, "default/later")
        assert address.startswith("192.168.84.")
        wait_for_answer(running, DNSUTILS, address)


def test_second_pool_serves_once_the_first_is_disabled(cluster: Cluster) -> None:
    apply(cluster, "172.20.0.0/24", ipipMode="Always", natOutgoing=True)
    apply(cluster, "192.168.0.0/16", ipipMode="Always", natOutgoing=True, disabled=True)
    renew(cluster, "node-1")

    cluster.lab("pod", "add", "default/second", "--node", "node-1")

    address = address_of(cluster, "default/second")
    assert address.startswith("172.20.0.")
    wait_for_answer(cluster, DNSUTILS, address)
    # Pods of the disabled pool go on.
    assert cluster.run(DNSUTILS, "ping -c 3 -W 5 192.168.247.10")
    cluster.lab("pod", "del", "default/second")
    apply(cluster, "192.168.0.0/16", ipipMode="Always", natOutgoing=True, disabled=False)


def test_pods_reach_the_outside_from_the_nodes_address(cluster: Cluster) -> None:
    seen = cluster.run(DNSUTILS, "curl -s -m 5 http://203.0.113.10/")
    assert "10.10.7.20" in seen

    apply(cluster, "192.168.0.0/16", ipipMode="Always", natOutgoing=False)

    eventually(
        lambda: (
            "192.168.39.193"
            not in cluster.run("node-0", "nft list set inet pycni nat4 2>/dev/null", check=False)
            and "10.10.7.20"
            not in cluster.run(DNSUTILS, "curl -s -m 1 http://203.0.113.10/", check=False)
        ),
        within_s=60,
    )
    apply(cluster, "192.168.0.0/16", ipipMode="Always", natOutgoing=True)
    eventually(
        lambda: (
            "10.10.7.20" in cluster.run(DNSUTILS, "curl -s -m 5 http://203.0.113.10/", check=False)
        ),
        within_s=60,
    )
