"""Draw a lab as text.  Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pycni.lab import degraded, tables
from pycni.lab.layout import ROUTER
from pycni.lab.underlay import UPLINK, uplinks_of
from pycni.model.network import IPAddress
from pycni.topology.model import UNDERLAY, Topology, addresses_of


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What an agent says of its node, as far as the picture shows it."""

    tunnels: Mapping[str, str] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()


def draw(
    topology: Topology,
    *,
    facts: Mapping[str, NodeFacts],
    addresses: Mapping[str, Sequence[IPAddress]],
) -> list[str]:
    """Return the picture's lines: the router, what hangs on it, and the pods on the nodes."""
    lines = [ROUTER]
    members = topology.members
    for number, member in enumerate(members):
        is_last = number == len(members) - 1
        lines.append("|")
        own = addresses_of(member)
        gateways = _listed(gateway for _, gateway in own)
        lines.append(
            f"+-- {gateways} ----- {UNDERLAY} {_listed(a for a, _ in own)}  [{member.name}]"
            f"{_facts_text(facts.get(member.name))}"
        )
        stem = "    " if is_last else "|   "
        lines += [f"{stem}  +-- {UPLINK} {uplink}" for uplink in uplinks_of(member)]
        for pod in topology.pods:
            if pod.node == member.name:
                has = _listed(addresses.get(pod.full_name, ())) or "?"
                lines.append(f"{stem}  +-- {pod.interface} ----- eth0 {has}  ({pod.full_name})")
    return lines


def _listed(things: Iterable[object]) -> str:
    return ", ".join(map(str, things))


def _facts_text(facts: NodeFacts | None) -> str:
    if facts is None:
        return ""
    tunnel = "".join(f"  {device} {address}" for device, address in facts.tunnels.items())
    blocks = f"  blocks {', '.join(facts.blocks)}" if facts.blocks else ""
    return tunnel + blocks


def status_lines(node: str, status: Mapping[str, Any]) -> list[str]:
    """Return what an agent says of itself, its problems and its sessions."""
    state = "converged" if status["converged"] else "NOT converged"
    nat = degraded.nat_word(str(status["nat"]))
    lines = [f"{node}: agent {state}, up for {status['uptime_s']} s, NAT {nat}"]
    lines += [f"  problem: {problem}" for problem in status["problems"]]
    rows = [
        [f"  BGP {p['peer']}", p["node"] or "-", p["state"], _paths_text(p), p["last_error"]]
        for p in status["peers"]
    ]
    return lines + tables.columns(rows)


def _paths_text(peer: Mapping[str, Any]) -> str:
    """Count a session's paths; stale ones are kept while the peer restarts (RFC 4724)."""
    paths, stale = peer["paths"], peer["stale"]
    return f"{paths} path{'' if paths == 1 else 's'}" + (f" ({stale} stale)" if stale else "")
