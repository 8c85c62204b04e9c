"""What BIRD, FRR and GoBGP have learned from the nodes: prefixes, communities, next hops."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from cluster import NotYet

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
        said_of_it = _ask(cluster, router, ask.format(f" {prefix}"))
        try:
            path = json.loads(said_of_it)["paths"][0]
        except (ValueError, LookupError) as exc:  # it went between the two questions
            raise NotYet(f"of {prefix} FRR says {said_of_it!r}") from exc
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


def next_hops(cluster: Cluster, engine: str, router: Router) -> dict[str, str]:
    """Return the blocks that a router knows of others, of both IP versions, with next hops."""
    ask = {"bird": _bird_hops, "frr": _frr_hops, "gobgp": _gobgp_hops}[engine]
    found: dict[str, str] = {}
    for version in router.families:
        found |= ask(cluster, router, version)
    return {prefix: hop for prefix, hop in found.items() if prefix not in router.blocks}


def _bird_hops(cluster: Cluster, router: Router, version: int) -> dict[str, str]:
    text = _ask(cluster, router, f"birdc -s bird.ctl show route table master{version} all")
    found: dict[str, str] = {}
    prefix = ""
    for line in text.splitlines():
        if (first := line.partition(" ")[0]) and "/" in first:
            prefix = first
        elif "BGP.next_hop:" in line:
            # Of an IPv6 neighbour next door there may be a link-local one, too (RFC 2545).
            found[prefix] = line.split()[1]
    return found


def _frr_hops(cluster: Cluster, router: Router, version: int) -> dict[str, str]:
    ask = f"vtysh --vty_socket . -c 'show bgp ipv{version} unicast json'"
    routes: dict[str, Any] = json.loads(_ask(cluster, router, ask)).get("routes", {})
    found = {}
    for prefix, paths in routes.items():
        hops = [hop["ip"] for hop in paths[0]["nexthops"]]
        (found[prefix],) = [hop for hop in hops if not hop.startswith("fe80")]
    return found


def _gobgp_hops(cluster: Cluster, router: Router, version: int) -> dict[str, str]:
    text = _ask(cluster, router, f"gobgp -p 50051 global rib -a ipv{version} -j")
    rib: dict[str, Any] = json.loads(text)
    found = {}
    for prefix, paths in rib.items():
        (found[prefix],) = [a["nexthop"] for a in paths[0]["attrs"] if "nexthop" in a]
    return found
