"""What is predicted for random clusters is what the kernel then has, line by line."""

import random
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster import ROOT, lab

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]


FIRST_WITH_VXLAN = 10


def random_topology(seed: int) -> dict[str, object]:
    """Make up a cluster: 2 to 4 nodes in subnets of many sizes, a pool, pods anywhere.

    Two of three have IPv6 as well, with one subnet for all nodes: without a tunnel, IPv6 would not
    pass a router.  From the tenth on all have VXLAN.
    """
    dice = random.Random(seed)  # noqa: S311  # repeatable, not secret
    prefix = dice.choice((16, 20, 24, 28))
    nodes = [
        {
            "name": f"{dice.choice(('n', 'worker-', 'node-'))}{number}",
            "address": f"10.{number * 16}.0.{dice.randrange(2, 14)}/{prefix}",
            "gateway": f"10.{number * 16}.0.1",
            "mtu": dice.choice((1500, 1400, 9000)),
        }
        for number in range(dice.randrange(2, 5))
    ]
    pool, sizes = dice.choice(
        (("192.168.0.0/16", (24, 26, 28)), ("172.20.0.0/20", (26, 29)), ("10.244.0.0/24", (28, 30)))
    )
    pods = [
        {"name": f"ns{dice.randrange(3)}/pod{number}", "node": dice.choice(nodes)["name"]}
        for number in range(dice.randrange(6))
    ]
    spec = {"cidr": pool, "blockSize": dice.choice(sizes), "natOutgoing": dice.random() < 0.5}
    has_vxlan = seed >= FIRST_WITH_VXLAN
    spec["vxlanMode" if has_vxlan else "ipipMode"] = dice.choice(("Always", "CrossSubnet"))
    specs = [spec]
    if seed % 3:
        for number, node in enumerate(nodes):
            subnet = number if has_vxlan else 0
            node |= {
                "address6": f"fd00:10:{subnet}::{number + 2:x}/64",
                "gateway6": f"fd00:10:{subnet}::1",
            }
        cidr = dice.choice(("fd00:192:168::/112", "fd00:172:20::/48"))
        specs.append({"cidr": cidr, "blockSize": dice.choice((122, 124, 126))})
        if has_vxlan:
            specs[-1]["vxlanMode"] = dice.choice(("Always", "CrossSubnet"))
    return {
        "name": f"random-{seed}",
        "nodes": nodes,
        "resources": [
            {
                "apiVersion": "projectcalico.org/v3",
                "kind": "IPPool",
                "metadata": {"name": f"pool-{number}"},
                "spec": each,
            }
            for number, each in enumerate(specs)
        ],
        "pods": pods,
    }


@pytest.mark.parametrize("seed", range(FIRST_WITH_VXLAN + 4))
def test_kernel_has_what_was_predicted(seed: int, tmp_path: Path) -> None:
    document = random_topology(seed)
    path = tmp_path / "topology.yaml"
    path.write_text(yaml.safe_dump(document))
    nodes = document["nodes"]
    assert isinstance(nodes, list)

    with lab(f"predict{seed}", topology=path) as cluster:
        for node in nodes:
            for family in (4, 6) if seed % 3 else (4,):
                predicted = subprocess.run(
                    [str(ROOT / "bin" / "pycnictl"), "predict", "-f", str(path),
                     "--node", node["name"], f"-{family}"],
                    capture_output=True, text=True, check=True,
                ).stdout.splitlines()  # fmt: skip
                assert cluster.routes(node["name"], family=family) == predicted
