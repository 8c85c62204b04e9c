"""`pycnictl ipam show`: how full pools and blocks are, and where each address went."""

import argparse
import time
from collections.abc import Iterable, Sequence
from typing import Any

from pycni.ctl.ipam_reading import address_argument
from pycni.ctl.output import add_output_argument, command, print_documents, print_error, print_table
from pycni.ctl.store import open_datastore
from pycni.ctl.usage import EXIT_FAILED
from pycni.ipam import block as arithmetic
from pycni.ipam.books import Books, awake, corruption_of, pod_of
from pycni.ipam.cooldown import Cooldown
from pycni.ipam.lookup import read_books
from pycni.ipam.pools import holds
from pycni.ipam.requests import DatastoreView
from pycni.ipam.reserved import Reserved
from pycni.ipam.whereabouts import Standing, Whereabouts, borrowed, locate, rests_until
from pycni.model.network import IPAddress
from pycni.model.prefix import network_order
from pycni.model.resources import Block, IPPool
from pycni.ports import Datastore

_HELD = {True: "in use", False: "not assigned"}


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `ipam show` to a command line."""
    show = verbs.add_parser(
        "show",
        help="how full pools and blocks are",
        description="The flags with two words are calicoctl's.",
        epilog="example: pycnictl ipam show --addresses",
    )
    what = show.add_mutually_exclusive_group()
    what.add_argument("--addresses", action="store_true", help="list each address and its holder")
    what.add_argument("--show-blocks", action="store_true", help="each pool with its blocks")
    what.add_argument(
        "--show-borrowed", action="store_true", help="addresses that lie in another node's block"
    )
    what.add_argument("--ip", metavar="A", help="whether one address is in use, and by whom")
    add_output_argument(show)
    show.set_defaults(func=command(_show))


async def _show(args: argparse.Namespace) -> int:
    address = None if args.ip is None else address_argument(args.ip)
    datastore = await open_datastore(args, is_read_only=True)
    try:
        books, reserved, cooldown_s = await _read(datastore)
    finally:
        await datastore.close()
    if address is not None:
        where = locate(address, books=books, reserved=reserved)
        _show_address(where, cooldown_s=cooldown_s, form=args.output)
        return 0
    blocks = sorted(books.sound_blocks, key=lambda block: network_order(block.cidr))
    if args.show_borrowed:
        _show_rows("borrowed", _borrowed_rows(blocks), _BORROWED, form=args.output)
    elif args.show_blocks:
        _show_rows("groups", _group_rows(books, blocks), _GROUPS, form=args.output)
    else:
        rows = list(_address_rows(blocks, cooldown_s)) if args.addresses else None
        _show_all(books.pools, blocks, addresses=rows, form=args.output)
    complaints = [sentence for block in books.blocks if (sentence := corruption_of(block))]
    for sentence in complaints:
        print_error(f"not shown: {sentence}")
    return EXIT_FAILED if complaints else 0


async def _read(datastore: Datastore) -> tuple[Books, Reserved, int]:
    view = DatastoreView(datastore)
    rested = await Cooldown(view, clock_ns=time.time_ns).rested()
    books = awake(await read_books(datastore), rested=rested)
    return books, await view.reserved(), (await view.config()).cooldown_s


def _show_rows(
    name: str, rows: Sequence[dict[str, Any]], headers: Sequence[str], *, form: str
) -> None:
    if form == "table":
        print_table(headers, [list(row.values()) for row in rows])
    else:
        print_documents([{name: list(rows)}], form=form)


# --- pools, blocks, addresses -------------------------------------------------------------------


def _show_all(
    pools: Sequence[IPPool],
    blocks: Sequence[Block],
    *,
    addresses: Sequence[dict[str, Any]] | None,
    form: str,
) -> None:
    summary = [_pool_summary(pool, blocks) for pool in pools]
    details = [_block_summary(block) for block in blocks]
    if form != "table":
        document = {"pools": summary, "blocks": details}
        if addresses is not None:
            document["addresses"] = list(addresses)
        print_documents([document], form=form)
        return
    print_table(
        ["POOL", "CIDR", "ADDRESSES", "USED", "BLOCKS", "OF"],
        [list(row.values()) for row in summary],
    )
    print()
    print_table(
        ["BLOCK", "NODE", "USED", "RESTING", "FREE"], [list(row.values()) for row in details]
    )
    if addresses is not None:
        print()
        print_table(["ADDRESS", "HANDLE", "DETAILS"], [list(row.values())[:3] for row in addresses])


def _pool_summary(pool: IPPool, blocks: Iterable[Block]) -> dict[str, Any]:
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
    return {
        "cidr": str(block.cidr),
        "node": block.affinity,
        "used": len(arithmetic.given(block)),
        "resting": arithmetic.resting_count(block),
        "free": arithmetic.free_count(block),
    }


def _address_rows(blocks: Iterable[Block], cooldown_s: int) -> Iterable[dict[str, Any]]:
    for block in blocks:
        rows = {one.address: _held_row(one) for one in arithmetic.given(block)}
        rows |= {
            address: _resting_row(address, since, cooldown_s)
            for address, since in arithmetic.resting(block)
        }
        yield from (rows[address] for address in sorted(rows, key=int))


def _held_row(one: arithmetic.Given) -> dict[str, Any]:
    return {
        "address": str(one.address),
        "handle": one.attribute.handle_id,
        "details": " ".join(f"{key}={value}" for key, value in one.attribute.secondary),
        "restsSince": None,
        "restsUntil": None,
    }


def _resting_row(address: IPAddress, since: str, cooldown_s: int) -> dict[str, Any]:
    until = rests_until(since, cooldown_s=cooldown_s)
    return {
        "address": str(address),
        "handle": None,
        "details": f"resting since {since} until {until}",
        "restsSince": since,
        "restsUntil": until,
    }


# --- calicoctl's tables -------------------------------------------------------------------------

_GROUPS = ("GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE", "IPS RESTING")
_BORROWED = ("IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO")


def _group_rows(books: Books, blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Return each pool, followed by its blocks; blocks in no pool come last."""
    rows = []
    left = list(blocks)
    for pool in books.pools:
        inside = [block for block in blocks if holds(pool.cidr, block.cidr)]
        left = [block for block in left if block not in inside]
        rows.append(_group("IP Pool", str(pool.cidr), pool.cidr.num_addresses, inside))
        rows += [_block_group(block) for block in inside]
    return rows + [_block_group(block) for block in left]


def _block_group(block: Block) -> dict[str, Any]:
    return _group("Block", str(block.cidr), block.cidr.num_addresses, [block])


def _group(grouping: str, cidr: str, total: int, blocks: Sequence[Block]) -> dict[str, Any]:
    used = sum(len(arithmetic.given(block)) for block in blocks)
    resting = sum(map(arithmetic.resting_count, blocks))
    return {
        "grouping": grouping,
        "cidr": cidr,
        "total": total,
        "inUse": used,
        "free": total - used - resting,
        "resting": resting,
    }


def _borrowed_rows(blocks: Iterable[Block]) -> list[dict[str, Any]]:
    rows = []
    for block, one in borrowed(blocks):
        said = dict(one.attribute.secondary)
        rows.append(
            {
                "address": str(one.address),
                "node": said["node"],
                "block": str(block.cidr),
                "owner": block.affinity,
                "type": said.get("type", "pod"),
                "allocatedTo": pod_of(one.attribute) or one.attribute.handle_id,
            }
        )
    return rows


def _show_address(where: Whereabouts, *, cooldown_s: int, form: str) -> None:
    """Print an address as calicoctl does; the sentence comes first."""
    since = where.released_at
    until = None if since is None else rests_until(since, cooldown_s=cooldown_s)
    attributes = {} if where.given is None else dict(where.given.attribute.secondary)
    if form != "table":
        document = {
            "address": str(where.address),
            "standing": where.standing.value,
            "handle": None if where.given is None else where.given.attribute.handle_id,
            "attributes": attributes,
            "restsSince": since,
            "restsUntil": until,
        }
        print_documents([document], form=form)
        return
    said = _HELD[where.standing is Standing.HELD]
    if where.standing is Standing.RESTING:
        said = f"resting since {since} until {until}"
    elif where.standing is Standing.RESERVED:
        said = "not assigned, and reserved"
    elif where.standing is Standing.UNKNOWN and where.block is not None:
        said = f"in block {where.block.cidr}, which is corrupt: see  pycnictl ipam check"
    print(f"IP {where.address} is {said}")
    if where.given is not None:
        print("Attributes:")
        for key, value in {"handle": where.given.attribute.handle_id, **attributes}.items():
            print(f"  {key}: {value}")
