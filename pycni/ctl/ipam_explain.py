"""`pycnictl ipam explain`: everything that is known of one address, and the way to it from here."""

import argparse
import asyncio
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

from pycni.ctl.agentlink import ask
from pycni.ctl.ipam_reading import LocalAgent, add_run_dir_argument, address_argument, read
from pycni.ctl.output import add_output_argument, command, print_documents, print_table
from pycni.ctl.store import open_datastore
from pycni.errors import TryAgain
from pycni.ipam.books import Books, pod_of
from pycni.ipam.pools import holds
from pycni.ipam.requests import DatastoreView
from pycni.ipam.reserved import Reserved
from pycni.ipam.whereabouts import Whereabouts, advertised, locate, rests_until
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import IPPool, TunnelMode


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `ipam explain` to a command line."""
    explain = verbs.add_parser(
        "explain",
        help="who has an address, by which block and pool, and the way to it",
        description="With an agent on this machine: the route that leads there from here, too.",
        epilog="example: pycnictl ipam explain 192.168.39.193",
    )
    explain.add_argument("address", metavar="A.B.C.D", help="the address, IPv6 as well")
    add_run_dir_argument(explain)
    add_output_argument(explain)
    explain.set_defaults(func=command(_explain))


async def _explain(args: argparse.Namespace) -> int:
    address = address_argument(args.address)
    datastore = await open_datastore(args, is_read_only=True)
    try:
        reading = await read(datastore, args.run_dir)
        view = DatastoreView(datastore)
        reserved, cooldown_s = await view.reserved(), (await view.config()).cooldown_s
    finally:
        await datastore.close()
    where = locate(address, books=reading.books, reserved=reserved)
    document = _document(where, books=reading.books, reserved=reserved, cooldown_s=cooldown_s)
    document["route"] = await _route(address, reading.agent)
    if args.output != "table":
        print_documents([document], form=args.output)
        return 0
    print_table(("ITEM", "VALUE"), _rows(document))
    return 0


def _document(
    where: Whereabouts, *, books: Books, reserved: Reserved, cooldown_s: int
) -> dict[str, Any]:
    given, block, since = where.given, where.block, where.released_at
    attributes = {} if given is None else dict(given.attribute.secondary)
    return {
        "address": str(where.address),
        "standing": where.standing.value,
        "handle": None if given is None else given.attribute.handle_id,
        "pod": None if given is None else pod_of(given.attribute),
        "node": where.node,
        "since": attributes.get("timestamp"),
        "attributes": attributes,
        "sequenceNumber": None if given is None else given.sequence_number,
        "restsSince": since,
        "restsUntil": None if since is None else rests_until(since, cooldown_s=cooldown_s),
        "reserved": where.address in reserved,
        "block": None if block is None else {"cidr": str(block.cidr), "node": block.affinity},
        "borrowed": where.is_borrowed,
        "pool": None if where.pool is None else _pool_document(where.pool),
        "advertised": advertised(where, books=books),
    }


def _pool_document(pool: IPPool) -> dict[str, Any]:
    return {
        "name": pool.name,
        "cidr": str(pool.cidr),
        "ipipMode": pool.ipip_mode.value,
        "vxlanMode": pool.vxlan_mode.value,
        "natOutgoing": pool.nat_outgoing,
        "disabled": pool.is_disabled,
        "disableBGPExport": pool.disable_bgp_export,
    }


def _rows(document: dict[str, Any]) -> list[tuple[str, object]]:
    standing = document["standing"]
    if document["restsSince"]:
        standing = f"resting since {document['restsSince']} until {document['restsUntil']}"
    rows = [("address", document["address"]), ("standing", standing)]
    if document["handle"] is not None:
        rows += [(what, document[what]) for what in ("handle", "pod", "node", "since")]
        told = ("namespace", "pod", "node", "timestamp")
        others = [(k, v) for k, v in document["attributes"].items() if k not in told]
        rows += [("details", " ".join(f"{key}={value}" for key, value in others))]
    return [
        *rows,
        ("reserved", document["reserved"]),
        ("block", _block_text(document)),
        ("pool", _pool_text(document["pool"])),
        ("advertised", document["advertised"]),
        ("route from here", document["route"]),
    ]


def _block_text(document: dict[str, Any]) -> str:
    block = document["block"]
    if block is None:
        return "none"
    owner = f"of {block['node']}" if block["node"] else "without owner"
    return f"{block['cidr']} {owner}{', borrowed' if document['borrowed'] else ''}"


def _pool_text(pool: dict[str, Any] | None) -> str:
    if pool is None:
        return "none"
    modes = {"IP-in-IP": pool["ipipMode"], "VXLAN": pool["vxlanMode"]}
    tunnels = [f"{name} {mode}" for name, mode in modes.items() if mode != TunnelMode.NEVER.value]
    words = [
        f"{pool['name']} ({pool['cidr']})",
        " ".join(tunnels) or "not tunnelled",
        "NAT out" if pool["natOutgoing"] else "no NAT out",
    ]
    return ", ".join(words + (["disabled"] if pool["disabled"] else []))


# --- the way from here --------------------------------------------------------------------------


async def _route(address: IPAddress, agent: LocalAgent | None) -> str | None:
    """Return the route that leads to an address from this node; None where nobody knows."""
    if agent is None:
        return None
    try:
        answer = await asyncio.to_thread(ask, agent.run_dir, "routes")
    except TryAgain:
        return None
    line = _best(answer["wanted"], address)
    if line is None:
        return "none of ours: by what else the kernel has"
    if line in {conflict["wanted"] for conflict in answer["conflicts"]}:
        return f"{line} (wanted; somebody else's is there)"
    return f"{line} (wanted, and missing)" if line in answer["missing"] else line


def _best(lines: Iterable[str], address: IPAddress) -> str | None:
    """Return the line of `ip route` with the longest prefix that holds an address."""
    found: list[tuple[int, str]] = []
    for line in lines:
        dst = _destination(line, version=address.version)
        if dst is not None and holds(dst, address):
            found.append((dst.prefixlen, line))
    return max(found, default=(0, None))[1]


def _destination(line: str, *, version: int) -> IPNetwork | None:
    """Read the destination of a line, which a type such as blackhole may precede."""
    for word in line.split()[:2]:
        if word == "default":
            return ip_network("0.0.0.0/0" if version == 4 else "::/0")
        try:
            return ip_network(word)
        except ValueError:
            continue
    return None
