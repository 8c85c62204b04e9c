"""What `show` and `test` tell programs (`-o json|yaml`), as documents.  Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from pycni.lab.checks import Row
from pycni.lab.tables import Comparison
from pycni.model.network import IPAddress
from pycni.topology.model import Topology, TopologyNode


def show_document(
    topology: Topology,
    *,
    comparisons: Sequence[Comparison],
    statuses: Mapping[str, Mapping[str, Any]],
    addresses: Mapping[str, Sequence[IPAddress]],
) -> dict[str, Any]:
    """Describe nodes and pods; `agent` is what `pycnictl status -o json` says, or None.

    What is of IPv6 alone is there only where the cluster has IPv6.
    """
    tables = {(comparison.node, comparison.family): comparison for comparison in comparisons}
    return {
        "nodes": [
            {
                "node": node.name,
                "address": str(node.address),
                "routes": list(tables[node.name, 4].actual),
                "predicted": list(tables[node.name, 4].predicted),
                **_ipv6_of(node, table=tables.get((node.name, 6))),
                "as_predicted": all(c.is_equal for c in comparisons if c.node == node.name),
                "agent": statuses.get(node.name),
            }
            for node in topology.nodes
        ],
        "pods": [
            {
                "pod": pod.full_name,
                "node": pod.node,
                "interface": pod.interface,
                **_addresses_of(addresses.get(pod.full_name, ())),
            }
            for pod in topology.pods
        ],
    }


def _ipv6_of(node: TopologyNode, *, table: Comparison | None) -> dict[str, Any]:
    if table is None:
        return {}
    return {
        "address6": str(node.address6) if node.address6 is not None else None,
        "routes6": list(table.actual),
        "predicted6": list(table.predicted),
    }


def _addresses_of(addresses: Sequence[IPAddress]) -> dict[str, Any]:
    """Return a pod's first address, and the IPv6 one of a pod with both."""
    first, second = (*map(str, addresses), None, None)[:2]
    return {"address": first} | ({"address6": second} if second is not None else {})


def test_document(rows: Sequence[Row], *, is_right: bool) -> dict[str, Any]:
    """Describe the test's rows."""
    return {
        "all_well": is_right,
        "checks": [
            {"check": row.what, "verdict": row.verdict.value, "seen": row.seen} for row in rows
        ],
    }
