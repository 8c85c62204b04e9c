"""`pycnictl bgp explain`: why a prefix is, or isn't, in each node's table."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

from pycni.ctl.agent import DEFAULT_RUN_DIR
from pycni.ctl.agentlink import ask
from pycni.ctl.output import add_output_argument, command, print_documents, print_table
from pycni.ctl.store import add_datastore_arguments, open_datastore, service_sources
from pycni.ctl.usage import WrongUsage
from pycni.errors import TryAgain
from pycni.ipam.pools import holds
from pycni.model.endpoints import (
    AssignedAddress,
    EndpointKey,
    EndpointState,
    WorkloadEndpoint,
)
from pycni.model.network import Address, IPNetwork
from pycni.model.prefix import network_order
from pycni.plan.inputs import Inputs, Settings
from pycni.topology.explain import UNDERLAY, Part, Standing, standings
from pycni.topology.explain_services import (
    Served,
    concerns_services,
    described,
    read_services,
    service_standings,
)
from pycni.topology.paper import Cluster, exchange, read_cluster

NAMED = 8


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `bgp explain` to a command line."""
    explain = verbs.add_parser(
        "explain",
        help="who announces a prefix to whom, and why a node has no route to it; all nodes",
        description="On paper, from the datastore's objects, by the agents' own functions; with an"
        " agent on this machine also what came and went here. Exits with 1 for what no node has.",
        epilog="example: pycnictl bgp explain 192.168.84.128/26",
    )
    explain.add_argument(
        "prefix", metavar="PREFIX", help="a block, or an address, also of a Service"
    )
    explain.add_argument(
        "--run-dir", type=Path, default=DEFAULT_RUN_DIR, help="the agent's run directory"
    )
    explain.add_argument(
        "--services-file",
        metavar="FILE",
        default="",
        help="Services and EndpointSlices where there is no cluster (that of this host's agent)",
    )
    add_datastore_arguments(explain)
    add_output_argument(explain)
    explain.set_defaults(func=command(_explain))


async def _explain(args: argparse.Namespace) -> int:
    asked = _network(args.prefix)
    datastore = await open_datastore(args, is_read_only=True)
    try:
        cluster = await read_cluster(datastore)
        if concerns_services(asked, cluster):
            served = await read_services(service_sources(args, datastore))
            return await _explain_service(args, asked, cluster, served)
    finally:
        await datastore.close()
    prefix = _known(asked, cluster)
    if prefix is None:
        print(f"{asked} {_unclaimed(asked, cluster)}", file=sys.stderr)
        return 1
    inputs = {name: _inputs(part, name) for name, part in cluster.about(prefix)}
    exchange(inputs)
    found = standings(prefix, inputs)
    await _show(args, prefix, _what(prefix, cluster), found)
    return 0


async def _explain_service(
    args: argparse.Namespace, asked: IPNetwork, cluster: Cluster, served: Served
) -> int:
    found = service_standings(asked, cluster, served)
    around = [cidr for cidr in cluster.service_ranges if holds(cidr, asked)]
    await _show(args, asked, described(asked, cluster, served), found, around=around)
    return 0 if any(one.part is Part.ANNOUNCES for one in found) else 1


async def _show(
    args: argparse.Namespace,
    prefix: IPNetwork,
    what: str,
    found: Sequence[Standing],
    *,
    around: Sequence[IPNetwork] = (),
) -> None:
    """Print all nodes' parts, and what the agent here says of the prefix and of those around it."""
    prefixes = {str(one) for one in (prefix, *around)}
    here = await asyncio.to_thread(_here, args.run_dir, prefixes)
    if args.output != "table":
        document = {"prefix": str(prefix), "nodes": [_document(one) for one in found], "here": here}
        print_documents([document], form=args.output)
        return
    print(f"{prefix} is {what}\n")
    print_table(("NODE", "PART", "WHY"), [(one.node, one.part.value, one.why) for one in found])
    print(f"\n{_told(here, str(prefix))}")


def _network(text: str) -> IPNetwork:
    try:
        return ip_network(text)
    except ValueError as exc:
        raise WrongUsage(f"{exc}: say a block such as 192.168.84.128/26, or an address") from exc


def _known(asked: IPNetwork, cluster: Cluster) -> IPNetwork | None:
    """Return the prefix of a node that was meant, None when none is."""
    known = {one.cidr for one in cluster.affinities} | set(cluster.borrowed)
    around = [prefix for prefix in known if holds(prefix, asked)]
    if around:
        return max(around, key=lambda prefix: prefix.prefixlen)
    inside = sorted((prefix for prefix in known if holds(asked, prefix)), key=network_order)
    if inside:
        names = ", ".join(map(str, inside[:NAMED])) + (", …" if len(inside) > NAMED else "")
        raise WrongUsage(f"{asked} holds {len(inside)} prefixes of nodes: name one of {names}")
    return None


def _unclaimed(asked: IPNetwork, cluster: Cluster) -> str:
    pool = next((pool for pool in cluster.pools if holds(pool.cidr, asked)), None)
    if pool is None:
        return "lies in no pool: no node announces or takes it"
    return f"lies in pool {pool.name} ({pool.cidr}), and no node has claimed a block of it"


def _inputs(cluster: Cluster, name: str) -> Inputs:
    inputs = cluster.inputs(Settings(node=name))
    ends = (inputs.own_interface(4), inputs.own_interface(6))
    inputs.addresses = {Address(UNDERLAY, end) for end in ends if end is not None}
    for prefix, holder in cluster.borrowed.items():
        if holder == name:
            endpoint = _borrower(prefix, name)
            inputs.set_endpoint(endpoint.key, endpoint)
    return inputs


def _borrower(prefix: IPNetwork, node: str) -> WorkloadEndpoint:
    """Return a pod with an address: whose it is, and how it is connected, plays no part here."""
    return WorkloadEndpoint(
        key=EndpointKey("", str(prefix), ""),
        node=node,
        netns="",
        host_veth=str(prefix),
        handle_id="",
        state=EndpointState.READY,
        addresses=(AssignedAddress(ip_interface(prefix.network_address)),),
        mtu=0,
    )


def _what(prefix: IPNetwork, cluster: Cluster) -> str:
    pool = next((pool for pool in cluster.pools if holds(pool.cidr, prefix)), None)
    where = "of no pool" if pool is None else f"of pool {pool.name} ({pool.cidr})"
    affinity = next((one for one in cluster.affinities if one.cidr == prefix), None)
    if affinity is not None:
        return f"a block {where}, {affinity.node}'s ({affinity.state.value})"
    return f"an address {where} that {cluster.borrowed[prefix]} borrows from another node's block"


def _document(one: Standing) -> dict[str, str]:
    return {"node": one.node, "part": one.part.name.lower(), "why": one.why}


# --- what is so -----------------------------------------------------------------------------------


def _here(run_dir: Path, prefixes: AbstractSet[str]) -> dict[str, Any] | None:
    """Return what this machine's agent has heard and says, None without one."""
    try:
        node = ask(run_dir, "status")["node"]
        answer = ask(run_dir, "bgp_routes")
        peers = ask(run_dir, "bgp_peers")["peers"]
    except TryAgain:
        return None
    return {
        "node": node,
        "learned": [row for row in answer["learned"] if row["prefix"] in prefixes],
        "announced": [row for row in answer["announced"] if row["prefix"] in prefixes],
        "down": [row for row in peers if row["state"] != "up"],
    }


def _told(here: dict[str, Any] | None, prefix: str) -> str:
    """Say what this machine's agent has heard and says."""
    if here is None:
        return "no agent runs on this machine: what comes and goes by BGP was not looked at"
    lines = [
        f"{_unless(prefix, row)}heard from {row['node'] or row['peer']}: {row['reason'] or 'used'}"
        for row in here["learned"]
    ]
    lines += [
        f"{_unless(prefix, row)}announced to {', '.join(row['to']) or 'nobody'}"
        for row in here["announced"]
    ]
    lines += [
        f"no session with {row['node'] or row['peer']}: {row['last_error'] or 'not yet'}"
        for row in here["down"]
    ]
    said = "\n".join(f"  {line}" for line in lines or ["heard from nobody, announced to nobody"])
    return f"as it is on {here['node']}:\n{said}"


def _unless(prefix: str, row: dict[str, Any]) -> str:
    """Return the prefix that a row is about, unless it is the one that was asked for."""
    return "" if row["prefix"] == prefix else f"{row['prefix']} "
