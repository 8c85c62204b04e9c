"""`pycnictl check`: what of this machine, its network or its cluster gets in pods' way."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pycni.check.findings import Report, report_document
from pycni.check.probes import rp_filters
from pycni.check.survey import DEFAULT_NET_DIR, RESOLV_CONF, Place, place_of, survey, survey_ways
from pycni.cni.defaults import named_node
from pycni.config import DEFAULT_CONFIG, AgentConfig, load_config
from pycni.ctl.output import add_output_argument, command, print_documents
from pycni.ctl.store import open_datastore
from pycni.ctl.usage import EXIT_FAILED, EXIT_PROBLEMS, WrongUsage
from pycni.datastore.opening import cluster_of
from pycni.errors import InvalidInput, PycniError
from pycni.kernel.linux import LinuxKernel
from pycni.model.resources import IPPool, Node
from pycni.ports import Datastore


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add check to a command line."""
    check = subparsers.add_parser(
        "check",
        help="this machine and its ways to other nodes: firewall, MTU, clock, leftovers",
        description="Looks, and changes nothing; each finding names the command that mends it."
        f" Exits with {EXIT_PROBLEMS} when something is found, {EXIT_FAILED} when something could"
        " not be looked at. Needs root, and no agent; see docs/check.md.",
        epilog="example: sudo pycnictl check",
    )
    check.add_argument(
        "--all",
        action="store_true",
        help="what the agents of all nodes have found lately (in Kubernetes; needs no root)",
    )
    check.add_argument("--node", default="", help="this node's name (default: as its agent's)")
    check.add_argument(
        "--net-dir", type=Path, default=None, help=f"network configurations ({DEFAULT_NET_DIR})"
    )
    check.add_argument(
        "--resolv-conf", type=Path, default=None, help=f"the node's resolver ({RESOLV_CONF})"
    )
    add_output_argument(check)
    check.set_defaults(func=command(_check))


async def _check(args: argparse.Namespace) -> int:
    if not args.all and os.geteuid() != 0:
        raise InvalidInput("only root may look at a firewall: use sudo")
    datastore = await open_datastore(args, is_read_only=True)
    try:
        reports = await (_of_all(datastore) if args.all else _of_this(args, datastore))
    finally:
        await datastore.close()
    return show(reports, form=args.output)


async def _of_all(datastore: Datastore) -> Mapping[str, Report]:
    cluster = cluster_of(datastore)
    if cluster is None:
        raise WrongUsage(
            "--all reads what agents have written to a cluster: run `pycnictl check` on each node"
        )
    return await cluster.reports()


async def _of_this(args: argparse.Namespace, datastore: Datastore) -> Mapping[str, Report]:
    place = _place(args, load_config(DEFAULT_CONFIG))
    kernel = LinuxKernel()
    try:
        state = await kernel.snapshot(rp_filters(place.tunnel))
    finally:
        kernel.close()
    report = await survey(place, kernel=state, cluster=cluster_of(datastore))
    try:
        pools = [one.value for one in (await datastore.list(IPPool)).items]
        nodes = [one.value for one in (await datastore.list(Node)).items]
    except PycniError as exc:
        report += Report(unchecked=(f"forward-policy, ways to other nodes: {exc}",))
    else:
        report += await survey_ways(place, kernel=state, pools=pools, nodes=nodes)
    return {place.node: report}


def _place(args: argparse.Namespace, config: AgentConfig) -> Place:
    place = place_of(config, node=args.node or named_node(config.node))
    return replace(
        place,
        net_dir=args.net_dir or place.net_dir,
        resolv_conf=args.resolv_conf or place.resolv_conf,
    )


def show(reports: Mapping[str, Report], *, form: str) -> int:
    """Print reports; return the exit status that they mean."""
    if form == "table":
        _print(reports)
    else:
        document: dict[str, Any] = {
            "nodes": [{"node": node} | report_document(one) for node, one in reports.items()]
        }
        print_documents([document], form=form)
    if any(one.findings for one in reports.values()):
        return EXIT_PROBLEMS
    return EXIT_FAILED if any(one.unchecked for one in reports.values()) else 0


def _print(reports: Mapping[str, Report]) -> None:
    for node, report in reports.items():
        for one in report.findings:
            print(f"{one.severity.value}: {node}: {one.what} [{one.check}]")
            print(f"    why:  {one.why}")
            print(f"    mend: {one.repair}\n")
        for sentence in report.unchecked:
            print(f"not checked: {node}: {sentence}")
    count = sum(len(one.findings) for one in reports.values())
    print(f"findings: {count} (nodes: {', '.join(reports) or 'none'})")
