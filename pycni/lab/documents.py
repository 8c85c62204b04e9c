"""What `show` and `test` tell programs (`-o json|yaml`), as documents.  Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from pycni.lab.checks import Row
from pycni.lab.tables import Comparison
from pycni.model.network import IPAddress
from pycni.topology.model import Topology


def show_document(
    topology: Topology,
    *,
    comparisons: Sequence[Comparison],
    statuses: Mapping[str, Mapping[str, Any]],
    addresses: Mapping[str, IPAddress],
) -> dict[str, Any]:
    """Describe nodes and pods; `agent` is what `pycnictl status -o json` says, or None."""
    tables = {comparison.node: comparison for comparison in comparisons}
    return {
        "nodes": [
            {
                "node": node.name,
                "address": str(node.address),
                "routes": list(tables[node.name].actual),
                "predicted": list(tables[node.name].predicted),
                "as_predicted": tables[node.name].is_equal,
                "agent": statuses.get(node.name),
            }
            for node in topology.nodes
        ],
        "pods": [
            {
                "pod": pod.full_name,
                "node": pod.node,
                "interface": pod.interface,
                "address": str(addresses[pod.full_name]) if pod.full_name in addresses else None,
            }
            for pod in topology.pods
        ],
    }


def test_document(rows: Sequence[Row], *, is_right: bool) -> dict[str, Any]:
    """Describe the test's rows."""
    return {
        "all_well": is_right,
        "checks": [
            {"check": row.what, "verdict": row.verdict.value, "seen": row.seen} for row in rows
        ],
    }
