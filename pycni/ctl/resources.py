"""`pycnictl get`, `apply` and `delete`: objects of the datastore, as people write and read them.

The rules of what may be written are in `pycni.model`; nothing is decided here.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from pycni.ctl.files import read_input, source_name
from pycni.ctl.output import add_output_argument, command, list_of, print_documents, print_table
from pycni.ctl.store import add_datastore_arguments, open_datastore
from pycni.ctl.usage import WrongUsage
from pycni.datastore.opening import cluster_of
from pycni.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from pycni.ipam import block as arithmetic
from pycni.ipam.books import corruption_of
from pycni.ipam.cooldown import Cooldown
from pycni.ipam.mending import Mending
from pycni.ipam.pools import holds
from pycni.ipam.requests import DatastoreView
from pycni.ipam.soundness import verify
from pycni.model.bgp import BGP_PORT
from pycni.model.resources import (
    Block,
    IPAMConfig,
    IPPool,
    IPReservation,
    Node,
    Resource,
    resource_name,
)
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer, SecretKey
from pycni.model.schema import KIND_NAMES
from pycni.model.schema_config import Config
from pycni.model.schema_rules import merged, mistakes_of
from pycni.model.schema_yaml import parse_manifests, to_document
from pycni.model.tunnels import TunnelKind, address_in
from pycni.ports import Datastore, Stored

CONFIG_KINDS: tuple[type[Config], ...] = (
    IPPool,
    IPReservation,
    Node,
    BGPPeer,
    BGPFilter,
    BGPConfiguration,
    IPAMConfig,
)

# Plural first: it is what the help shows.
_ALIASES: dict[type[Resource], tuple[str, ...]] = {
    IPPool: ("pools", "pool", "ippools", "ippool"),
    BGPPeer: ("peers", "peer", "bgppeers", "bgppeer"),
    BGPFilter: ("filters", "filter", "bgpfilters", "bgpfilter"),
    Node: ("nodes", "node"),
    IPReservation: ("reservations", "reservation", "ipreservations", "ipreservation"),
    Block: ("blocks", "block", "ipamblocks", "ipamblock"),
    BGPConfiguration: ("bgpconfiguration", "bgpconfigurations", "bgpconfig"),
    IPAMConfig: ("ipamconfiguration", "ipamconfigurations", "ipamconfig"),
}


def _listed(values: Iterable[object]) -> str | None:
    return ", ".join(map(str, values)) or None


def _tunnel_addresses(node: Node) -> str | None:
    addresses = (address_in(node, kind) for kind in TunnelKind)
    return _listed(address for address in addresses if address is not None)


_COLUMNS: dict[type[Resource], tuple[tuple[str, Callable[[Any], object]], ...]] = {
    IPPool: (
        ("NAME", lambda pool: pool.name),
        ("CIDR", lambda pool: pool.cidr),
        ("BLOCK", lambda pool: f"/{pool.block_size}"),
        ("IPIP", lambda pool: pool.ipip_mode.value),
        ("VXLAN", lambda pool: pool.vxlan_mode.value),
        ("NAT", lambda pool: pool.nat_outgoing),
        ("MODE", lambda pool: pool.assignment_mode.value),
        ("DISABLED", lambda pool: pool.is_disabled),
    ),
    IPReservation: (
        ("NAME", lambda reservation: reservation.name),
        ("RESERVED", lambda reservation: ", ".join(map(str, reservation.cidrs))),
    ),
    BGPPeer: (
        ("NAME", lambda peer: peer.name),
        ("PEER", lambda peer: peer.peer_ip or peer.peer_selector),
        ("PORT", lambda peer: peer.port),
        ("AS", lambda peer: peer.as_number or "(its own)"),
        ("NODE", lambda peer: peer.node or peer.node_selector or "(all)"),
        ("PASSWORD", lambda peer: peer.password is not None),
        ("FILTERS", lambda peer: _listed(peer.filters)),
    ),
    BGPFilter: (
        ("NAME", lambda one: one.name),
        ("EXPORT-V4", lambda one: len(one.export_v4)),
        ("IMPORT-V4", lambda one: len(one.import_v4)),
        ("EXPORT-V6", lambda one: len(one.export_v6)),
        ("IMPORT-V6", lambda one: len(one.import_v6)),
    ),
    Node: (
        ("NAME", lambda node: node.name),
        ("IPV4", lambda node: node.ipv4),
        ("IPV6", lambda node: node.ipv6),
        ("AS", lambda node: node.as_number),
        ("TUNNEL", _tunnel_addresses),
    ),
    Block: (
        ("CIDR", lambda block: block.cidr),
        ("NODE", lambda block: block.affinity),
        ("USED", lambda block: _counted(block, by=_used_count)),
        ("RESTING", lambda block: _counted(block, by=arithmetic.resting_count)),
        ("FREE", lambda block: _counted(block, by=arithmetic.free_count)),
    ),
    BGPConfiguration: (
        ("NAME", lambda config: config.name),
        ("AS", lambda config: config.as_number if config.node is None else None),
        ("MESH", lambda config: config.is_node_mesh_enabled if config.node is None else None),
        ("PORT", lambda config: config.listen_port or (BGP_PORT if config.node is None else None)),
        ("SERVICES", lambda config: _listed(config.services.all)),
        ("TAGGED", lambda config: _listed(one.cidr for one in config.prefix_advertisements)),
    ),
    IPAMConfig: (
        ("NAME", lambda config: config.name),
        ("STRICT", lambda config: config.is_strict_affinity),
        ("AUTO-BLOCKS", lambda config: config.is_auto_allocating_blocks),
        ("MAX-BLOCKS", lambda config: config.max_blocks_per_host or "(20)"),
        ("COOLDOWN", lambda config: f"{config.cooldown_s} s"),
    ),
}


def _used_count(block: Block) -> int:
    return len(arithmetic.given(block))


def _counted(block: Block, *, by: Callable[[Block], int]) -> int | str:
    """Count something in a block, unless it contradicts itself."""
    return "corrupt" if corruption_of(block) else by(block)


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add get, apply and delete to a command line."""
    kinds = ", ".join(names[0] for names in _ALIASES.values())
    get = subparsers.add_parser(
        "get", help="show objects of the datastore", epilog="example: pycnictl get pools -o yaml"
    )
    get.add_argument("kind", help=kinds)
    get.add_argument("name", nargs="?", help="one object only")
    add_output_argument(get)
    get.set_defaults(func=command(_get))

    apply = subparsers.add_parser(
        "apply",
        help="create or change objects from a file",
        description="Checks the whole file before anything is written.",
        epilog="example: pycnictl apply -f pool.yaml",
    )
    apply.add_argument(
        "-f", "--filename", required=True, help="YAML, projectcalico.org/v3; - reads stdin"
    )
    apply.set_defaults(func=command(_apply))

    delete = subparsers.add_parser(
        "delete",
        help="delete an object",
        description="A node's agent that runs writes its node's object anew: stop it first, or the"
        " node's pods are cut off from other nodes for a moment.",
        epilog="example: pycnictl delete peer rack-1",
    )
    delete.add_argument("kind", help=kinds)
    delete.add_argument("name", help="its name; of a block also its CIDR")
    delete.set_defaults(func=command(_delete))
    for parser in (get, apply, delete):
        add_datastore_arguments(parser)


def kind_of(text: str) -> type[Resource]:
    """Return the kind that a word of the command line means."""
    for kind, names in _ALIASES.items():
        if text.lower() in names:
            return kind
    known = ", ".join(names[0] for names in _ALIASES.values())
    raise WrongUsage(f"there is no kind {text!r}: use one of {known}")


def _not_found(kind: type[Resource], name: str) -> NotFound:
    return NotFound(f"there is no {KIND_NAMES[kind]} {name}: see  pycnictl get {_ALIASES[kind][0]}")


# --- get ----------------------------------------------------------------------------------------


async def _get(args: argparse.Namespace) -> int:
    kind = kind_of(args.kind)
    datastore = await open_datastore(args, is_read_only=True)
    try:
        items: Sequence[Stored[Any]] = (await datastore.list(kind)).items
        rested = await Cooldown(DatastoreView(datastore), clock_ns=time.time_ns).rested()
    finally:
        await datastore.close()
    values = [stored.value for stored in items]
    if args.name is not None:
        values = [value for value in values if _is_called(value, args.name)]
        if not values:
            raise _not_found(kind, args.name)
    if args.output == "table":
        columns = _COLUMNS[kind]
        if kind is Block:  # as a request finds them
            values = [arithmetic.awake(value, rested=rested) for value in values]
        rows = [[read(value) for _, read in columns] for value in values]
        print_table([header for header, _ in columns], rows)
    else:
        documents = [to_document(value) for value in values]
        is_list = args.output == "json" and args.name is None
        # However many there are: scripts read `.items` of whatever was asked for by its kind.
        print_documents([list_of(documents)] if is_list else documents, form=args.output)
    return 0


def _is_called(value: Resource, name: str) -> bool:
    return name == resource_name(value) or (isinstance(value, Block) and name == str(value.cidr))


# --- apply --------------------------------------------------------------------------------------


async def _apply(args: argparse.Namespace) -> int:
    source = source_name(args.filename)
    manifests = parse_manifests(read_input(args.filename), source=source)
    if not manifests:
        raise InvalidInput(
            f"{source} holds no object: write one as  pycnictl get pools -o yaml  shows it"
        )
    datastore = await open_datastore(args)
    try:
        if cluster_of(datastore) is None:
            _refuse_secrets(manifest.value for manifest in manifests)
        existing = await _existing(datastore)
        mistakes = mistakes_of(manifests, existing=[stored.value for stored in existing.values()])
        if mistakes:
            raise InvalidInput("\n".join([*mistakes, "nothing was changed"]))
        # Filters first: a peer that names one which is not there yet is cut off.
        known = existing.keys() | {(type(one.value), one.value.name) for one in manifests}
        for manifest in sorted(manifests, key=lambda one: not isinstance(one.value, BGPFilter)):
            value = manifest.value
            outcome = await _store(datastore, value, existing.get((type(value), value.name)))
            print(f"{KIND_NAMES[type(value)]} {value.name} {outcome}")
            for doubt in _doubts(value, known):
                print(f"note: {KIND_NAMES[type(value)]} {value.name}: {doubt}", file=sys.stderr)
    finally:
        await datastore.close()
    return 0


def _doubts(value: Config, known: AbstractSet[tuple[type[object], str]]) -> Iterator[str]:
    """Yield what is right as it stands, and without effect as long as something is not there."""
    node = value.node if isinstance(value, BGPPeer | BGPConfiguration) else None
    if node is not None and (Node, node) not in known:
        yield f"no Node is called {node} (yet)"
    for name in value.filters if isinstance(value, BGPPeer) else ():
        if (BGPFilter, name) not in known:
            yield f"BGPFilter {name} is not there: nothing is exchanged with the peer"


def _refuse_secrets(values: Iterable[Config]) -> None:
    for value in values:
        if isinstance(getattr(value, "password", getattr(value, "mesh_password", None)), SecretKey):
            raise InvalidInput(
                f"{KIND_NAMES[type(value)]} {value.name}: secretKeyRef names a Secret of a cluster,"
                " and the embedded datastore is in none: write the password itself"
            )


async def _existing(datastore: Datastore) -> dict[tuple[type[object], str], Stored[Any]]:
    result: dict[tuple[type[object], str], Stored[Any]] = {}
    for kind in CONFIG_KINDS:
        items: Sequence[Stored[Any]] = (await datastore.list(kind)).items
        result |= {(kind, stored.value.name): stored for stored in items}
    return result


async def _store(datastore: Datastore, value: Config, existing: Stored[Any] | None) -> str:
    try:
        if existing is None:
            await datastore.create(value)
            return "created"
        wanted = merged(value, existing=existing.value)
        if wanted == existing.value:
            return "unchanged"
        await datastore.update(wanted, if_revision=existing.revision)
    except (AlreadyExists, Conflict, NotFound) as exc:
        raise Conflict(f"{exc}; what was printed above is done, run the command again") from exc
    return "configured"


# --- delete -------------------------------------------------------------------------------------


async def _delete(args: argparse.Namespace) -> int:
    kind = kind_of(args.kind)
    datastore = await open_datastore(args)
    try:
        items: Sequence[Stored[Any]] = (await datastore.list(kind)).items
        found = [stored for stored in items if _is_called(stored.value, args.name)]
        if not found:
            raise _not_found(kind, args.name)
        value = found[0].value
        if isinstance(value, Block):
            await _delete_block(datastore, value)
        else:
            if isinstance(value, IPPool):
                await _refuse_used_pool(datastore, value)
            if isinstance(value, BGPFilter):
                await _refuse_used_filter(datastore, value)
            await datastore.delete(kind, resource_name(value), if_revision=found[0].revision)
    finally:
        await datastore.close()
    print(f"{KIND_NAMES[kind]} {args.name} deleted")
    return 0


async def _refuse_used_filter(datastore: Datastore, value: BGPFilter) -> None:
    peers = [stored.value for stored in (await datastore.list(BGPPeer)).items]
    users = ", ".join(peer.name for peer in peers if value.name in peer.filters)
    if users:
        raise InvalidInput(
            f"cannot delete BGPFilter {value.name}: nothing would be exchanged any more with the"
            f" peers that name it ({users}); take its name out of them first"
        )


async def _refuse_used_pool(datastore: Datastore, pool: IPPool) -> None:
    listed = [stored.value for stored in (await datastore.list(Block)).items]
    inside = [block for block in listed if holds(pool.cidr, block.cidr)]
    for block in inside:
        verify(block)
    used = sum(map(_used_count, inside))
    if used:
        raise InvalidInput(
            f"cannot delete pool {pool.name}: {used} of its addresses are in use;"
            " set disabled: true, delete the pods that use it, then try again"
        )


async def _delete_block(datastore: Datastore, block: Block) -> None:
    verify(block)
    refused = InvalidInput(
        f"cannot delete block {block.cidr}: {_used_count(block)} of its addresses are"
        " in use; delete the pods that use them first"
    )
    rested = await Cooldown(DatastoreView(datastore), clock_ns=time.time_ns).rested()
    block = arithmetic.awake(block, rested=rested)
    if arithmetic.is_held(block):
        raise refused
    if not arithmetic.is_empty(block):
        count = arithmetic.resting_count(block)
        raise InvalidInput(
            f"cannot delete block {block.cidr}: {count} of its addresses rest still;"
            " wait for ipCooldownSeconds, or set it to 0 for a moment"
        )
    if not await Mending(datastore).delete_empty_block(block.cidr):
        raise refused
