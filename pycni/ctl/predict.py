"""`pycnictl predict`: every node's routing table, before anything runs."""

import argparse
from typing import Any

from pycni.ctl.files import read_input, source_name
from pycni.ctl.output import add_output_argument, command, print_documents, print_table
from pycni.ctl.usage import WrongUsage
from pycni.model.network import MAIN_TABLE, NextHop, Route, Scope
from pycni.plan.iproute import PROTOCOL_NAMES, hop_order, route_lines, route_text
from pycni.topology.model import read_topology
from pycni.topology.predict import Prediction, predict

_HEADS = {4: "ip route", 6: "ip -6 route"}


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add predict to a command line."""
    parser = subparsers.add_parser(
        "predict",
        help="print each node's routing table, before anything runs",
        description="Needs no privileges: the agent's own functions, on paper.",
        epilog="example: pycnictl predict -f examples/exercise.yaml --node node-2",
    )
    parser.add_argument(
        "-f", "--filename", required=True, help="the topology (YAML); - reads stdin"
    )
    parser.add_argument("--node", help="one node only, without heading")
    families = parser.add_mutually_exclusive_group()
    for family, note in ((4, "`ip route`, all that --node prints"), (6, "`ip -6 route`")):
        families.add_argument(
            f"-{family}",
            dest="family",
            action="store_const",
            const=family,
            help=f"IPv{family} only: {note}",
        )
    add_output_argument(parser, plain="as `ip route` prints it")
    parser.set_defaults(func=command(_predict))


async def _predict(args: argparse.Namespace) -> int:
    source = source_name(args.filename)
    text = read_input(args.filename)
    topology = read_topology(text, source=source)
    names = [node.name for node in topology.nodes]
    if args.node is not None and args.node not in names:
        raise WrongUsage(f"there is no node {args.node!r} in {source}: {', '.join(names)}")
    prediction = await predict(topology)
    asked = names if args.node is None else [args.node]
    families = tuple(_HEADS) if args.family is None else (args.family,)
    if args.output is not None:
        rows = [
            _document(route, node=name)
            for name in asked
            for family in families
            for route in _routes(prediction, name, family=family)
        ]
        _print_rows(rows, form=args.output)
    elif args.node is not None:
        for line in prediction.lines(args.node, family=families[0]):
            print(line)
    else:
        tables = (
            "\n".join([f"{name}$ {_HEADS[family]}", *lines])
            for name in names
            for family in families
            if (lines := prediction.lines(name, family=family))
        )
        print("\n\n".join(tables))
    return 0


def _routes(prediction: Prediction, node: str, *, family: int) -> list[Route]:
    """Return a node's routes in the order in which `ip route` shows them."""
    places = {line: i for i, line in enumerate(prediction.lines(node, family=family))}
    routes = [
        route
        for key, routes in prediction.states[node].routes.items()
        if key.table == MAIN_TABLE and key.dst.version == family
        for route in routes
    ]
    return sorted(routes, key=lambda route: places[route_lines(route)[0]])


def _document(route: Route, *, node: str) -> dict[str, Any]:
    key = route.key
    return {
        "node": node,
        "dst": str(key.dst),
        "type": route.type.name.lower(),
        "table": key.table,
        "tos": key.tos,
        "priority": key.priority,
        "scope": Scope(route.scope).name.lower(),
        "protocol": PROTOCOL_NAMES.get(route.protocol, str(route.protocol)),
        "src": None if route.src is None else str(route.src),
        "mtu": route.mtu,
        "next_hops": [_hop_document(hop) for hop in hop_order(route.next_hops)],
        "text": route_text(route),
    }


def _hop_document(hop: NextHop) -> dict[str, Any]:
    return {
        "gateway": None if hop.gateway is None else str(hop.gateway),
        "dev": hop.oif,
        "onlink": hop.is_onlink,
        "weight": hop.weight,
    }


def _print_rows(rows: list[dict[str, Any]], *, form: str) -> None:
    if form != "table":
        print_documents([{"routes": rows}], form=form)
        return
    print_table(
        ("NODE", "DESTINATION", "TYPE", "VIA", "DEV", "PROTOCOL", "SCOPE", "SRC"),
        [
            (
                row["node"],
                row["dst"],
                row["type"],
                ", ".join(hop["gateway"] or "-" for hop in row["next_hops"]) or "-",
                ", ".join(hop["dev"] for hop in row["next_hops"]) or "-",
                row["protocol"],
                row["scope"],
                row["src"],
            )
            for row in rows
        ],
    )
