"""`pycnictl bgp`: this node's sessions, what comes in and goes out by them, and as it happens."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

from pycni.ctl import bgp_explain
from pycni.ctl.agent import DEFAULT_RUN_DIR
from pycni.ctl.agentlink import ask
from pycni.ctl.output import add_output_argument, command, print_documents, print_table
from pycni.ctl.usage import EXIT_PROBLEMS, WrongUsage
from pycni.errors import TryAgain

POLL_S = 0.5
SHOWN_AT_FIRST = 10
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add bgp to a command line."""
    group = subparsers.add_parser(
        "bgp",
        help="this node's BGP: sessions, routes in and out, what happens",
        epilog="example: pycnictl bgp peers",
    )
    verbs = group.add_subparsers(dest="verb", required=True, metavar="VERB")
    peers = verbs.add_parser(
        "peers",
        help="sessions: since when, prefixes in and out, the last error in words",
        description=f"Exits with {EXIT_PROBLEMS} when a session is down, 1 without an agent.",
        epilog="example: pycnictl bgp peers",
    )
    peers.set_defaults(func=command(_peers))
    routes = verbs.add_parser(
        "routes",
        help="all paths that peers announce, and what is announced to whom; each with its reason",
        description="What lies in PREFIX, or around it, alone. Exits with 1 where there is none.",
        epilog="example: pycnictl bgp routes 192.168.84.128/26",
    )
    routes.add_argument("prefix", nargs="?", metavar="PREFIX", help="an address or a prefix")
    routes.set_defaults(func=command(_routes))
    watch = verbs.add_parser(
        "watch",
        help="what happens in BGP, as it happens; Ctrl-C ends it",
        description=f"The last {SHOWN_AT_FIRST} things first.",
        epilog="example: pycnictl bgp watch --seconds 60",
    )
    watch.add_argument("--seconds", type=_seconds, metavar="S", help="end after so many seconds")
    watch.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="json: a line for each"
    )
    watch.set_defaults(func=command(_watch))
    bgp_explain.register(verbs)
    for parser in (peers, routes):
        add_output_argument(parser)
    for parser in (peers, routes, watch):
        parser.add_argument(
            "--run-dir", type=Path, default=DEFAULT_RUN_DIR, help="the agent's run directory"
        )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _DAY:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds up to a day")
    return seconds


async def _peers(args: argparse.Namespace) -> int:
    answer = await asyncio.to_thread(ask, args.run_dir, "bgp_peers")
    rows = answer["peers"]
    if args.output != "table":
        print_documents([answer], form=args.output)
    else:
        print_table(
            ("PEER", "NODE", "BY", "AS", "STATE", "SINCE", "IN", "USED", "OUT", "LAST ERROR"),
            [
                (p["peer"], p["node"], p["by"], p["as"], _state(p), _duration(p["since_s"]),
                 p["received"], p["used"], p["announced"], p["last_error"] or None)
                for p in rows
            ],
        )  # fmt: skip
    return 0 if all(p["state"] == "up" for p in rows) else EXIT_PROBLEMS


def _state(row: dict[str, Any]) -> str:
    return f"{row['state']}, {row['stale']} stale" if row["stale"] else str(row["state"])


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{seconds:.0f} s"


async def _routes(args: argparse.Namespace) -> int:
    wanted = _prefix(args.prefix)
    answer = await asyncio.to_thread(ask, args.run_dir, "bgp_routes")
    found = {
        name: [row for row in answer[name] if wanted is None or _touches(row["prefix"], wanted)]
        for name in ("learned", "announced")
    }
    if args.output != "table":
        print_documents([found], form=args.output)
    else:
        _print_routes(found)
    if wanted is not None and not any(found.values()):
        print(f"no peer announces {wanted}, and this node announces it to none", file=sys.stderr)
        return 1
    return 0


def _prefix(text: str | None) -> IPv4Network | IPv6Network | None:
    try:
        return None if text is None else ip_network(text, strict=False)
    except ValueError as exc:
        raise WrongUsage(f"{exc}: say an address or a prefix such as 192.168.84.128/26") from exc


def _touches(text: str, wanted: IPv4Network | IPv6Network) -> bool:
    return ip_network(text).overlaps(wanted)


def _print_routes(found: dict[str, list[dict[str, Any]]]) -> None:
    print_table(
        ("LEARNED", "FROM", "NEXT HOP", "AS PATH", "USED"),
        [
            (row["prefix"], _who(row), row["next_hop"], _numbers(row["as_path"]),
             (row["reason"] or "yes") + (", stale" if row["is_stale"] else ""))
            for row in found["learned"]
        ],
    )  # fmt: skip
    print()
    print_table(
        ("ANNOUNCED", "NEXT HOP", "COMMUNITIES", "TO", "NOT TO, BECAUSE", "FOR"),
        [
            (row["prefix"], row["next_hop"], " ".join(row["communities"]) or None,
             ", ".join(row["to"]) or None,
             "; ".join(f"{one['peer']}: {one['why']}" for one in row["withheld"]) or None,
             row["for"] or None)
            for row in found["announced"]
        ],
    )  # fmt: skip


def _who(row: dict[str, Any]) -> str:
    return f"{row['peer']} ({row['node']})" if row["node"] else str(row["peer"])


def _numbers(as_path: list[int]) -> str | None:
    return " ".join(map(str, as_path)) or None


async def _watch(args: argparse.Namespace) -> int:
    end = time.monotonic() + args.seconds if args.seconds else None
    life: object = None
    seen, is_away = 0, False
    while True:
        try:
            answer = await asyncio.to_thread(ask, args.run_dir, "bgp_news")
        except TryAgain as exc:
            if life is None:
                raise
            if not is_away:
                print(f"{exc}; waiting for it", file=sys.stderr, flush=True)
            is_away = True
        else:
            items, is_away = answer["items"], False
            if life is None:
                items = items[-SHOWN_AT_FIRST:]
                seen = items[0]["number"] - 1 if items else 0
            elif life != answer["life"]:
                seen = 0
            for line in _lines(items, after=seen, form=args.output):
                print(line, flush=True)
            life, seen = answer["life"], items[-1]["number"] if items else 0
        if end is not None and time.monotonic() + POLL_S > end:
            return 0
        await asyncio.sleep(POLL_S)


def _lines(items: list[dict[str, Any]], *, after: int, form: str) -> Iterator[str]:
    new = [item for item in items if item["number"] > after]
    if new and (lost := new[0]["number"] - after - 1):
        yield json.dumps({"left_out": lost}) if form == "json" else f"({lost} more came too fast)"
    for item in map(_timed, new):
        yield json.dumps(item) if form == "json" else _line(item)


def _timed(item: dict[str, Any]) -> dict[str, Any]:
    at = datetime.fromtimestamp(time.time() - item["age_s"]).astimezone()
    return {"at": at.isoformat(timespec="milliseconds")} | item


def _line(item: dict[str, Any]) -> str:
    clock = item["at"][11:23]
    return f"{clock}  {_who(item)} {item['what']}" if item["peer"] else f"{clock}  {item['what']}"
