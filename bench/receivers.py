"""Who is told of blocks in `bench/routes`: pycni's agent, a BIRD, and ExaBGP with nobody behind it.

Each is in the namespace `receiver`, one link away from the peers of `bench/peers.py`.  All know the
peers as members of a full mesh, or as route reflectors.
"""

import asyncio
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_interface
from pathlib import Path
from typing import Any

from bench import sandbox

POOL = IPv4Network("10.128.0.0/9")
OWN = IPv4Address("10.10.0.1")
FIRST_PEER = IPv4Address("10.10.1.1")
FIRST_NODE = IPv4Address("10.10.64.1")
PREFIX = 16
AS_NUMBER = 64512
WAIT_S = 180.0
LOOK_S = 0.001
HERE = Path(__file__).resolve().parent
_EVENT = struct.Struct("=4xH10xBB")
"""Of a route's event: the type, behind the length, and what follows the header of 16 bytes."""


@dataclass(frozen=True)
class Scene:
    """What is there: so many peers and blocks; with `nodes` the peers are reflectors of these."""

    peers: int
    blocks: int
    nodes: int = 0

    def block(self, number: int) -> IPv4Network:
        """Return a block of the pool."""
        return IPv4Network((int(POOL.network_address) + number * 64, 26))

    def members(self) -> dict[str, IPv4Address]:
        """Return the nodes that have the blocks."""
        first, count = (FIRST_NODE, self.nodes) if self.nodes else (FIRST_PEER, self.peers)
        return {f"other-{number}": first + number for number in range(count)}


# --- the peers ----------------------------------------------------------------------------------


def make_link(peers: int) -> None:
    """Make the two namespaces, and an address for each peer."""
    for name in ("sender", "receiver"):
        sandbox.run("ip", "netns", "add", name)
        sandbox.in_netns(name, "ip", "link", "set", "lo", "up")
    pair = "link add eth0 type veth peer name eth0 netns receiver"
    sandbox.in_netns("sender", "ip", *pair.split())
    lines = [f"addr add {FIRST_PEER + n}/{PREFIX} dev eth0" for n in range(peers)]
    sandbox.in_netns("sender", "ip", "-batch", "-", text="\n".join(lines))
    sandbox.in_netns("receiver", "ip", "addr", "add", f"{OWN}/{PREFIX}", "dev", "eth0")
    for name in ("sender", "receiver"):
        sandbox.in_netns(name, "ip", "link", "set", "eth0", "up")


class Peers:
    """The process of the peers."""

    def __init__(self, scene: Scene) -> None:
        nodes = ["--nodes", str(FIRST_NODE), str(scene.nodes)] if scene.nodes else []
        self.process = subprocess.Popen(
            ["nsenter", "--net=/run/netns/sender", "--", sys.executable, str(HERE / "peers.py"),
             str(FIRST_PEER), str(scene.peers), *nodes],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._read()

    def _read(self) -> str:
        if self.process.stdout is None or not (line := self.process.stdout.readline()):
            raise RuntimeError("the peers have ended")
        return line.strip()

    def _say(self, words: str) -> str:
        if self.process.stdin is None:
            raise RuntimeError("the peers have ended")
        print(words, file=self.process.stdin, flush=True)
        return self._read()

    def tell(self, verb: str, first: int, end: int) -> float:
        """Announce or withdraw blocks; return when the first UPDATE went out."""
        return float(self._say(f"{verb} {first} {end}"))

    def wait_for_sessions(self, count: int) -> None:
        """Wait until so many sessions are up."""
        deadline = time.monotonic() + WAIT_S
        while (up := int(self._say("sessions 0 0"))) != count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{up} of {count} sessions are up after {WAIT_S} s")
            time.sleep(0.1)

    def end(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(10)


# --- the kernel's word --------------------------------------------------------------------------


class Monitor:
    """The kernel's events of routes to blocks, in the receiver's namespace."""

    def __init__(self) -> None:
        from pycni.kernel.netlink import join_group, open_socket
        from pycni.kernel.netns import inside, open_own

        with (
            Path("/run/netns/receiver").open("rb") as there,
            inside(there.fileno(), home=open_own()),
        ):
            self._socket = open_socket(buffer=256 << 20)
        self._buffer = bytearray(1 << 14)
        join_group(self._socket, 7)  # RTNLGRP_IPV4_ROUTE

    def count_until(self, wanted: int, *, is_gone: bool = False) -> float:
        """Return the moment at which the kernel has reported so many more routes, or fewer.

        It looks every millisecond: to be woken by each event would take a processor from those
        that are measured.
        """
        from pycni.kernel.wire_route import RTM_DELROUTE, RTM_NEWROUTE

        wanted_head = (RTM_DELROUTE if is_gone else RTM_NEWROUTE, socket.AF_INET, 26)
        seen = 0
        deadline = time.monotonic() + WAIT_S
        self._socket.settimeout(0.0)
        while time.monotonic() < deadline:
            time.sleep(LOOK_S)
            seen += sum(head == wanted_head for head in self._waiting())
            if seen >= wanted:
                return time.perf_counter()
        raise RuntimeError(f"only {seen} of {wanted} routes came within {WAIT_S} s")

    def _waiting(self) -> Iterator[tuple[int, ...]]:
        """Yield type, family and prefix length of each event: the kernel sends them one by one."""
        with suppress(BlockingIOError):
            while True:
                self._socket.recv_into(self._buffer)
                yield _EVENT.unpack_from(self._buffer)

    def drain(self) -> None:
        """Forget what has come."""
        self._socket.settimeout(0.0)
        for _ in self._waiting():
            pass

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


# --- receivers ----------------------------------------------------------------------------------


@contextmanager
def agent(scene: Scene) -> Iterator[sandbox.Node]:
    """Run an agent that knows who has the blocks."""
    directory = Path(f"/run/bench/agent-{time.monotonic_ns()}")
    datastore = directory / "db" / "pycni.db"
    sandbox.apply_pool(["--datastore", str(datastore)], cidr=str(POOL), ipip="Never")
    asyncio.run(_fill(datastore, scene))
    node = sandbox.Node(
        "receiver", address=f"{OWN}/{PREFIX}", datastore=datastore, directory=directory
    )
    node.start_agent(is_waiting=False)
    try:
        yield node
    finally:
        if node.agent is not None:
            node.agent.terminate()
            node.agent.wait(20)
        _flush()


async def _fill(datastore: Path, scene: Scene) -> None:
    """Write the nodes, whose blocks are whose, and how they peer."""
    from pycni.datastore.sqlite import open_sqlite
    from pycni.model.resources import AffinityState, BlockAffinity, Node
    from pycni.model.resources_bgp import BGPConfiguration, BGPPeer

    store = await open_sqlite(datastore)
    members = list(scene.members().items())
    if scene.nodes:
        await store.create(BGPConfiguration(is_node_mesh_enabled=False))
        for number in range(scene.peers):
            peer = BGPPeer(f"reflector-{number}", peer_ip=FIRST_PEER + number, as_number=AS_NUMBER)
            await store.create(peer)
    for name, address in members:
        await store.create(Node(name, ipv4=ip_interface(f"{address}/{PREFIX}")))
    for number in range(scene.blocks):
        owner = members[number % len(members)][0]
        await store.create(BlockAffinity(owner, scene.block(number), AffinityState.CONFIRMED))
    await store.close()


def _flush() -> None:
    for words in (("ip", "route", "flush", "proto", "bird"), ("nft", "flush", "ruleset")):
        command = ["nsenter", "--net=/run/netns/receiver", *words]
        subprocess.run(command, check=False, capture_output=True)


@contextmanager
def bird(scene: Scene) -> Iterator[None]:
    """Run a BIRD that has a session with every peer and writes to the kernel."""
    directory = Path("/run/bench/bird")
    directory.mkdir(exist_ok=True)
    sessions = "".join(
        f"protocol bgp {{ local {OWN} as {AS_NUMBER}; neighbor {FIRST_PEER + n} as {AS_NUMBER};"
        " connect delay time 1; ipv4 { import all; export none; }; }\n"
        for n in range(scene.peers)
    )
    (directory / "bird.conf").write_text(
        f"router id {OWN};\nprotocol device {{}}\nprotocol direct {{ ipv4; }}\n"
        f"protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n{sessions}"
    )
    words = ("bird", "-c", "bird.conf", "-s", "bird.ctl", "-P", "bird.pid")
    subprocess.run(
        ["nsenter", "--net=/run/netns/receiver", "--", *words], cwd=directory, check=True
    )
    try:
        yield
    finally:
        sandbox.run("birdc", "-s", str(directory / "bird.ctl"), "down")
        deadline = time.monotonic() + 10
        while (directory / "bird.ctl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        _flush()


class Floor:
    """An ExaBGP as the agent runs it, with a helper that counts what comes, and does no more."""

    def __init__(self, wanted: int) -> None:
        self.place = f"/run/bench/floor-{time.monotonic_ns()}"
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self.place)
        self._server.listen()
        self._server.settimeout(WAIT_S)
        self._wanted = wanted
        self._open: list[int] = []

    @property
    def helper(self) -> list[str]:
        """Return the command of the helper: the agent's own."""
        from pycni.bgp import bridge

        return [sys.executable, "-IES", str(bridge.__file__), self.place]

    def accept(self) -> None:
        """Take over ExaBGP's ends of its helper's standard input and output."""
        helper, _ = self._server.accept()
        self._open.append(helper.detach())
        with socket.socket(fileno=os.dup(self._open[0])) as sending:
            _, descriptors, _, _ = socket.recv_fds(sending, 64, 2)
            sending.send(b"k")
        self._open += descriptors

    def count_until_all(self) -> float:
        """Return the moment at which the last block has come."""
        seen, rest = 0, b""
        while seen < self._wanted:
            chunk = os.read(self._open[1], 1 << 18)
            if not chunk:
                raise RuntimeError(f"ExaBGP ended after {seen} of {self._wanted} blocks")
            text = rest + chunk
            seen += text.count(b'"nlri"')
            rest = text[-5:]  # the word may lie across two chunks
        return time.perf_counter()

    def close(self) -> None:
        """Give back all descriptors."""
        self._server.close()
        for descriptor in self._open:
            os.close(descriptor)


@contextmanager
def exabgp(scene: Scene) -> Iterator[Floor]:
    """Run ExaBGP alone; give what counts the blocks that it has heard of."""
    from pycni.bgp import child
    from pycni.bgp.codec import render_configuration
    from pycni.model.bgp import Neighbour

    directory = Path(f"/run/bench/exabgp-{time.monotonic_ns()}")
    directory.mkdir()
    own = ip_address(str(OWN))
    neighbours = [
        Neighbour(FIRST_PEER + n, own, AS_NUMBER, AS_NUMBER, router_id=OWN)
        for n in range(scene.peers)
    ]
    floor = Floor(scene.blocks)
    configuration = directory / "exabgp.conf"
    configuration.write_text(render_configuration(neighbours, run=floor.helper, nudges={}))
    settings = child.ChildSettings(run_dir=directory, listen=(own,))
    words = [*child.command(settings, configuration=configuration)]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["nsenter", "--net=/run/netns/receiver", "--", *words],
            env=dict(child.environment(settings)), stdout=log, stderr=log, cwd="/",
        )  # fmt: skip
    try:
        floor.accept()
        yield floor
    finally:
        process.kill()
        process.wait(10)
        floor.close()


RECEIVERS = ("BIRD", "ExaBGP alone", "pycni")


@contextmanager
def receiving(receiver: str, scene: Scene, monitor: Monitor) -> Iterator[Callable[[], float]]:
    """Run one of `RECEIVERS`; give what returns the moment at which it has got all blocks."""

    def last_route() -> float:
        return monitor.count_until(scene.blocks)

    match receiver:
        case "BIRD":
            with bird(scene):
                yield last_route
        case "ExaBGP alone":
            with exabgp(scene) as floor:
                yield floor.count_until_all
        case _:
            with agent(scene) as node:
                node.wait(lambda s: is_complete(s, peers=scene.peers, paths=0), 120)
                yield last_route


def is_complete(status: dict[str, Any], *, peers: int, paths: int) -> bool:
    """Tell whether an agent has all sessions, and has learned all that they tell."""
    there = status["peers"]
    return (
        bool(status["converged"])
        and len(there) == peers
        and all(p["state"] == "up" for p in there)
        and sum(p["paths"] for p in there) >= paths
    )
