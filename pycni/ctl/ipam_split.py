"""`pycnictl ipam split`: cut a pool into smaller ones, while agents and requests go on.

All pools are written at once, the parts before the pool goes: whoever follows the changes one by
one never sees a block that lies in no pool.
"""

import argparse
import sys
from typing import Any

from pycni.ctl.output import add_output_argument, command, print_documents, print_table
from pycni.ctl.store import open_datastore
from pycni.ctl.usage import WrongUsage
from pycni.errors import AlreadyExists, Conflict, NotFound
from pycni.ipam.pools import holds
from pycni.ipam.retries import ATTEMPTS, Retries, gave_up
from pycni.ipam.splitting import MOST_PARTS, Split, is_count, plan_split
from pycni.model.network import IPNetwork
from pycni.model.resources import Block, IPPool
from pycni.ports import Creation, Datastore, Deletion, Write


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `ipam split` to a command line."""
    split = verbs.add_parser(
        "split",
        help="cut a pool into smaller ones",
        description="The parts, POOL-0 and so on, have the settings of the pool; blocks and"
        " addresses stay whose they are, and nothing has to stop meanwhile.",
        epilog="example: pycnictl ipam split pool 4 --dry-run",
    )
    split.add_argument("pool", help="the pool's name or CIDR")
    split.add_argument(
        "count", type=int, metavar="N", help=f"how many parts: 2, 4, 8 and so on to {MOST_PARTS}"
    )
    split.add_argument("--dry-run", action="store_true", help="show the parts, and write nothing")
    add_output_argument(split)
    split.set_defaults(func=command(_split))


async def _split(args: argparse.Namespace) -> int:
    if not is_count(args.count):
        raise WrongUsage(
            f"cannot split into {args.count}: use a power of two from 2 to {MOST_PARTS}"
        )
    if not args.pool:
        raise WrongUsage("the pool's name is empty")
    datastore = await open_datastore(args, is_read_only=args.dry_run)
    try:
        split = await split_pool(datastore, args.pool, args.count, is_dry_run=args.dry_run)
        blocks = [stored.value.cidr for stored in (await datastore.list(Block)).items]
    finally:
        await datastore.close()
    _show(split, blocks, args)
    return 0


async def split_pool(
    datastore: Datastore, text: str, count: int, *, is_dry_run: bool = False
) -> Split:
    """Split the pool of this name or CIDR; return what was done."""
    retries = Retries()
    for attempt in range(ATTEMPTS):
        await retries.pause(attempt)
        pools = (await datastore.list(IPPool)).items
        blocks = [stored.value.cidr for stored in (await datastore.list(Block)).items]
        split = plan_split(text, count, pools=[one.value for one in pools], blocks=blocks)
        if is_dry_run or split.pool is None:
            return split
        revision = next(one.revision for one in pools if one.value == split.pool)
        writes: list[Write] = [Creation(part) for part in split.missing]
        writes.append(Deletion(IPPool, split.pool.name, revision))
        try:
            await datastore.write(writes)
        except (AlreadyExists, Conflict, NotFound):
            continue  # somebody changed a pool meanwhile
        return split
    raise gave_up(f"split pool {text}")


def _show(split: Split, blocks: list[IPNetwork], args: argparse.Namespace) -> None:
    counts = [sum(holds(part.cidr, block) for block in blocks) for part in split.parts]
    if args.output != "table":
        print_documents([_document(split, counts, is_dry_run=args.dry_run)], form=args.output)
    else:
        rows = [
            (part.name, part.cidr, count) for part, count in zip(split.parts, counts, strict=True)
        ]
        print_table(("POOL", "CIDR", "BLOCKS"), rows)
    print(_outcome(split, is_dry_run=args.dry_run), file=sys.stderr)


def _document(split: Split, counts: list[int], *, is_dry_run: bool) -> dict[str, Any]:
    pool = split.pool
    return {
        "pool": None if pool is None else {"name": pool.name, "cidr": str(pool.cidr)},
        "dryRun": is_dry_run,
        "parts": [
            {"name": part.name, "cidr": str(part.cidr), "blocks": count}
            for part, count in zip(split.parts, counts, strict=True)
        ],
    }


def _outcome(split: Split, *, is_dry_run: bool) -> str:
    if split.pool is None:
        return "it was split before; nothing was changed"
    name, cidr = split.pool.name, split.pool.cidr
    if is_dry_run:
        return f"pool {name} would be split so; nothing was changed"
    return (
        f"pool {name} is split; network configurations that name it ({name} or {cidr} in ipv4_pools"
        " or ipv6_pools) have to name its parts"
    )
