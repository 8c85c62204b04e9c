"""`pycnictl node`: let this node leave the network for good, join it again, or be cleaned."""

import argparse
import asyncio
import os
import time
from pathlib import Path
from typing import Any

from pycni.agent.cleaning import clean
from pycni.config import DEFAULT_CONFIG, load_config
from pycni.ctl.agent import DEFAULT_RUN_DIR
from pycni.ctl.agentlink import ask, wish
from pycni.ctl.output import command, print_error, print_note
from pycni.ctl.usage import EXIT_FAILED
from pycni.errors import InvalidInput, TryAgain
from pycni.kernel.linux import LinuxKernel

LOOK_S = 0.2
TIMEOUT_S = 60.0


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the group to a command line."""
    group = subparsers.add_parser(
        "node",
        help="let this node leave the network for good, join it again, or be cleaned",
        description="Works on this host, as root.",
    )
    verbs = group.add_subparsers(dest="verb", required=True, metavar="VERB")
    leave = verbs.add_parser(
        "leave",
        help="withdraw all, then give back blocks, addresses and the node's object",
        description=(
            "Refused while pods are here. Peers hear of it first; then blocks, addresses and what"
            " the Node object says of this node are given back, and no pod gets an address here"
            " any more, until `pycnictl node join`. It can be repeated, and an agent that is"
            " started anew goes on with it."
        ),
        epilog="example: kubectl drain node-7 --ignore-daemonsets && pycnictl node leave",
    )
    leave.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT_S,
        metavar="S",
        help=f"how long to wait for the end (default: {TIMEOUT_S:g})",
    )
    leave.set_defaults(func=command(_leave))
    join = verbs.add_parser(
        "join",
        help="be a member again, after `leave` or in the midst of it",
        epilog="example: pycnictl node join",
    )
    join.set_defaults(func=command(_join))
    clean = verbs.add_parser(
        "clean",
        help="remove what an agent that is gone has left in the kernel",
        description=(
            "Routes of our protocol in our pools or by the tunnel, the tunnel with its address, our"
            " nftables table, and the network's configuration where the agent wrote it. What isn't"
            " ours stays, and so do pods. Refused while an agent runs: stop that first, after"
            " `pycnictl node leave`."
        ),
        epilog="example: systemctl disable --now pycni-agent && pycnictl node clean",
    )
    clean.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help="the agent's configuration (YAML)"
    )
    clean.set_defaults(func=command(_clean))
    for parser in (leave, join):
        parser.add_argument(
            "--run-dir", type=Path, default=DEFAULT_RUN_DIR, help="the agent's run directory"
        )


async def _leave(args: argparse.Namespace) -> int:
    end = time.monotonic() + args.timeout
    answer = await asyncio.to_thread(wish, args.run_dir, "leave")
    while answer["state"] != "left":
        if time.monotonic() > end or answer["state"] == "member":
            raise TryAgain(_not_yet(answer, args.timeout))
        await asyncio.sleep(LOOK_S)
        try:
            answer = await asyncio.to_thread(ask, args.run_dir, "membership")
        except TryAgain:  # an agent that is started anew goes on
            if time.monotonic() > end:
                raise
    for peer in answer["untold"]:
        print_note(
            f"{peer} could not be told, since its session is down: it drops this node's routes"
            " by itself, two minutes after the session was lost"
        )
    print(f"node {answer['node']} has left; its agent can be removed now")
    return 0


def _not_yet(answer: dict[str, Any], timeout_s: float) -> str:
    node = answer["node"]
    if answer["state"] == "member":
        return f"node {node} stays a member: somebody said `pycnictl node join` meanwhile"
    why = f": {answer['trouble']}" if answer["trouble"] else ""
    return (
        f"node {node} has not left within {timeout_s:g} s{why}; its agent goes on with it: see"
        " `pycnictl status`, say it again to wait, or take it back by `pycnictl node join`"
    )


async def _join(args: argparse.Namespace) -> int:
    answer = await asyncio.to_thread(wish, args.run_dir, "join")
    print(f"node {answer['node']} is a member")
    return 0


async def _clean(args: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise InvalidInput("only root may change routes: use sudo")
    kernel = LinuxKernel()
    try:
        cleaned = await clean(load_config(args.config), kernel)
    finally:
        kernel.close()
    for what in cleaned.removed:
        print(f"removed {what}")
    if cleaned.pods:
        print_note(
            f"pods are still here, and are cut off from other nodes: {', '.join(cleaned.pods)};"
            " have them deleted, and what is left of them goes with a reboot"
        )
    print_note(
        "net.ipv4.ip_forward and net.ipv6.conf.all.forwarding stay as they are: others may rely on"
        " them by now"
    )
    for text in cleaned.refused:
        print_error(text)
    return EXIT_FAILED if cleaned.refused else 0
