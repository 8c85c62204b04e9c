"""The `test` verb's checks: each asks the running network one thing and gives one row."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from pycni.errors import PycniError, TryAgain
from pycni.lab import degraded, probes
from pycni.lab.agents import BGP_USER
from pycni.lab.cluster import Cluster
from pycni.lab.expected import expected_source, tunnel_to
from pycni.lab.layout import pod_place
from pycni.model.network import IPAddress
from pycni.model.tunnels import TunnelKind
from pycni.model.vxlan import PORT, VNI
from pycni.plan.prefixes import host_prefix
from pycni.topology.model import TopologyPod, addresses_of
from pycni.topology.predict import Prediction

AT_ONCE = 8
IP_AND_ICMP_HEADERS = {4: 28, 6: 48}

PINGS = "ping between all pods"
PROTOCOL_4 = "protocol 4 on the underlay"
VXLAN = "VXLAN on the underlay"
PLAIN_IPV6 = "plain IPv6 on the underlay"
FULL_PACKETS = "packets of full size"


class Verdict(Enum):
    """How a check ended."""

    PASS = "PASS"  # noqa: S105 - no password
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True, slots=True)
class Row:
    """One check: what was asked, how it ended, and what was seen."""

    what: str
    verdict: Verdict
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """A pod that asks and one that is asked, by their addresses of one IP version."""

    source: TopologyPod
    target: TopologyPod
    source_address: IPAddress
    address: IPAddress


def address_of(cluster: Cluster, pod: TopologyPod, *, family: int) -> IPAddress | None:
    """Return a pod's address of one IP version."""
    return next((a for a in cluster.addresses[pod.full_name] if a.version == family), None)


def pairs_of(cluster: Cluster, *, family: int = 4) -> list[Pair]:
    """Return all ordered pairs of pods that both have an address of an IP version."""
    found = [(pod, address_of(cluster, pod, family=family)) for pod in cluster.topology.pods]
    return [
        Pair(one, other, source, target)
        for one, source in found
        for other, target in found
        if one is not other and source is not None and target is not None
    ]


def across_nodes(cluster: Cluster, *, family: int = 4) -> Pair | None:
    """Return a pair on two nodes; None: all pods share one."""
    pairs = pairs_of(cluster, family=family)
    return next((p for p in pairs if p.source.node != p.target.node), None)


def verdict(is_right: bool) -> Verdict:  # noqa: FBT001 - a conversion
    """Turn an answer into a verdict."""
    return Verdict.PASS if is_right else Verdict.FAIL


# --- the checks ---------------------------------------------------------------------------------


async def tables_are_predicted(cluster: Cluster) -> AsyncIterator[Row]:
    """Compare every node's table with its prediction."""
    for comparison in await cluster.compare_all():
        what = f"{comparison.node}: {comparison.title}"
        yield Row(what, verdict(comparison.is_equal), comparison.verdict)


async def sessions_are_up(cluster: Cluster) -> AsyncIterator[Row]:
    """Ask every agent for its BGP sessions."""
    for node in cluster.node_names:
        what = f"{node}: BGP sessions"
        try:
            peers = (await cluster.agents.ask(node, "status"))["peers"]
        except PycniError as exc:
            yield Row(what, Verdict.FAIL, str(exc))
            continue
        up = sum(p["state"] == "up" for p in peers)
        yield Row(what, verdict(up == len(peers)), f"{up} of {len(peers)} up")


async def unanswered_pings(cluster: Cluster, *, family: int = 4) -> list[Pair]:
    """Ping between all pairs of pods; return those that stay without answer."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def ask(pair: Pair) -> bool:
        async with slots:
            return await probes.answers(pod_place(pair.source.full_name), address=pair.address)

    pairs = pairs_of(cluster, family=family)
    answered = await asyncio.gather(*map(ask, pairs))
    return [pair for pair, is_answered in zip(pairs, answered, strict=True) if not is_answered]


async def pods_reach_each_other(cluster: Cluster) -> AsyncIterator[Row]:
    """Ping between all pairs of pods."""
    for family in cluster.topology.pod_versions:
        silent = await unanswered_pings(cluster, family=family)
        count = len(pairs_of(cluster, family=family))
        seen = f"{count - len(silent)} of {count} pairs answer"
        if silent:
            names = (f"{p.source.full_name} -> {p.target.full_name}" for p in silent)
            seen += f"; silent: {', '.join(names)}"
        yield Row(f"{PINGS}{_note(family)}", verdict(not silent), seen)


async def packets_are_encapsulated(cluster: Cluster) -> AsyncIterator[Row]:
    """Watch the underlay while a pod pings one on another node."""
    prediction = await cluster.prediction()
    pairs = [p for f in cluster.topology.pod_versions for p in pairs_of(cluster, family=f)]
    found: dict[TunnelKind, Pair] = {}
    for pair in pairs:
        kind = _tunnel_between(pair, prediction=prediction)
        if kind is not None:
            found.setdefault(kind, pair)
    if not found:
        yield Row(PROTOCOL_4, Verdict.SKIP, "no two pods have a tunnel between them here")
    for kind, pair in found.items():
        what = f"{VXLAN}{_note(kind.version)}" if kind.is_vxlan else PROTOCOL_4
        ends = _underlay_ends(pair, prediction=prediction, version=kind.version)
        if ends is not None:
            yield await _is_seen_outside(what, pair, protocol=_expression_of(kind), ends=ends)


def _expression_of(kind: TunnelKind) -> str:
    """Return what a packet filter takes a tunnel's packets by; the VNI is behind UDP's header."""
    if not kind.is_vxlan:
        return "ip proto 4"
    vni = "udp[12:4]" if kind.version == 4 else "ip6[52:4]"
    return f"udp dst port {PORT} and {vni} = {VNI << 8}"


def _tunnel_between(pair: Pair, *, prediction: Prediction) -> TunnelKind | None:
    return tunnel_to(prediction, node=pair.source.node, target=pair.address)


def _underlay_ends(
    pair: Pair, *, prediction: Prediction, version: int
) -> tuple[IPAddress, IPAddress] | None:
    nodes = (pair.source.node, pair.target.node)
    source, target = (prediction.inputs[node].own_interface(version) for node in nodes)
    return None if source is None or target is None else (source.ip, target.ip)


async def ipv6_packets_are_plain(cluster: Cluster) -> AsyncIterator[Row]:
    """Watch the underlay while a pod pings one on another node over IPv6."""
    if 6 not in cluster.topology.pod_versions:
        return
    pair = across_nodes(cluster, family=6)
    if pair is None:
        yield Row(PLAIN_IPV6, Verdict.SKIP, "no two pods with IPv6 are on different nodes")
        return
    if _tunnel_between(pair, prediction=await cluster.prediction()) is not None:
        return
    ends = pair.source_address, pair.address
    yield await _is_seen_outside(PLAIN_IPV6, pair, protocol="icmp6", ends=ends)


async def _is_seen_outside(
    what: str, pair: Pair, *, protocol: str, ends: tuple[IPAddress, IPAddress]
) -> Row:
    """Let a pod ping another, and look on the underlay for a packet with these outermost ends."""
    source, destination = ends
    expression = f"{protocol} and src {source} and dst {destination}"
    async with probes.sniffing(expression, count=1) as sniffed:
        await probes.answers(pod_place(pair.source.full_name), address=pair.address)
    flow = f"{source} > {destination}"
    found = next(
        (line for line in sniffed.lines if flow in line or f"> {destination}.{PORT}" in line), ""
    )
    return Row(what, verdict(bool(found)), " ".join(found.split()) or f"no packet {flow} seen")


class SeenSource(Protocol):
    """What asks a server whom it sees."""

    async def __call__(self, place: str, *, address: IPAddress) -> str:
        """Fetch a page from a place; return the address that the server saw."""
        ...


async def pods_see_the_right_source(
    cluster: Cluster, *, seen_source: SeenSource = probes.seen_source
) -> AsyncIterator[Row]:
    """Let every node ask the first pod of every other node; see who it takes it for."""
    prediction = await cluster.prediction()
    asked = [(pod, a) for pod in _first_pods(cluster) for a in cluster.addresses[pod.full_name]]
    for node in cluster.node_names:
        for pod, address in asked:
            expected = expected_source(prediction, node=node, target=address)
            if pod.node == node or expected is None:
                continue
            what = f"{node} asks {pod.full_name} on {pod.node}{_note(address.version)}"
            try:
                seen = await seen_source(node, address=address)
            except PycniError as exc:
                yield Row(what, Verdict.FAIL, str(exc))
                continue
            yield Row(what, verdict(ip_address(seen) == expected), f"it sees {seen}")


def _note(family: int) -> str:
    """Tell the row of IPv6 from that of IPv4."""
    return " (IPv6)" if family == 6 else ""


def _first_pods(cluster: Cluster) -> list[TopologyPod]:
    return list({pod.node: pod for pod in reversed(cluster.topology.pods)}.values())


async def full_packets_pass(cluster: Cluster) -> AsyncIterator[Row]:
    """Send packets of just the MTU, and one byte more, unfragmented between nodes."""
    prediction = await cluster.prediction()
    endpoints = [e for i in prediction.inputs.values() for e in i.endpoints.values()]
    sizes = {f"{e.pod_namespace}/{e.pod_name}": e.mtu for e in endpoints}
    for family in cluster.topology.pod_versions:
        pair = across_nodes(cluster, family=family)
        if pair is None:
            yield Row(f"{FULL_PACKETS}{_note(family)}", Verdict.SKIP, "all pods are on one node")
            continue
        mtu = min(sizes[pair.source.full_name], sizes[pair.target.full_name])
        async for row in _full_packets_of(pair, mtu=mtu):
            yield row


async def _full_packets_of(pair: Pair, *, mtu: int) -> AsyncIterator[Row]:
    """Try both sizes; in IPv6 nothing but the sender fragments, and it is told not to."""
    place, family = pod_place(pair.source.full_name), pair.address.version
    most = mtu - IP_AND_ICMP_HEADERS[family]
    means = "with DF" if family == 4 else "over IPv6"
    for payload, is_expected in ((most, True), (most + 1, False)):
        has_passed = await probes.passes_unfragmented(place, address=pair.address, payload=payload)
        what = f"{payload} bytes {means} {'pass' if is_expected else 'do not pass'}"
        seen = f"{'passed' if has_passed else 'did not pass'} (pods' MTU {mtu})"
        yield Row(what, verdict(has_passed is is_expected), seen)


async def pods_leave_by_their_nodes_address(cluster: Cluster) -> AsyncIterator[Row]:
    """Let a pod of every node ask a host outside, which must see the node."""
    if not cluster.topology.hosts:
        return
    host = cluster.topology.hosts[0]
    targets = {address.version: address.ip for address, _ in addresses_of(host)}
    prediction = await cluster.prediction()
    for pod in _first_pods(cluster):
        inputs = prediction.inputs[pod.node]
        for source in cluster.addresses[pod.full_name]:
            target, own = targets.get(source.version), inputs.own_interface(source.version)
            if target is not None and own is not None:
                means = "NAT" if source.version == 4 else "NAT, IPv6"
                what = f"{pod.full_name} asks {host.name} ({means})"
                pool = inputs.pool_of(host_prefix(source))
                if pool is None or not pool.nat_outgoing:
                    yield Row(what, Verdict.SKIP, f"no pool with natOutgoing holds {source}")
                else:
                    yield await _leaves(cluster, pod, target=target, own=own.ip, what=what)


async def _leaves(
    cluster: Cluster, pod: TopologyPod, *, target: IPAddress, own: IPAddress, what: str
) -> Row:
    try:
        status = await cluster.agents.ask(pod.node, "status")
        if degraded.is_degraded(status["nat"]):
            return Row(what, Verdict.SKIP, f"degraded: {degraded.LOSS}")
        seen = await probes.seen_source(pod_place(pod.full_name), address=target)
    except PycniError as exc:
        return Row(what, Verdict.FAIL, str(exc))
    is_right = ip_address(seen) == own
    whose = f", {pod.node}'s own address" if is_right else ""
    return Row(what, verdict(is_right), f"it sees {seen}{whose}")


async def exabgp_is_unprivileged(
    cluster: Cluster, *, proc: Path = Path("/proc")
) -> AsyncIterator[Row]:
    """Look whose process each node's ExaBGP is."""
    for node in cluster.node_names:
        what = f"{node}: ExaBGP has no root"
        try:
            user = _user_of((await cluster.agents.ask(node, "status"))["bgp_pid"], proc)
        except PycniError as exc:
            yield Row(what, Verdict.FAIL, str(exc))
            continue
        if not cluster.can_drop_privileges and user == "0":
            reason = "this interpreter lies where only root can reach it"
            yield Row(what, Verdict.SKIP, reason)
        else:
            yield Row(what, verdict(user == BGP_USER), f"it runs as user {user}")


def _user_of(pid: int | None, proc: Path) -> str:
    """Return whose process an ExaBGP is."""
    try:
        lines = (proc / str(pid) / "status").read_text(encoding="ascii").splitlines()
    except OSError as exc:
        raise TryAgain("no ExaBGP runs there: it ends, or is just being started") from exc
    return next(line.split()[1] for line in lines if line.startswith("Uid:"))


@dataclass(frozen=True, slots=True)
class Check:
    """A question of the test; the title names its row where it can't be asked to its end."""

    title: str
    ask: Callable[[Cluster], AsyncIterator[Row]]


CHECKS = (
    Check("ip route of all nodes", tables_are_predicted),
    Check("BGP sessions of all nodes", sessions_are_up),
    Check(PINGS, pods_reach_each_other),
    Check(PROTOCOL_4, packets_are_encapsulated),
    Check(PLAIN_IPV6, ipv6_packets_are_plain),
    Check("nodes ask pods", pods_see_the_right_source),
    Check(FULL_PACKETS, full_packets_pass),
    Check("pods ask outside (NAT)", pods_leave_by_their_nodes_address),
    Check("ExaBGP has no root", exabgp_is_unprivileged),
)


def title_width(cluster: Cluster) -> int:
    """Return how wide the longest row's title may become, so that columns can be set at once."""
    topology = cluster.topology
    note = max((_note(family) for family in topology.versions), key=len)
    outside = [f"asks {host.name} (NAT{note})" for host in topology.hosts]
    titles = [
        f"{asker} {question}"
        for pod in topology.pods
        for asker, question in (
            *((node, f"asks {pod.full_name} on {pod.node}{note}") for node in cluster.node_names),
            *((pod.full_name, question) for question in outside),
        )
    ]
    return max(map(len, [PROTOCOL_4, *titles]))


async def run_all(
    cluster: Cluster,
    *,
    show: Callable[[Row], Awaitable[None]],
    made: Sequence[Check] = CHECKS,
) -> bool:
    """Make all checks, showing each row at once; True: none failed."""
    is_right = True
    for check in made:
        try:
            async for row in check.ask(cluster):
                is_right &= row.verdict is not Verdict.FAIL
                await show(row)
        except (PycniError, OSError, TimeoutError) as exc:
            is_right = False
            await show(Row(check.title, Verdict.FAIL, str(exc) or type(exc).__name__))
    return is_right
