"""BIRD, FRR and GoBGP in a place of the lab: in the mesh, as reflectors, as routers of another AS.

Each has its own files and sockets in /run/PLACE.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from router_engines import bird, frr, gobgp

if TYPE_CHECKING:
    from cluster import Cluster

NODES = {"node-0": "10.10.7.20", "node-1": "10.10.24.89", "node-2": "10.10.43.25"}
NODES6 = {
    "node-0": "fd00:10:10::720",
    "node-1": "fd00:10:10::2489",
    "node-2": "fd00:10:10::4325",
}
NODES_AS = 64512
PROGRAMS = {
    "bird": ("bird", "bird2"),
    "frr": ("/usr/lib/frr/bgpd", "frr"),
    "gobgp": ("gobgpd", "gobgpd"),
}
ENGINES = {"bird": bird, "frr": frr, "gobgp": gobgp}


@dataclass(frozen=True, slots=True)
class Session:
    """One session with a node."""

    version: int
    remote: str


@dataclass(frozen=True, slots=True)
class Router:
    """What to be.

    `cluster_id` makes a reflector, of the nodes' own AS; `blocks` a member of the mesh that has
    them, in a node's place; neither of them a router between the nodes.  `hops` is GTSM's;
    `address6` asks for IPv6 sessions, too.
    """

    place: str
    address: str
    as_number: int = NODES_AS
    cluster_id: str | None = None
    hops: int | None = None
    address6: str | None = None
    blocks: tuple[str, ...] = ()
    is_graceful: bool = True
    password: str | None = None
    port: int = 179
    nodes_port: int = 179
    nodes_as: int = NODES_AS

    @property
    def directory(self) -> str:
        return f"/run/{self.place}"

    @property
    def is_member(self) -> bool:
        return bool(self.blocks)

    @property
    def is_transit(self) -> bool:
        return self.cluster_id is None and not self.is_member

    @property
    def versions(self) -> tuple[int, ...]:
        return (4,) if self.address6 is None else (4, 6)

    def end(self, version: int) -> str:
        """Return its address of an IP version."""
        return self.address if version == 4 or self.address6 is None else self.address6

    def sessions(self, version: int | None = None) -> Iterator[Session]:
        """Yield its sessions, with every node but the one whose place it has."""
        for mine in self.versions if version is None else (version,):
            for name, address in (NODES if mine == 4 else NODES6).items():
                if name != self.place:
                    yield Session(mine, address)

    def own_blocks(self, version: int) -> list[str]:
        return [block for block in self.blocks if ip_network(block).version == version]


def start(cluster: Cluster, engine: str, router: Router, *, is_restart: bool = False) -> None:
    """Start an engine; it fails at once where its configuration is none."""
    program, package = PROGRAMS[engine]
    if shutil.which(program) is None:
        pytest.fail(f"{program} is missing: run  apt-get install {package}")
    files, commands = ENGINES[engine](router, is_restart=is_restart)
    # Another engine may have been here before, under another user.
    empty = "" if is_restart else f"rm -rf {router.directory} && "
    cluster.run(router.place, f"{empty}mkdir -p {router.directory}")
    for name, text in files.items():
        cluster.run(router.place, f"cat > {router.directory}/{name} <<'X'\n{text}\nX")
    for command in commands:
        cluster.run(router.place, f"cd {router.directory} && {command}")


def end(cluster: Cluster, router: Router, signal: str = "KILL") -> None:
    """End an engine by a signal, and wait until it is gone: by SIGKILL without a word to peers."""
    wait = "while kill -0 $pid 2>/dev/null; do sleep 0.02; done"
    find = f"set -e; pid=$(cat {router.directory}/bgp.pid)"
    cluster.run(router.place, f"{find}; kill -{signal} $pid; {wait}")
    # What FRR's bgpd hands its routes to knows nothing of its sessions.
    zebra = f"{router.directory}/zebra.pid"
    cluster.run(router.place, f"[ ! -e {zebra} ] || {{ kill -9 $(cat {zebra}); rm {zebra}; }}")
