"""The pools that ever were, kept on disk, so that a deleted pool's leftovers are still ours."""

import json
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

from pycni.agent.messages import Changed, Listed
from pycni.files import put
from pycni.model.network import IPNetwork
from pycni.model.resources import IPPool


def load(path: Path) -> set[IPNetwork]:
    """Read the history; an absent or damaged file is an empty one.

    Without it, routes of a deleted pool would merely be left alone: the safe side.
    """
    try:
        return {ip_network(text) for text in json.loads(path.read_text(encoding="ascii"))}
    except (OSError, ValueError, TypeError):
        return set()


def save(path: Path, pools: Iterable[IPNetwork]) -> None:
    """Write the history, atomically."""
    put(path, json.dumps(sorted(map(str, pools))).encode(), mode=0o600, is_flushed=False)


def pools_in(message: Listed | Changed) -> set[IPNetwork]:
    """Return the pools that a message tells of."""
    values = message.values if isinstance(message, Listed) else (message.value,)
    return {value.cidr for value in values if isinstance(value, IPPool)}
