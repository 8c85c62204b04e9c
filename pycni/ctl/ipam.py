"""`pycnictl ipam`: where addresses went, and which blocks a node would try."""

import argparse
from ipaddress import ip_network
from itertools import islice
from typing import Any

from pycni.ctl.output import (
    add_output_argument,
    command,
    open_datastore,
    print_documents,
    print_table,
)
from pycni.ctl.usage import WrongUsage
from pycni.errors import InvalidInput
from pycni.ipam import block as arithmetic
from pycni.ipam.pools import holds
from pycni.ipam.selection import candidates
from pycni.model.resources import DEFAULT_BLOCK_SIZE, Block, IPPool

_DEFAULT_COUNT = 10


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `ipam show` and `ipam candidates` to a command line."""
    ipam = subparsers.add_parser(
        "ipam", help="pools, blocks and addresses", epilog="example: pycnictl ipam show"
    )
    verbs = ipam.add_subparsers(dest="verb", required=True, metavar="VERB")
    show = verbs.add_parser(
        "show",
        help="how full pools and blocks are",
        epilog="example: pycnictl ipam show --addresses",
    )
    show.add_argument("--addresses", action="store_true", help="list each address and its holder")
    add_output_argument(show)
    show.set_defaults(func=command(_show))

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
        pool = ip_network(args.pool)
    except ValueError as exc:
        raise WrongUsage(f"--pool {args.pool}: {exc}") from exc
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


async def _show(args: argparse.Namespace) -> int:
    datastore = await open_datastore(args, is_read_only=True)
    try:
        pools = [stored.value for stored in (await datastore.list(IPPool)).items]
        blocks = [stored.value for stored in (await datastore.list(Block)).items]
    finally:
        await datastore.close()
    blocks.sort(key=lambda block: (block.cidr.version, block.cidr.network_address.packed))
    summary = [_pool_summary(pool, blocks) for pool in pools]
    details = [_block_summary(block) for block in blocks]
    if args.output != "table":
        document = {"pools": summary, "blocks": details}
        if args.addresses:
            document["addresses"] = [row for block in blocks for row in _addresses(block)]
        print_documents([document], form=args.output)
        return 0
    print_table(
        ["POOL", "CIDR", "ADDRESSES", "USED", "BLOCKS", "OF"],
        [list(row.values()) for row in summary],
    )
    print()
    print_table(["BLOCK", "NODE", "USED", "FREE"], [list(row.values()) for row in details])
    if args.addresses:
        print()
        rows = [list(row.values()) for block in blocks for row in _addresses(block)]
        print_table(["ADDRESS", "HANDLE", "DETAILS"], rows)
    return 0


def _pool_summary(pool: IPPool, blocks: list[Block]) -> dict[str, Any]:
    inside = [block for block in blocks if holds(pool.cidr, block.cidr)]
    return {
        "name": pool.name,
        "cidr": str(pool.cidr),
        "addresses": pool.cidr.num_addresses,
        "used": sum(len(arithmetic.given(block)) for block in inside),
        "blocks": len(inside),
        "blocksAtMost": 1 << pool.block_size - pool.cidr.prefixlen,
    }


def _block_summary(block: Block) -> dict[str, Any]:
    free = arithmetic.free_count(block)
    return {
        "cidr": str(block.cidr),
        "node": block.affinity,
        "used": len(block.allocations) - free,
        "free": free,
    }


def _addresses(block: Block) -> list[dict[str, Any]]:
    return [
        {
            "address": str(one.address),
            "handle": one.attribute.handle_id,
            "details": " ".join(f"{key}={value}" for key, value in one.attribute.secondary),
        }
        for one in arithmetic.given(block)
    ]
