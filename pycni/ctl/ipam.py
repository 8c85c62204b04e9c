"""`pycnictl ipam`: which blocks a node would try; the other verbs have modules of their own."""

import argparse
from ipaddress import ip_interface, ip_network
from itertools import islice

from pycni.ctl import (
    ipam_check,
    ipam_configure,
    ipam_explain,
    ipam_release,
    ipam_show,
    ipam_split,
)
from pycni.ctl.output import add_output_argument, command, print_documents, print_table
from pycni.ctl.store import add_datastore_arguments
from pycni.ctl.usage import WrongUsage
from pycni.errors import InvalidInput
from pycni.ipam.selection import candidates
from pycni.model.resources import DEFAULT_BLOCK_SIZE

_DEFAULT_COUNT = 10


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add all verbs of `ipam` to a command line."""
    ipam = subparsers.add_parser(
        "ipam", help="pools, blocks and addresses", epilog="example: pycnictl ipam show"
    )
    verbs = ipam.add_subparsers(dest="verb", required=True, metavar="VERB")
    for module in (ipam_show, ipam_explain, ipam_check, ipam_release, ipam_configure, ipam_split):
        module.register(verbs)
    for parser in verbs.choices.values():
        add_datastore_arguments(parser)

    order = verbs.add_parser(
        "candidates",
        help="the blocks that a node would try, in its order",
        description="Computed from the names alone: needs no datastore.",
        epilog="example: pycnictl ipam candidates node-0 --pool 192.168.0.0/16 -n 3",
    )
    order.add_argument("node", help="the node's name")
    order.add_argument("--pool", required=True, metavar="CIDR", help="the pool's range")
    order.add_argument("--block-size", type=int, metavar="N", help="default: 26, for IPv6 122")
    order.add_argument(
        "-n", "--count", type=int, default=_DEFAULT_COUNT, help="how many (default: %(default)s)"
    )
    add_output_argument(order, plain="one per line")
    order.set_defaults(func=command(_candidates))


async def _candidates(args: argparse.Namespace) -> int:
    if "/" not in args.pool:
        raise WrongUsage(f"--pool {args.pool}: add a prefix length, as in 192.168.0.0/16")
    try:
        pool = ip_network(args.pool, strict=False)
    except ValueError as exc:
        raise WrongUsage(f"--pool {args.pool}: {exc}") from exc
    if ip_interface(args.pool).ip != pool.network_address:
        raise WrongUsage(f"--pool {args.pool}: bits beyond the prefix length are set; write {pool}")
    if not args.node:
        raise WrongUsage("the node's name is empty")
    if args.count < 1:
        raise WrongUsage(f"-n {args.count}: must be 1 or more")
    size = DEFAULT_BLOCK_SIZE[pool.version] if args.block_size is None else args.block_size
    try:
        blocks = list(islice(candidates(pool, size, args.node), args.count))
    except InvalidInput as exc:
        raise WrongUsage(f"--block-size {size} in {pool}: {exc}") from exc
    if args.output is None:
        for block in blocks:
            print(block)
    elif args.output == "table":
        print_table(["ORDER", "BLOCK"], enumerate(blocks, start=1))
    else:
        document = {
            "node": args.node,
            "pool": str(pool),
            "blocks": [str(block) for block in blocks],
        }
        print_documents([document], form=args.output)
    return 0
