"""Addresses lent to other main plugins: how a test asks for them, checks and collects."""

import json
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from pycni.cni.janitor import Janitor
from pycni.cni.main import Reply
from pycni.ipam.requests import DatastoreView
from pycni.model.resources import IPPool
from tests.agent.cluster import NETWORK, NodeAgent
from tests.agent.verbs.stories import (
    CONTAINER,
    ask,
    faulty,
    play,
)

HANDLE = f"{NETWORK}.{CONTAINER}"
GATEWAY = f"pycni-gateway-node-0.{NETWORK}"
SIX = IPPool("six", ip_network("fd00::/48"), block_size=122)
OWN_NETNS = "/proc/self/ns/net"


def of_bridge(**ipam: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON.
    return {"type": "bridge", "ipam": {"type": "pycni-ipam", **ipam}}


async def lend(node: NodeAgent, verb: str = "ADD", **ipam: Any) -> Reply:  # noqa: ANN401 - any JSON.
    return await ask(node, verb, config=of_bridge(**ipam))


async def check(node: NodeAgent, result: Reply, **ipam: Any) -> Reply:  # noqa: ANN401 - any JSON.
    told = {"prevResult": json.loads(result.output)}
    return await ask(node, "CHECK", config=of_bridge(**ipam) | told)


async def gc(node: NodeAgent, *keep: str) -> Reply:
    listed = {"cni.dev/valid-attachments": [{"containerID": k, "ifname": "eth0"} for k in keep]}
    return await node.cni("GC", "", config=of_bridge() | listed)


def ips(reply: Reply) -> list[dict[str, Any]]:
    assert reply.status == 0, reply.output
    found: list[dict[str, Any]] = json.loads(reply.output)["ips"]
    return found


def watched(directory: Path, story: Callable[[NodeAgent, Janitor], Awaitable[None]]) -> None:
    async def main(node: NodeAgent) -> None:
        await story(node, Janitor(node.engine, view=DatastoreView(faulty(node).inner)))

    play(directory, main)
