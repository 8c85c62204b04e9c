"""`pycnictl topology`: a picture of a cluster on paper."""

import argparse
from pathlib import Path

from pycni.ctl.files import read_input, source_name
from pycni.ctl.output import command
from pycni.topology.model import read_topology
from pycni.topology.picture import picture
from pycni.topology.predict import predict


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add topology to a command line."""
    parser = subparsers.add_parser(
        "topology",
        help="draw a cluster's BGP sessions and routes (SVG), before anything runs",
        description="Nodes by subnet with the routes that they will have, others' routers above"
        " them, and the sessions between all. Needs no privileges; a browser shows the picture, and"
        " what a session is where the mouse rests on it.",
        epilog="example: pycnictl topology -f examples/tor.yaml --output tor.svg",
    )
    parser.add_argument(
        "-f", "--filename", required=True, help="the topology (YAML); - reads stdin"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write it (standard output)"
    )
    parser.set_defaults(func=command(_topology))


async def _topology(args: argparse.Namespace) -> int:
    topology = read_topology(read_input(args.filename), source=source_name(args.filename))
    text = picture(topology, await predict(topology))
    if args.output is None:
        print(text, end="")
    else:
        args.output.write_text(text, encoding="utf-8")
    return 0
