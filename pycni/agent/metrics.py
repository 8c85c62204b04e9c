"""Prometheus metrics, read from the agent's state when somebody asks."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pycni.ipam.retries import EVENTS

if TYPE_CHECKING:
    from pycni.agent.daemon import Agent

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)


class Metrics:
    """All metrics of one agent; docs/metrics.md describes them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "pycni_cni_requests",
            "CNI requests by verb and exit status.",
            ["verb", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "pycni_cni_seconds",
            "Time to serve a CNI request.",
            ["verb"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.ipam = Counter(
            "pycni_ipam_events",
            "What address management for this node's pods did, by event.",
            ["event"],
            registry=self._registry,
        )
        for event in EVENTS:  # a counter that is not there yet looks like one that is broken
            self.ipam.labels(event)
        self._gauges = {
            name: Gauge(f"pycni_{name}", text, registry=self._registry)
            for name, text in _GAUGES.items()
        }

    def count(self, verb: str, *, status: int, seconds: float) -> None:
        """Count one CNI request."""
        self.requests.labels(verb, str(status)).inc()
        self.seconds.labels(verb).observe(seconds)

    def count_ipam(self, event: str, number: int) -> None:
        """Count events of address management."""
        self.ipam.labels(event).inc(number)

    def render(self, agent: "Agent") -> bytes:
        """Return the text that Prometheus reads."""
        for name, value in _values(agent).items():
            self._gauges[name].set(value)
        return generate_latest(self._registry)


_GAUGES = {
    "ready": "1 when the kernel is as wanted and requests are served.",
    "problems": "How many things are wrong; `pycnictl status` names them.",
    "endpoints": "Pod interfaces of this node.",
    "blocks": "Address blocks of this node.",
    "bgp_peers_up": "Established BGP sessions.",
    "bgp_peers": "BGP sessions that are wanted.",
    "bgp_paths": "Paths learned.",
    "bgp_starts": "Starts of the BGP engine.",
    "bgp_lines_not_understood": "Lines of the BGP engine that could not be read.",
    "reconciler_passes": "Passes of the reconciler.",
    "reconciler_full_passes": "Passes over everything.",
    "reconciler_operations": "Operations sent to the kernel.",
    "reconciler_last_pass_seconds": "Duration of the last pass.",
    "cni_starts": "Starts of the CNI server's process.",
    "refused_connections": "Connections to the sockets that were refused.",
}


def _values(agent: "Agent") -> dict[str, float]:
    from pycni.agent.report import is_ready, problems
    from pycni.plan.peering import wanted_neighbours

    health, rib = agent.reconciler.health, agent.facts.rib
    return {
        "ready": float(is_ready(agent)),
        "problems": float(len(problems(agent))),
        "endpoints": float(len(agent.facts.inputs.endpoints)),
        "blocks": float(sum(1 for _ in agent.facts.inputs.own_blocks())),
        "bgp_peers_up": float(sum(p.is_up for p in rib.peers.values())),
        "bgp_peers": float(len(wanted_neighbours(agent.facts.inputs))),
        "bgp_paths": float(sum(len(p.paths) for p in rib.peers.values())),
        "bgp_starts": float(agent.speaker.counters.starts),
        "bgp_lines_not_understood": float(agent.speaker.counters.lines_not_understood),
        "reconciler_passes": float(health.passes),
        "reconciler_full_passes": float(health.full_passes),
        "reconciler_operations": float(health.operations),
        "reconciler_last_pass_seconds": health.last_pass_s,
        "cni_starts": float(agent.cni.starts),
        "refused_connections": float(agent.refused()),
    }
