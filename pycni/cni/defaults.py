"""What an engine assumes where the configuration does not say it."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from pycni.cni.netconf import KUBERNETES_NAME
from pycni.errors import InvalidInput
from pycni.kernel.underlay import underlay_link
from pycni.model.resources import IPPool, Node
from pycni.plan.mtu import pod_mtu
from pycni.ports import Datastore

NODENAME_FILE = "nodename"
_USUAL_MTU = 1500


def nodename(state_dir: Path) -> str:
    """Return what the agent wrote as its name, or else the host's name."""
    try:
        name = (state_dir / NODENAME_FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        name = ""
    return name or socket.gethostname().lower()


def named_node(stated: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the agent's node: as its file states, or as a DaemonSet hands it down, or the host."""
    return stated or environment.get("NODE_NAME") or socket.gethostname().lower()


def own_name(stated: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the agent's node as `named_node` does, if it can be one's name; else refuse it."""
    name = named_node(stated, environment)
    if not KUBERNETES_NAME.match(name):
        raise InvalidInput(
            f"{name!r} can be no node's name: state one with `node` in agent.yaml (small letters,"
            " digits, '-' and '.', first and last a letter or digit)"
        )
    return name


async def default_mtu(datastore: Datastore, *, node: str) -> int:
    """Return the MTU for a node's pods, from its pools and the interface of its own address."""
    stored = await datastore.get(Node, node)
    own = stored.value.ipv4 if stored is not None else None
    pools = [s.value for s in (await datastore.list(IPPool)).items]
    link = underlay_link(own.ip if own is not None else None)
    return pod_mtu(pools, underlay_mtu=link.mtu if link is not None else _USUAL_MTU)
