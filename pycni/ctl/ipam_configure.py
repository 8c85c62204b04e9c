"""`pycnictl ipam configure`: the settings of address management, by compare-and-swap."""

import argparse
from dataclasses import replace
from typing import Any

from pycni.ctl.output import add_output_argument, command, print_documents, print_table
from pycni.ctl.store import open_datastore
from pycni.ctl.usage import WrongUsage
from pycni.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from pycni.ipam.retries import ATTEMPTS, Retries, gave_up
from pycni.model.resources import IPAMConfig
from pycni.model.schema_config import config_spec, parse_ipam_config
from pycni.model.schema_fields import Fields
from pycni.ports import Datastore

_BOOLEANS = {"true": True, "false": False}


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `ipam configure` to a command line."""
    configure = verbs.add_parser(
        "configure",
        help="show or change the settings of address management",
        description="Changes what is named, and shows the settings before and after; without any"
        " setting it shows them.",
        epilog="example: pycnictl ipam configure --strict-affinity true --cooldown 60",
    )
    configure.add_argument(
        "--strict-affinity", choices=_BOOLEANS, help="whether nodes never borrow addresses"
    )
    configure.add_argument(
        "--auto-allocate-blocks", choices=_BOOLEANS, help="whether nodes claim new blocks"
    )
    configure.add_argument(
        "--max-blocks", type=int, metavar="N", help="how many blocks a node may own; 0 means 20"
    )
    configure.add_argument(
        "--cooldown",
        type=int,
        metavar="SECONDS",
        help="how long a released address rests, up to 1200",
    )
    add_output_argument(configure)
    configure.set_defaults(func=command(_configure))


async def _configure(args: argparse.Namespace) -> int:
    wanted = _wanted(args)
    _check(replace(IPAMConfig(), **wanted))
    datastore = await open_datastore(args, is_read_only=not wanted)
    try:
        if wanted:
            before, after = await change_config(datastore, wanted)
        else:
            stored = await datastore.get(IPAMConfig, IPAMConfig().name)
            before = after = IPAMConfig() if stored is None else stored.value
    finally:
        await datastore.close()
    if args.output != "table":
        document = {"before": _settings(before), "after": _settings(after)}
        print_documents([document if wanted else _settings(after)], form=args.output)
    elif wanted:
        new = _settings(after)
        changes = [(name, _word(old), _word(new[name])) for name, old in _settings(before).items()]
        print_table(("SETTING", "OLD", "NEW"), changes)
    else:
        rows = [(name, _word(value)) for name, value in _settings(after).items()]
        print_table(("SETTING", "VALUE"), rows)
    return 0


def _wanted(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields that the command line names."""
    said = {
        "is_strict_affinity": _BOOLEANS.get(args.strict_affinity),
        "is_auto_allocating_blocks": _BOOLEANS.get(args.auto_allocate_blocks),
        "max_blocks_per_host": args.max_blocks,
        "cooldown_s": args.cooldown,
    }
    return {field: value for field, value in said.items() if value is not None}


def _check(config: IPAMConfig) -> None:
    """Hold a configuration to the rules of a written one."""
    try:
        parse_ipam_config(config.name, Fields(config_spec(config), path="spec"))
    except InvalidInput as exc:
        raise WrongUsage(str(exc)) from exc


async def change_config(
    datastore: Datastore, wanted: dict[str, Any]
) -> tuple[IPAMConfig, IPAMConfig]:
    """Change the fields and nothing else; return the configuration before and after."""
    retries = Retries()
    for attempt in range(ATTEMPTS):
        await retries.pause(attempt)
        stored = await datastore.get(IPAMConfig, IPAMConfig().name)
        before = IPAMConfig() if stored is None else stored.value
        after = replace(before, **wanted)
        try:
            if stored is None:
                await datastore.create(after)
            elif after != before:
                await datastore.update(after, if_revision=stored.revision)
        except (AlreadyExists, Conflict, NotFound):
            continue
        return before, after
    raise gave_up("change the settings of address management")


def _settings(config: IPAMConfig) -> dict[str, Any]:
    return {
        "strictAffinity": config.is_strict_affinity,
        "autoAllocateBlocks": config.is_auto_allocating_blocks,
        "maxBlocksPerHost": config.max_blocks_per_host,
        "ipCooldownSeconds": config.cooldown_s,
    }


def _word(value: bool | int) -> str:  # noqa: FBT001  # it is a value, no flag
    return str(value).lower()
