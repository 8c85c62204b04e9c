"""libcni's own cnitool drives the plugin, with the agent and without, alone and chained."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import DNSUTILS, DUAL_STACK, EXERCISE, Cluster, cni_tools, eventually, lab

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=[EXERCISE, DUAL_STACK], ids=lambda path: path.stem)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with lab("tool", topology=request.param) as running:
        yield running


def addresses_in(result: dict[str, Any]) -> list[str]:
    return [entry["address"].split("/")[0] for entry in result["ips"]]


def url(address: str, *, port: int = 80) -> str:
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


def route_to(cluster: Cluster, address: str) -> str:
    return cluster.run("node-1", f"ip -{6 if ':' in address else 4} route show {address}")


@pytest.fixture
def netns(cluster: Cluster) -> Iterator[str]:
    cluster.run("node-1", "ip netns add probe")
    yield "/run/netns/probe"
    cluster.run("node-1", "ip netns del probe")


def cnitool(cluster: Cluster, verb: str, netns: str, *, plugins: list[dict[str, object]]) -> str:
    """Run cnitool on node-1 with a conflist of the node's plugin and these behind it."""
    tools = cni_tools()
    base = f"/run/pycni-lab/{cluster.name}"
    listed = json.loads(cluster.run("node-1", f"cat {base}/node-1/net.d/10-pycni.conflist"))
    listed["plugins"] = listed["plugins"][:1] + plugins
    cluster.run(
        "node-1",
        f"mkdir -p /run/probe.d; printf '%s' '{json.dumps(listed)}' > /run/probe.d/10.conflist",
    )
    return cluster.run(
        "node-1",
        f"CNI_PATH={base}/bin:{tools} NETCONFPATH=/run/probe.d"
        f' CAP_ARGS=\'{{"portMappings": [{{"hostPort": 8081, "containerPort": 80,'
        f' "protocol": "tcp"}}]}}\''
        f" {tools}/cnitool {verb} {listed['name']} {netns}",
    )


CHAIN: list[dict[str, object]] = [
    {"type": "tuning", "mac": "02:00:00:00:00:77", "sysctl": {"net.core.somaxconn": "500"}},
    {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "nftables"},
]


@pytest.mark.parametrize("has_agent", [True, False], ids=["agent", "no-agent"])
def test_every_verb_succeeds(cluster: Cluster, netns: str, has_agent: bool) -> None:
    if not has_agent:
        cluster.lab("agent", "stop", "node-1")
    try:
        result = json.loads(cnitool(cluster, "add", netns, plugins=[]))
        cnitool(cluster, "check", netns, plugins=[])
        cnitool(cluster, "status", netns, plugins=[])
        addresses = addresses_in(result)
        routes = [route_to(cluster, address) for address in addresses]
        cnitool(cluster, "del", netns, plugins=[])
        cnitool(cluster, "del", netns, plugins=[])
        cnitool(cluster, "gc", netns, plugins=[])
    finally:
        if not has_agent:
            cluster.lab("agent", "start", "node-1")

    assert result["cniVersion"] == "1.1.0"
    assert [":" in address for address in addresses] == [False, True][: 1 + cluster.has_ipv6]
    assert "scope link" in routes[0]
    assert all(f" dev {result['interfaces'][0]['name']} " in route for route in routes)
    assert [route_to(cluster, address) for address in addresses] == [""] * len(addresses)
    eventually(lambda: cluster.status("node-1")["endpoints"] == 0, within_s=60)


def test_tuning_and_portmap_work_behind_it(cluster: Cluster, netns: str) -> None:
    result = json.loads(cnitool(cluster, "add", netns, plugins=CHAIN))
    try:
        cnitool(cluster, "check", netns, plugins=CHAIN)
        mac = cluster.run("node-1", f"nsenter --net={netns} ip -o link show eth0")
        somaxconn = cluster.run("node-1", f"nsenter --net={netns} sysctl -n net.core.somaxconn")
        cluster.run(
            "node-1",
            f"nsenter --net={netns} python3 -m http.server -b :: 80 >/dev/null 2>&1 &"
            " echo $! >/run/w",
        )
        for address in addresses_in(result):
            eventually(lambda a=address: is_listed(cluster, DNSUTILS, url(a)), within_s=60)  # type: ignore[misc]
        own = ["10.10.24.89", "fd00:10:10::2489"][: 1 + cluster.has_ipv6]
        mapped = [is_listed(cluster, "outside", url(node, port=8081)) for node in own]
    finally:
        cluster.run("node-1", "kill $(cat /run/w)", check=False)
        cnitool(cluster, "del", netns, plugins=CHAIN)

    assert somaxconn.strip() == "500"
    assert "link/ether 02:00:00:00:00:77" in mac  # and CHECK was content with it
    assert mapped == [True] * len(own)


def is_listed(cluster: Cluster, place: str, page: str) -> bool:
    return "Directory listing" in cluster.run(place, f"curl -g -s -m 10 {page}", check=False)
