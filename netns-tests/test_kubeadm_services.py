"""Services of a real cluster, announced to a router outside: reached, moved, drained, killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import pytest
import yaml

import routers
from cluster import Cluster as Places
from cluster import eventually
from kubeadm_cluster import LATER_S, SOON_S, WITHIN, Cluster, up, wait_for_routes
from kubeadm_web import source
from lab_driver import CLONE, environment, fresh, is_possible
from peerings import GATEWAYS
from pycni.lab.kubeadm.kit import TOOLBOX
from routers import NODES, Router

pytestmark = [
    pytest.mark.kubeadm, *is_possible, pytest.mark.alone, pytest.mark.timeout(1200),
]  # fmt: skip

PASSWORD = "of-the-router"  # noqa: S105 - an example.
ROUTER = Router("router", "10.10.0.1", 65000, hops=1, password=PASSWORD)
IN_SECRET = {"secretKeyRef": {"name": "bgp-passwords", "key": "router"}}
OUTSIDE = "203.0.113.10"
LOCAL, EXTERNAL, CLUSTER_IP = "198.51.100.7", "192.0.2.9", "10.96.77.7"
POOL = {"cidr": "198.51.100.0/24", "blockSize": 28, "allowedUses": ["LoadBalancer"]}
ASKED = {"projectcalico.org/loadBalancerIPs": f'["{LOCAL}"]'}
RANGES = {
    "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
    "serviceExternalIPs": [{"cidr": "192.0.2.0/24"}],
    "serviceLoadBalancerIPs": [{"cidr": "198.51.100.0/24"}],
}
ASK = """
import asyncio, json, sys
late = [0]
async def one(missing, number):
    try:
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(sys.argv[1], 80)
            writer.write(b"GET /index.html HTTP/1.0\\r\\n\\r\\n")
            if b"200" not in await reader.readline():
                missing.append(number)
            writer.close()
        late[0] += asyncio.get_running_loop().time() - began > 0.9
    except (OSError, TimeoutError):
        missing.append(number)
async def main():
    missing, tasks = [], []
    loop = asyncio.get_running_loop()
    began, number = loop.time(), 0
    while loop.time() < began + float(sys.argv[2]):
        tasks.append(asyncio.create_task(one(missing, number)))
        number += 1
        await asyncio.sleep(max(0, began + number / 50 - loop.time()))
    await asyncio.gather(*tasks)
    print(json.dumps({"asked": number, "missing": sorted(missing), "late": late[0]}))
asyncio.run(main())
"""

PAGES = r"""
mkdir -p /tmp/cgi-bin; hostname >/tmp/index.html
cat >/tmp/cgi-bin/source <<'X'
#!/bin/sh
printf 'Content-Type: text/plain\n\n%s\n' "$REMOTE_ADDR"
X
chmod +x /tmp/cgi-bin/source; exec httpd -f -p 80 -h /tmp
"""


@dataclass(frozen=True)
class Answered:
    """What became of a stream of connections, fifty a second.

    Those that got no answer within 5 s, and those that did only when TCP asked again (1 s).
    """

    asked: int
    missing: tuple[int, ...]
    late: int

    def __str__(self) -> str:
        span = (self.missing[-1] - self.missing[0] + 1) / 50 if self.missing else 0.0
        lost = f"{len(self.missing)} of {self.asked} connections lost, within {span:.1f} s"
        return f"{lost}; {self.late} late"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes, a router that peers with all of them, and a web server on each worker."""
    for lab in fresh("bpf", "services"):
        up(lab)
        cluster = Cluster(lab)
        wait_for_routes(cluster)
        routers.start(Places(lab.name), "bird", ROUTER)
        for node, gateway in GATEWAYS.items():
            own = {"node": node, "peerIP": gateway, "asNumber": 65000, "ttlSecurity": 1}
            own["password"] = IN_SECRET
            have(cluster, "crd.projectcalico.org/v1", "BGPPeer", node, spec=own)
        have(cluster, "crd.projectcalico.org/v1", "BGPConfiguration", "default", spec=RANGES)
        for name in ("load-balancer.yaml", "bgp-passwords.yaml"):
            rights = (CLONE / "deploy" / name).read_text(encoding="utf-8")
            cluster.lab.feed(rights, "kubectl", "apply", "--filename=-")
        have_password(cluster)
        have(cluster, "crd.projectcalico.org/v1", "IPPool", "balanced", spec=POOL)
        for node in ("node-1", "node-2"):
            have(cluster, "apps/v1", "Deployment", f"shop-{node}", spec=deployment(node))
        for name, policy, addresses in (
            ("local", "Local", {"clusterIP": CLUSTER_IP}),
            ("spread", "Cluster", {"externalIPs": [EXTERNAL]}),
        ):
            spec = {
                "type": "LoadBalancer",
                "externalTrafficPolicy": policy,
                "selector": {"app": "shop"},
                "ports": [{"port": 80}],
                **addresses,
            }
            have(cluster, "v1", "Service", name, spec=spec, asks=ASKED if name == "local" else {})
        rolled_out(cluster, "node-1", "node-2")
        yield cluster


def have_password(cluster: Cluster) -> None:
    """Keep the router's password where agents may read it."""
    place = {"name": "bgp-passwords", "namespace": "kube-system"}
    document = {"apiVersion": "v1", "kind": "Secret", "metadata": place}
    document["stringData"] = {"router": PASSWORD}
    cluster.lab.feed(yaml.safe_dump(document), "kubectl", "apply", "--filename=-")


def have(
    cluster: Cluster,
    version: str,
    kind: str,
    name: str,
    *,
    spec: object,
    asks: Mapping[str, str] = {},
) -> None:
    metadata = {"name": name, "annotations": dict(asks)}
    document = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
    cluster.lab.feed(yaml.safe_dump(document), "kubectl", "apply", "--filename=-")


def deployment(node: str) -> dict[str, object]:
    """A web server on one node, that serves on for three seconds when it is to end."""
    return {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "shop", "at": node}},
        "template": {
            "metadata": {"labels": {"app": "shop", "at": node}},
            "spec": {
                "nodeSelector": {"kubernetes.io/hostname": node},
                "terminationGracePeriodSeconds": 10,
                "containers": [
                    {
                        "name": "web",
                        "image": TOOLBOX,
                        "command": ["sh", "-c", PAGES],
                        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "3"]}}},
                        "readinessProbe": {
                            "periodSeconds": 1,
                            "httpGet": {"path": "/index.html", "port": 80},
                        },
                    }
                ],
            },
        },
    }


def rolled_out(cluster: Cluster, *nodes: str) -> None:
    for node in nodes:
        cluster.kubectl("rollout", "status", WITHIN, f"deployment/shop-{node}")


def scale(cluster: Cluster, node: str, replicas: int) -> None:
    cluster.kubectl("scale", f"deployment/shop-{node}", f"--replicas={replicas}")


def by(cluster: Cluster, prefix: str) -> set[str]:
    """The nodes by which the router has learned a prefix."""
    ask = f"cd {ROUTER.directory} && birdc -s bird.ctl show route for {prefix} all"
    said = cluster.lab.execute("router", "sh", "-c", ask)
    found = said.split(prefix, 1)[-1] if prefix in said else ""
    return {node for node, address in NODES.items() if f"BGP.next_hop: {address}" in found}


def wait_until_by(cluster: Cluster, prefix: str, *nodes: str) -> None:
    eventually(
        lambda: by(cluster, prefix) == set(nodes),
        within_s=SOON_S,
        what=lambda: by(cluster, prefix),
    )


def during(cluster: Cluster, address: str, seconds: float, act: Callable[[], None]) -> Answered:
    """Ask for a page fifty times a second from outside, while something happens."""
    words = cluster.lab.command(
        "exec", "outside", "--", "python3", "-c", ASK, address, str(seconds)
    )
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        time.sleep(1)  # the stream has begun
        act()
        said, _ = process.communicate(timeout=seconds + LATER_S)
    answer = json.loads(said)
    return Answered(answer["asked"], tuple(answer["missing"]), answer["late"])


def tell(what: str, answered: Answered) -> None:
    sys.stdout.write(f"{what}: {answered}\n")


def asked_from(cluster: Cluster, address: str) -> str:
    return source(cluster, "outside", address).removeprefix("[::ffff:").removeprefix("::ffff:")


def ingress(cluster: Cluster, name: str) -> list[str]:
    said = json.loads(cluster.kubectl("get", "service", name, "-o", "json"))
    return [one["ip"] for one in said["status"]["loadBalancer"].get("ingress", [])]


def wait_for_address(cluster: Cluster, name: str) -> str:
    eventually(partial(ingress, cluster, name), within_s=SOON_S)
    (address,) = ingress(cluster, name)
    return address


def used_by(cluster: Cluster, address: str) -> str:
    """The node by which the router's kernel sends packets to an address."""
    said = json.loads(cluster.lab.execute("router", "ip", "-json", "route", "get", address))
    (node,) = (node for node, own in NODES.items() if own == said[0]["gateway"])
    return node


def other_than(used: str) -> str:
    (other,) = {"node-1", "node-2"} - {used}
    return other


def test_services_are_reached_moved_drained_and_killed(cluster: Cluster) -> None:
    reach(cluster)
    move_an_endpoint(cluster)
    drain_a_node(cluster)
    give_back(cluster)
    silence_a_node(cluster)


def reach(cluster: Cluster) -> None:
    """Each gets its address, the router learns it, and a host outside reaches it."""
    assert wait_for_address(cluster, "local") == LOCAL
    spread = wait_for_address(cluster, "spread")
    for prefix in ("10.96.0.0/12", "192.0.2.0/24", "198.51.100.0/24"):
        wait_until_by(cluster, prefix, *NODES)
    for prefix in (f"{LOCAL}/32", f"{CLUSTER_IP}/32"):
        wait_until_by(cluster, prefix, "node-1", "node-2")
    assert by(cluster, f"{spread}/32") == set()

    for address in (LOCAL, spread, EXTERNAL, CLUSTER_IP):
        eventually(partial(asked_from, cluster, address), within_s=SOON_S)
    # Where the endpoint is on the node that gets the packet, it sees who asks.
    assert asked_from(cluster, LOCAL).startswith(OUTSIDE)


def move_an_endpoint(cluster: Cluster) -> None:
    scale(cluster, "node-2", 0)
    wait_until_by(cluster, f"{LOCAL}/32", "node-1")

    def move() -> None:
        scale(cluster, "node-2", 1)
        rolled_out(cluster, "node-2")
        scale(cluster, "node-1", 0)
        wait_until_by(cluster, f"{LOCAL}/32", "node-2")

    answered = during(cluster, LOCAL, 20, move)
    tell("endpoint moved", answered)
    assert len(answered.missing) <= 50, answered

    scale(cluster, "node-1", 1)
    rolled_out(cluster, "node-1")
    wait_until_by(cluster, f"{LOCAL}/32", "node-1", "node-2")


def drain_a_node(cluster: Cluster) -> None:
    used = used_by(cluster, LOCAL)

    def drain() -> None:
        cluster.kubectl("drain", used, "--ignore-daemonsets", "--delete-emptydir-data", "--force")

    answered = during(cluster, LOCAL, 20, drain)
    tell(f"{used} drained", answered)
    assert len(answered.missing) <= 50, answered
    wait_until_by(cluster, f"{LOCAL}/32", other_than(used))

    cluster.kubectl("uncordon", used)
    rolled_out(cluster, used)
    wait_until_by(cluster, f"{LOCAL}/32", "node-1", "node-2")


def give_back(cluster: Cluster) -> None:
    """A Service that is gone has given its address back: the next one may ask for it."""
    spread = wait_for_address(cluster, "spread")
    cluster.kubectl("delete", "service", "spread")
    spec = {"type": "LoadBalancer", "selector": {"app": "shop"}, "ports": [{"port": 80}]}
    have(cluster, "v1", "Service", "next", spec=spec | {"loadBalancerIP": spread})
    assert wait_for_address(cluster, "next") == spread


def silence_a_node(cluster: Cluster) -> None:
    """A node dies without a word: its link is up, and nothing comes by it any more."""
    used = used_by(cluster, LOCAL)
    silence = "nft add table netdev dead; " + " ".join(
        f"nft 'add chain netdev dead {hook} "
        f"{{ type filter hook {hook} device eth0 priority 0; policy drop; }}';"
        for hook in ("ingress", "egress")
    )

    def die() -> None:
        cluster.lab.execute(used, "sh", "-c", silence)

    answered = during(cluster, LOCAL, 40, die)
    tell(f"{used} silent", answered)
    # The hold time is nine seconds here; the other node has the address all the time.
    assert len(answered.missing) <= 50 * 20, answered
    assert used_by(cluster, LOCAL) == other_than(used)
