"""Whoever restarts, however, with graceful restart or without: what a stream loses meanwhile."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest

import routers
from cluster import DNSUTILS, Cluster, eventually, lab
from peerings import apply
from routers import NODES, Router

pytestmark = [
    pytest.mark.netns, pytest.mark.peers, pytest.mark.long, pytest.mark.timeout(240),
]  # fmt: skip

TARGET = "192.168.247.10"
LEARNED = "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"
SECONDS = 9
AWAY_S = 1.0
KEPT, WITHDRAWN = "kept", "withdrawn"


@dataclass(frozen=True, slots=True)
class Cell:
    """What became of node-2's block on node-0, and of a stream's packets."""

    route: str
    lost: int


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("matrix") as running:
        yield running


class Agent:
    """Node-2's agent, and its ExaBGP with it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def begin(self, *, is_graceful: bool) -> None:
        set_restart(self.cluster, is_graceful=is_graceful)
        wait_until_settled(self.cluster, is_graceful=is_graceful)

    def end(self, signal: str) -> None:
        verb = {"TERM": "stop", "KILL": "kill"}[signal]
        self.cluster.lab("agent", verb, "node-2")

    def resume(self) -> None:
        self.cluster.lab("agent", "start", "node-2")

    def leave(self) -> None:
        """Nothing is in anybody's place."""


class ExaBgp(Agent):
    """Node-2's ExaBGP alone: its agent starts another one by itself."""

    def end(self, signal: str) -> None:
        pid = self.cluster.status("node-2")["bgp_pid"]
        self.cluster.run("node-2", f"kill -{signal} {pid}")

    def resume(self) -> None:
        """Its agent does that."""


class Engine(Agent):
    """Another engine in the place of node-2's agent; that node goes on forwarding."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(cluster)
        self.name = name
        self.router = Router("node-2", NODES["node-2"], blocks=("192.168.247.0/26",))

    def begin(self, *, is_graceful: bool) -> None:
        set_restart(self.cluster, is_graceful=is_graceful)
        wait_until_settled(self.cluster, is_graceful=is_graceful)
        self.router = dataclasses.replace(self.router, is_graceful=is_graceful)
        self.cluster.lab("agent", "stop", "node-2")
        routers.start(self.cluster, self.name, self.router)
        wait_until_settled(self.cluster, is_graceful=is_graceful)

    def end(self, signal: str) -> None:
        routers.end(self.cluster, self.router, signal)

    def resume(self) -> None:
        routers.start(self.cluster, self.name, self.router, is_restart=True)

    def leave(self) -> None:
        try:
            routers.end(self.cluster, self.router)
        finally:
            self.cluster.lab("agent", "start", "node-2")


def set_restart(cluster: Cluster, *, is_graceful: bool) -> None:
    """Have nodes ask their peers to keep their routes while they restart, or not to."""
    restart = "120s" if is_graceful else "0s"
    apply(cluster, "BGPConfiguration", "default", nodeMeshMaxRestartTime=restart)


def is_learned(cluster: Cluster) -> bool:
    return LEARNED in cluster.routes("node-0")


def wait_until_settled(cluster: Cluster, *, is_graceful: bool) -> None:
    status = partial(cluster.status, "node-0")
    eventually(partial(is_settled, cluster, is_graceful=is_graceful), within_s=30, what=status)


def is_settled(cluster: Cluster, *, is_graceful: bool) -> bool:
    """Whether node-2's session with node-0 is up, as it is to be, and both have told all."""
    rows = {peer["peer"]: peer for peer in cluster.status("node-0")["peers"]}
    peer = rows[NODES["node-2"]]
    has_told = peer["state"] == "up" and peer["paths"] and not peer["stale"]
    is_as_wanted = bool(peer["restart_time_s"]) is is_graceful
    back = any(line.startswith("192.168.39.192/26 via ") for line in cluster.routes("node-2"))
    return bool(has_told) and is_as_wanted and back and is_learned(cluster)


def cell(cluster: Cluster, subject: Agent, signal: str, *, is_graceful: bool) -> Cell:
    """End the subject, and resume it a second later or, if nothing was withdrawn, then."""
    with cluster.stream(DNSUTILS, TARGET, seconds=SECONDS) as losses:
        subject.end(signal)
        until = time.monotonic() + AWAY_S
        while (is_kept := is_learned(cluster)) and time.monotonic() < until:
            pass
        subject.resume()
        wait_until_settled(cluster, is_graceful=is_graceful)
    return Cell(KEPT if is_kept else WITHDRAWN, losses[0].lost)


def row(cluster: Cluster, subject: Agent, *, is_graceful: bool) -> dict[str, Cell]:
    """Return what a subject's ends by SIGTERM and by SIGKILL do."""
    try:
        subject.begin(is_graceful=is_graceful)
        return {
            signal: cell(cluster, subject, signal, is_graceful=is_graceful)
            for signal in ("TERM", "KILL")
        }
    finally:
        subject.leave()


def check(found: dict[str, Cell], *, kept: set[str]) -> None:
    print(found)  # noqa: T201 - the figures of docs/restarts.md
    assert {signal for signal, one in found.items() if one.route == KEPT} == kept
    assert {signal for signal, one in found.items() if one.lost == 0} == kept


@pytest.mark.parametrize("subject", [Agent, ExaBgp])
def test_no_packet_is_lost_while_ours_restarts_gracefully(
    cluster: Cluster, subject: type[Agent]
) -> None:
    check(row(cluster, subject(cluster), is_graceful=True), kept={"TERM", "KILL"})


@pytest.mark.parametrize("subject", [Agent, ExaBgp])
def test_without_graceful_restart_ours_is_withdrawn_at_once(
    cluster: Cluster, subject: type[Agent]
) -> None:
    check(row(cluster, subject(cluster), is_graceful=False), kept=set())


@pytest.mark.parametrize(
    ("engine", "kept"), [("bird", {"KILL"}), ("frr", {"TERM", "KILL"}), ("gobgp", {"KILL"})]
)
def test_no_packet_is_lost_while_an_engine_is_away_that_said_nothing(
    cluster: Cluster, engine: str, kept: set[str]
) -> None:
    """By SIGTERM BIRD and GoBGP send Cease, after which RFC 4724 wants withdrawal; FRR does not."""
    check(row(cluster, Engine(cluster, engine), is_graceful=True), kept=kept)


@pytest.mark.parametrize("engine", ["bird", "frr", "gobgp"])
def test_without_graceful_restart_an_engine_is_withdrawn_at_once(
    cluster: Cluster, engine: str
) -> None:
    check(row(cluster, Engine(cluster, engine), is_graceful=False), kept=set())
