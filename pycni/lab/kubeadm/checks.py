"""The `test` verb's checks of a Kubernetes lab: what its pods and nodes see of each other."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import permutations
from typing import Any

from pycni.lab import probes
from pycni.lab.checks import AT_ONCE, PROTOCOL_4, VXLAN, Row, Verdict, verdict
from pycni.lab.kubeadm.cluster import KubernetesCluster
from pycni.model.resources import IPPool
from pycni.model.tunnels import VXLAN_DEVICES, TunnelKind, tunnel_of
from pycni.model.vxlan import PORT, VNI
from pycni.topology.model import TopologyNode, TopologyPod

API_NAME = "kubernetes.default.svc.cluster.local"
PINGS = "ping between the topology's pods"
# Of ICMP in IP alone: the tunnels carry other things as well.
PINGS_IN_TUNNELS = "proto 4 and ip[29] = 1"
# The same behind the headers of UDP, VXLAN and Ethernet.
PINGS_IN_VXLAN = f"udp dst port {PORT} and udp[12:4] = {VNI << 8} and udp[39] = 1"


async def run_all(cluster: KubernetesCluster, *, show: Callable[[Row], Awaitable[object]]) -> bool:
    """Make all checks; True: none failed."""
    is_right = True
    for check in (_readiness, _routes, _pings, _encapsulation, _names):
        async for row in check(cluster):
            is_right &= row.verdict is not Verdict.FAIL
            await show(row)
    return is_right


async def _readiness(cluster: KubernetesCluster) -> AsyncIterator[Row]:
    missing = await cluster.missing()
    yield Row("nodes and pods are ready", verdict(not missing), ", ".join(missing))


async def _routes(cluster: KubernetesCluster) -> AsyncIterator[Row]:
    """Ask for a learned route by way of each other node, or of its end of a VXLAN tunnel."""
    ends = {node.name: await _ends(cluster, node) for node in cluster.topology.nodes}
    for node in cluster.topology.nodes:
        said = await cluster.machines[node.name].must(
            "ip", "-json", "route", "show", "proto", "bird"
        )
        gateways = {route.get("gateway") for route in json.loads(said)}
        others = [other for other in cluster.topology.nodes if other is not node]
        lacking = [other.name for other in others if not ends[other.name] & gateways]
        seen = f"none to {', '.join(lacking)}" if lacking else f"to {len(others)} other nodes"
        yield Row(f"{node.name}: learned routes", verdict(not lacking), seen)


async def _ends(cluster: KubernetesCluster, node: TopologyNode) -> set[str]:
    """Return the addresses by which others' routes lead to a node."""
    said = await cluster.machines[node.name].must("ip", "-json", "-4", "address")
    device = VXLAN_DEVICES[TunnelKind.VXLAN]
    inside = (one for one in json.loads(said) if one.get("ifname") == device)
    own = {address["local"] for one in inside for address in one.get("addr_info", ())}
    return own | {str(node.address.ip)}


async def _addresses(cluster: KubernetesCluster) -> dict[str, str]:
    """Return the addresses of the topology's pods that there still are."""
    documents: list[dict[str, Any]] = await cluster.items("pods", "--all-namespaces")
    found = {
        f"{d['metadata']['namespace']}/{d['metadata']['name']}": d.get("status", {}).get("podIP")
        for d in documents
    }
    names = [pod.full_name for pod in cluster.topology.pods]
    return {name: address for name in names if (address := found.get(name))}


async def _pings(cluster: KubernetesCluster) -> AsyncIterator[Row]:
    addresses = await _addresses(cluster)
    pods = [pod for pod in cluster.topology.pods if pod.full_name in addresses]
    pairs = list(permutations(pods, 2))
    if not pairs:
        yield Row(PINGS, Verdict.SKIP, "fewer than two of them are there")
        return
    slots = asyncio.Semaphore(AT_ONCE)

    async def ask(one: TopologyPod, other: TopologyPod) -> bool:
        async with slots:
            return await _answers(cluster, one, address=addresses[other.full_name])

    answers = await asyncio.gather(*(ask(*pair) for pair in pairs))
    silent = [
        f"{one.full_name} -> {other.full_name}"
        for (one, other), is_answered in zip(pairs, answers, strict=True)
        if not is_answered
    ]
    seen = f"{len(pairs) - len(silent)} of {len(pairs)} pairs answer"
    yield Row(PINGS, verdict(not silent), "; ".join([seen, *silent]))


async def _answers(cluster: KubernetesCluster, pod: TopologyPod, *, address: str) -> bool:
    # The first packet through tc-bpf's tunnels may wait for ARP in vain.
    ran = await cluster.execute(pod, "ping", "-c", "3", "-i", "0.2", "-W", "2", address)
    return "bytes from" in ran.output


async def _encapsulation(cluster: KubernetesCluster) -> AsyncIterator[Row]:
    addresses = await _addresses(cluster)
    nodes = {node.name: node for node in cluster.topology.nodes}
    pods = [pod for pod in cluster.topology.pods if pod.full_name in addresses]
    pair = next(
        (p for p in permutations(pods, 2) if _are_apart(nodes[p[0].node], nodes[p[1].node])), None
    )
    if pair is None:
        yield Row(PROTOCOL_4, Verdict.SKIP, "no two of the topology's pods are in two subnets")
        return
    pools = (one for one in cluster.topology.resources if isinstance(one, IPPool))
    has_vxlan = any(tunnel_of(pool) is TunnelKind.VXLAN for pool in pools)
    packets = PINGS_IN_VXLAN if has_vxlan else PINGS_IN_TUNNELS
    async with probes.sniffing(packets, count=2) as seen:
        await _answers(cluster, pair[0], address=addresses[pair[1].full_name])
    what = VXLAN if has_vxlan else PROTOCOL_4
    yield Row(what, verdict(bool(seen.lines)), seen.lines[0] if seen.lines else "nothing")


def _are_apart(one: TopologyNode, other: TopologyNode) -> bool:
    return one.address.network != other.address.network


async def _names(cluster: KubernetesCluster) -> AsyncIterator[Row]:
    """Resolve a service's name in each pod: by CoreDNS's service, and so by kube-proxy."""
    addresses = await _addresses(cluster)
    pods = [pod for pod in cluster.topology.pods if pod.full_name in addresses]
    answers = await asyncio.gather(*(cluster.execute(pod, "nslookup", API_NAME) for pod in pods))
    for pod, ran in zip(pods, answers, strict=True):
        found = [line for line in ran.output.splitlines() if line.startswith("Address: ")]
        seen = f"{API_NAME} is {found[-1].partition(' ')[2]}" if found else ran.complaint
        yield Row(f"{pod.full_name} resolves names", verdict(bool(found)), seen)
