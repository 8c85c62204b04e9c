"""`pycnictl predict`: every node's routing table, before anything runs."""

import argparse
from pathlib import Path

from pycni.ctl.output import command
from pycni.ctl.usage import WrongUsage
from pycni.topology.model import load_topology
from pycni.topology.predict import predict


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add predict to a command line."""
    parser = subparsers.add_parser(
        "predict",
        help="print each node's routing table, before anything runs",
        description="Needs no privileges: the agent's own functions, on paper.",
        epilog="example: pycnictl predict -f examples/exercise.yaml --node node-2",
    )
    parser.add_argument("-f", "--filename", type=Path, required=True, help="the topology (YAML)")
    parser.add_argument("--node", help="one node only, without heading")
    parser.set_defaults(func=command(_predict))


async def _predict(args: argparse.Namespace) -> int:
    topology = load_topology(args.filename)
    names = [node.name for node in topology.nodes]
    if args.node is not None and args.node not in names:
        raise WrongUsage(f"there is no node {args.node!r} in {args.filename}: {', '.join(names)}")
    prediction = await predict(topology)
    if args.node is not None:
        print("\n".join(prediction.lines(args.node)))
        return 0
    for i, name in enumerate(names):
        print(f"{'' if i == 0 else chr(10)}{name}$ ip route")
        print("\n".join(prediction.lines(name)))
    return 0
