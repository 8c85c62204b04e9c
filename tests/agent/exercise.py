"""Clusters with pods: the exercise's three nodes, or two neighbours on one link."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from pycni.model.resources import TunnelMode
from tests.agent.cluster import POOL, Cluster, NodeAgent, cluster, with_mode

EXERCISE = ("10.10.7.20/20", "10.10.24.89/20", "10.10.43.25/20")
VETH = "cali0d7c3b01b81"  # sha1("default.web-node-0")[:11]
NODE_0 = """\
default via 10.10.0.1 dev eth0
10.10.0.0/20 dev eth0 proto kernel scope link src 10.10.7.20
blackhole 192.168.39.192/26 proto bird
192.168.39.193 dev cali0d7c3b01b81 scope link
192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink
192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink""".splitlines()


@contextlib.asynccontextmanager
async def exercise(directory: Path) -> AsyncIterator[tuple[Cluster, NodeAgent]]:
    """Run the exercise with a pod on each node; give the cluster and the first node."""
    async with cluster(directory, EXERCISE) as made:
        for node in made.nodes.values():
            await node.add(f"default/web-{node.name}")
        await made.settle()
        yield made, made.nodes["node-0"]


@contextlib.asynccontextmanager
async def neighbours(
    directory: Path, *, mode: TunnelMode = TunnelMode.ALWAYS
) -> AsyncIterator[tuple[Cluster, NodeAgent]]:
    """Run two nodes on one link with a pod on the second; give the cluster and the first."""
    pool = with_mode(POOL, mode)
    async with cluster(directory, ("10.0.0.1/24", "10.0.0.2/24"), pools=[pool]) as made:
        await made.nodes["node-1"].add("default/web-node-1")
        await made.settle()
        yield made, made.nodes["node-0"]
