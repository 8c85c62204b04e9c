"""What BIRD, FRR and GoBGP have learned from the nodes: prefixes with their communities."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster import Cluster
    from routers import Router

Table = dict[str, set[str]]
_COMMUNITIES, _LARGE_COMMUNITIES = 8, 32  # types of attributes


def learned(cluster: Cluster, engine: str, router: Router) -> Table:
    """Return the blocks that a router knows by BGP, each with its communities."""
    return {"bird": _bird, "frr": _frr, "gobgp": _gobgp}[engine](cluster, router)


def _ask(cluster: Cluster, router: Router, command: str) -> str:
    return cluster.run(router.place, f"cd {router.directory} && {command}")


def _bird(cluster: Cluster, router: Router) -> Table:
    table: Table = {}
    prefix = ""
    for line in _ask(cluster, router, "birdc -s bird.ctl show route all").splitlines():
        if re.match(r"192\.168\.", line):
            prefix = line.split()[0]
            table[prefix] = set()
        elif "community:" in line:
            numbers = re.findall(r"\(([^)]*)\)", line)
            table[prefix] |= {one.replace(", ", ",").replace(",", ":") for one in numbers}
    return table


def _frr(cluster: Cluster, router: Router) -> Table:
    ask = "vtysh --vty_socket . -c 'show bgp ipv4 unicast{} json'"
    routes: dict[str, Any] = json.loads(_ask(cluster, router, ask.format("")))["routes"]
    table: Table = {}
    for prefix in routes:
        entry = json.loads(_ask(cluster, router, ask.format(f" {prefix}")))
        path = entry["paths"][0]
        said = [path.get(name, {}) for name in ("community", "largeCommunity")]
        table[prefix] = {one for kind in said for one in kind.get("string", "").split()}
    return table


def _gobgp(cluster: Cluster, router: Router) -> Table:
    rib: dict[str, Any] = json.loads(_ask(cluster, router, "gobgp -p 50051 global rib -j"))
    return {prefix: _tags(paths[0]["attrs"]) for prefix, paths in rib.items()}


def _tags(attributes: list[dict[str, Any]]) -> set[str]:
    tags = set()
    for one in attributes:
        if one["type"] == _COMMUNITIES:
            tags |= {f"{number >> 16}:{number & 0xFFFF}" for number in one["communities"]}
        elif one["type"] == _LARGE_COMMUNITIES:
            parts = ("ASN", "LocalData1", "LocalData2")
            tags |= {":".join(str(value[part]) for part in parts) for value in one["value"]}
    return tags
