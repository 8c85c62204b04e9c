"""`pycnictl status` and `pycnictl routes`: what the agent of this node does, and why."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

from pycni.ctl.agentlink import ask
from pycni.ctl.output import add_output_argument, command, print_documents, print_table
from pycni.ctl.usage import EXIT_PROBLEMS
from pycni.model.tunnels import VXLAN_DEVICES

DEFAULT_RUN_DIR = Path("/run/pycni")


_UNKNOWN = "unknown: set node_address or ip_autodetection_method"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add status and routes to a command line."""
    status = subparsers.add_parser(
        "status",
        help="this node's agent: sessions, blocks, problems",
        description=f"Exits with {EXIT_PROBLEMS} when something is wrong, 1 without an agent.",
        epilog="example: pycnictl status -o json",
    )
    status.set_defaults(func=command(_status))
    routes = subparsers.add_parser(
        "routes",
        help="wanted and missing routes, why each learned path was or wasn't used, and what filters"
        " keep from peers",
        description=f"Exits with {EXIT_PROBLEMS} when a route is missing, 1 without an agent.",
        epilog="example: pycnictl routes",
    )
    routes.set_defaults(func=command(_routes))
    for parser in (status, routes):
        parser.add_argument(
            "--run-dir", type=Path, default=DEFAULT_RUN_DIR, help="the agent's run directory"
        )
        add_output_argument(parser)


async def _status(args: argparse.Namespace) -> int:
    answer = await asyncio.to_thread(ask, args.run_dir, "status")
    is_good = answer["converged"] and not answer["problems"]
    if args.output != "table":
        print_documents([answer], form=args.output)
        return 0 if is_good else EXIT_PROBLEMS
    print_table(("ITEM", "VALUE"), _summary(answer))
    for one in answer.get("autodetection", ()):
        _print_choice(one)
    if answer["peers"]:
        print()
        print_table(
            ("PEER", "NODE", "AS", "STATE", "PATHS", "STALE", "LAST ERROR"),
            [
                (p["peer"], p["node"] or "-", p["as"], p["state"], p["paths"], p["stale"],
                 p["last_error"] or "-")
                for p in answer["peers"]
            ],
        )  # fmt: skip
    for problem in answer["problems"]:
        print(f"\nproblem: {problem}")
    return 0 if is_good else EXIT_PROBLEMS


def _print_choice(one: dict[str, Any]) -> None:
    """Print what a method of autodetection found, and all that it passed over."""
    place = f" of {one['interface']}" if one["interface"] else ", which does not fit any more"
    found = f"{one['address']}{place}" if one["address"] else "nothing"
    print(f"\n{one['setting']} {one['method']}: {found}")
    if one["passed_over"]:
        print_table(("PASSED OVER", "ADDRESSES", "WHY"), map(_passed_over, one["passed_over"]))


def _passed_over(row: dict[str, Any]) -> tuple[str, str, str]:
    addresses = ", ".join(row["addresses"])
    return (row["interface"], f"{addresses}{f' and {n} more' if (n := row['more']) else ''}",
            row["reason"])  # fmt: skip


def _summary(answer: dict[str, Any]) -> list[tuple[str, object]]:
    drops = ", ".join(f"{name} {count}" for name, count in answer["drops"].items())
    return [
        ("node", answer["node"]),
        ("version", answer["version"]),
        ("up for", f"{answer['uptime_s']:.0f} s"),
        ("address", answer["address"] or _UNKNOWN),
        *([("IPv6 address", answer["address6"])] if "address6" in answer else []),
        ("tunnel address", answer["tunnel_address"] or "-"),
        *_vxlan_addresses(answer.get("tunnels", {})),
        ("converged", "yes" if answer["converged"] else "no"),
        ("blocks", ", ".join(answer["blocks"]) or "-"),
        ("endpoints", answer["endpoints"]),
        ("advertised", ", ".join(answer["advertised"]) or "-"),
        ("nftables", answer["nat"]),
        ("dropped", drops or "-"),
        ("kernel routes", answer["kernel_routes"]),
    ]


def _vxlan_addresses(tunnels: dict[str, str]) -> list[tuple[str, object]]:
    names = VXLAN_DEVICES.values()
    return [(name, tunnels[name]) for name in names if name in tunnels]


async def _routes(args: argparse.Namespace) -> int:
    answer = await asyncio.to_thread(ask, args.run_dir, "routes")
    if args.output != "table":
        print_documents([answer], form=args.output)
        return 0 if not answer["missing"] else EXIT_PROBLEMS
    missing = set(answer["missing"])
    foreign = {c["wanted"]: c["foreign"] for c in answer["conflicts"]}
    print_table(
        ("WANTED", "IN THE KERNEL"),
        [
            (
                line,
                f"no: somebody else's {foreign[line]}"
                if line in foreign
                else ("no" if line in missing else "yes"),
            )
            for line in answer["wanted"]
        ],
    )
    if answer["paths"]:
        print()
        print_table(
            ("LEARNED", "FROM", "NEXT HOP", "USED"),
            [(p["prefix"], p["peer"], p["next_hop"], p["used"]) for p in answer["paths"]],
        )
    if answer["withheld"]:
        print()
        print_table(
            ("OURS", "NOT ANNOUNCED TO", "BECAUSE"),
            [(one["prefix"], one["peer"], one["why"]) for one in answer["withheld"]],
        )
    return 0 if not missing else EXIT_PROBLEMS
