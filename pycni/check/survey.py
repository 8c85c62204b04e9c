"""Look at one node and its ways to all others: everything that `pycnictl check` checks."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from pycni.check import probes, services
from pycni.check.findings import Finding, Report
from pycni.check.paths import peers_of
from pycni.check.reach import resolves, try_peers
from pycni.config import AgentConfig
from pycni.errors import PycniError
from pycni.model.network import KernelState
from pycni.model.resources import IPPool, Node
from pycni.ports_cluster import Cluster, Greeting

DEFAULT_NET_DIR = Path("/etc/cni/net.d")
RESOLV_CONF = Path("/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class Place:
    """What is looked at: a node by its name, its tunnel, and two files' places."""

    node: str
    tunnel: str
    net_dir: Path
    resolv_conf: Path


def place_of(config: AgentConfig, *, node: str) -> Place:
    """Return the place that an agent's settings describe."""
    written = config.cni_conflist
    return Place(
        node=node,
        tunnel=config.tunnel_name,
        net_dir=Path(written).parent if written else DEFAULT_NET_DIR,
        resolv_conf=RESOLV_CONF,
    )


async def survey(place: Place, *, kernel: KernelState, cluster: Cluster | None) -> Report:
    """Look at the machine itself and, where it is in a cluster, at what it needs of that.

    `kernel` was read with `probes.rp_filters`.
    """
    report = probes.check_kernel(kernel, tunnel=place.tunnel)
    report += await asyncio.to_thread(probes.check_configurations, place.net_dir)
    if cluster is not None:
        report += Report(tuple(await _api(cluster)))
        report += Report(tuple(await _dns(place.resolv_conf)))
    return report


async def survey_ways(
    place: Place, *, kernel: KernelState, pools: Iterable[IPPool], nodes: Iterable[Node]
) -> Report:
    """Look at what pods' packets meet: this machine's firewall, and the ways to other nodes."""
    report = await probes.check_forwarding([pool.cidr for pool in pools])
    peers = peers_of(nodes, own=place.node, kernel=kernel, tunnel=place.tunnel)
    return report + Report(tuple(await try_peers(peers)))


async def _api(cluster: Cluster) -> list[Finding]:
    try:
        greeting = await cluster.greet()
        found = services.judge_api(latency_s=greeting.latency_s)
        found += _clock(greeting)
        found += services.missing_kinds(await cluster.missing_kinds())
    except PycniError as exc:
        return [services.silent_api(str(exc))]
    return found


def _clock(greeting: Greeting) -> list[Finding]:
    try:
        servers = parsedate_to_datetime(greeting.date).timestamp()
    except ValueError:
        return []  # a proxy that states no time: there is nothing to compare with
    return services.judge_clock(ours=greeting.ours_s, servers=servers, latency_s=greeting.latency_s)


async def _dns(path: Path) -> list[Finding]:
    try:
        text = await asyncio.to_thread(path.read_text, encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    servers = services.parse_resolv_conf(text)
    answered = await asyncio.gather(*map(resolves, servers))
    return services.judge_dns(dict(zip(servers, answered, strict=True)), path=str(path))
