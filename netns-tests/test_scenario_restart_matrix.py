"""Whoever restarts, however, with graceful restart or without: what a stream loses meanwhile."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

import routers
from cluster import DNSUTILS, Cluster, eventually, lab
from peerings import apply
from route_monitor import monitored
from routers import NODES, Router

pytestmark = [
    pytest.mark.netns, pytest.mark.peers, pytest.mark.long, pytest.mark.timeout(360),
]  # fmt: skip

TARGET = "192.168.247.10"
LEARNED = "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"
SECONDS = 9
AWAY_S = 1.0
WITHDRAWN_S = 8.0
"""At once, on whatever machine: by its hold timer node-0 would notice after nine seconds."""
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
        wait_until_away(self.cluster)
        self.cluster.lab("agent", "start", "node-2")

    def leave(self) -> None:
        """Nothing is in anybody's place."""


class ExaBgp(Agent):
    """Node-2's ExaBGP alone: its agent starts another one by itself."""

    former = 0

    def end(self, signal: str) -> None:
        self.former = self.cluster.kill_exabgp("node-2", signal)

    def resume(self) -> None:
        """Its agent does that."""
        eventually(lambda: self.cluster.exabgp("node-2") != self.former, within_s=60)


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
        wait_until_away(self.cluster)
        routers.start(self.cluster, self.name, self.router)
        wait_until_settled(self.cluster, is_graceful=is_graceful)

    def end(self, signal: str) -> None:
        routers.end(self.cluster, self.router, signal)

    def resume(self) -> None:
        wait_until_away(self.cluster)
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


def wait_until_away(cluster: Cluster) -> None:
    """Wait until node-0 has noticed that nobody speaks for node-2.

    What it says before that would be taken for the session of whoever comes next.
    """

    def has_session() -> bool:
        rows = {peer["peer"]: peer for peer in cluster.status("node-0")["peers"]}
        return bool(rows[NODES["node-2"]]["state"] == "up")

    eventually(lambda: not has_session(), within_s=60)


def wait_until_settled(cluster: Cluster, *, is_graceful: bool) -> None:
    status = partial(cluster.status, "node-0")
    eventually(partial(is_settled, cluster, is_graceful=is_graceful), within_s=60, what=status)


def is_settled(cluster: Cluster, *, is_graceful: bool) -> bool:
    """Whether node-2's session with node-0 is up, as it is to be, and both have told all."""
    rows = {peer["peer"]: peer for peer in cluster.status("node-0")["peers"]}
    peer = rows[NODES["node-2"]]
    has_told = peer["state"] == "up" and peer["paths"] and not peer["stale"]
    is_as_wanted = bool(peer["restart_time_s"]) is is_graceful
    back = any(line.startswith("192.168.39.192/26 via ") for line in cluster.routes("node-2"))
    return bool(has_told) and is_as_wanted and back and is_learned(cluster)


def was_withdrawn(log: Path) -> bool:
    return f"Deleted {LEARNED.partition(' ')[0]} " in log.read_text()


def cell(
    cluster: Cluster, subject: Agent, signal: str, log: Path, *, is_graceful: bool, is_kept: bool
) -> Cell:
    """End the subject, and resume it a second later or, if its route is to go, when it has gone."""
    with (
        monitored(cluster, "node-0", log),
        cluster.stream(DNSUTILS, TARGET, seconds=SECONDS) as losses,
    ):
        subject.end(signal)
        if is_kept:
            time.sleep(AWAY_S)
        else:
            eventually(partial(was_withdrawn, log), within_s=WITHDRAWN_S, what=log.read_text)
        subject.resume()
        wait_until_settled(cluster, is_graceful=is_graceful)
    return Cell(WITHDRAWN if was_withdrawn(log) else KEPT, losses[0].lost)


def require(
    cluster: Cluster, subject: Agent, directory: Path, *, is_graceful: bool, kept: set[str]
) -> None:
    """End a subject by SIGTERM and by SIGKILL; after those in `kept`, no packet may be lost."""
    try:
        subject.begin(is_graceful=is_graceful)
        found = {
            signal: cell(
                cluster, subject, signal, directory / signal,
                is_graceful=is_graceful, is_kept=signal in kept,
            )
            for signal in ("TERM", "KILL")
        }  # fmt: skip
    finally:
        subject.leave()
    print(found)  # noqa: T201 - the figures of docs/restarts.md
    assert {signal for signal, one in found.items() if one.route == KEPT} == kept
    assert {signal for signal, one in found.items() if one.lost == 0} == kept


@pytest.mark.parametrize("subject", [Agent, ExaBgp])
def test_no_packet_is_lost_while_ours_restarts_gracefully(
    cluster: Cluster, subject: type[Agent], tmp_path: Path
) -> None:
    require(cluster, subject(cluster), tmp_path, is_graceful=True, kept={"TERM", "KILL"})


@pytest.mark.parametrize("subject", [Agent, ExaBgp])
def test_without_graceful_restart_ours_is_withdrawn_at_once(
    cluster: Cluster, subject: type[Agent], tmp_path: Path
) -> None:
    require(cluster, subject(cluster), tmp_path, is_graceful=False, kept=set())


@pytest.mark.parametrize(
    ("engine", "kept"), [("bird", {"KILL"}), ("frr", {"TERM", "KILL"}), ("gobgp", {"KILL"})]
)
def test_no_packet_is_lost_while_an_engine_is_away_that_said_nothing(
    cluster: Cluster, engine: str, kept: set[str], tmp_path: Path
) -> None:
    """By SIGTERM BIRD and GoBGP send Cease, after which RFC 4724 wants withdrawal; FRR does not."""
    require(cluster, Engine(cluster, engine), tmp_path, is_graceful=True, kept=kept)


@pytest.mark.parametrize("engine", ["bird", "frr", "gobgp"])
def test_without_graceful_restart_an_engine_is_withdrawn_at_once(
    cluster: Cluster, engine: str, tmp_path: Path
) -> None:
    require(cluster, Engine(cluster, engine), tmp_path, is_graceful=False, kept=set())
