"""Draw a lab as text.  Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pycni.lab.layout import ROUTER
from pycni.lab.underlay import members_of
from pycni.model.network import IPAddress
from pycni.topology.model import UNDERLAY, Topology, addresses_of


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What an agent says of its node, as far as the picture shows it."""

    tunnel_address: str | None = None
    blocks: tuple[str, ...] = ()


def draw(
    topology: Topology,
    *,
    facts: Mapping[str, NodeFacts],
    addresses: Mapping[str, Sequence[IPAddress]],
) -> list[str]:
    """Return the picture's lines: the router, what hangs on it, and the pods on the nodes."""
    lines = [ROUTER]
    members = members_of(topology)
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
    tunnel = f"  tunl0 {facts.tunnel_address}" if facts.tunnel_address else ""
    blocks = f"  blocks {', '.join(facts.blocks)}" if facts.blocks else ""
    return tunnel + blocks
