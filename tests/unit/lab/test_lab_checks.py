"""The lab's checks: which rows they give when the network doesn't answer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import pytest

from pycni.errors import TryAgain
from pycni.lab import checks
from pycni.lab.agents import BGP_USER, Agents
from pycni.lab.cluster import Cluster
from pycni.lab.layout import Layout
from pycni.model.network import IPAddress
from pycni.topology.model import Topology, load_topology
from pycni.topology.predict import Prediction, predict

EXERCISE = Path(__file__).parents[3] / "examples" / "exercise.yaml"
TUNNEL = {"node-0": "192.168.39.192", "node-1": "192.168.84.128", "node-2": "192.168.247.0"}


class PaperAgents:
    """Agents of which one is dead."""

    dead = "node-1"

    async def ask(self, node: str, question: str) -> dict[str, object]:
        assert question == "status"
        if node == self.dead:
            raise TryAgain(f"the agent of {node} does not answer")
        peers = [{"state": "up"}, {"state": "down" if node == "node-2" else "up"}]
        pids = {"node-0": 7, "node-2": None}
        return {"peers": peers, "bgp_pid": pids[node], "nat": "absent"}


@dataclass(frozen=True, slots=True)
class PaperCluster:
    """The part of a cluster that is known without a kernel."""

    topology: Topology
    addresses: dict[str, IPAddress]
    agents: "PaperAgents"
    can_drop_privileges: bool = True

    @property
    def node_names(self) -> list[str]:
        return [node.name for node in self.topology.nodes]

    async def prediction(self) -> Prediction:
        return await predict(self.topology)


@pytest.fixture
def cluster() -> Cluster:
    addresses = {
        "default/dnsutils": "192.168.39.193",
        "default/busybox": "192.168.39.194",
        "default/nginx-deployment-69df458bc5-bb87w": "192.168.247.10",
        "default/web": "192.168.247.11",
    }
    paper = PaperCluster(
        load_topology(EXERCISE),
        {name: ip_address(text) for name, text in addresses.items()},
        PaperAgents(),
    )
    # A fake: it has what the check asks for, and nothing else.
    return cast("Cluster", paper)


def test_question_that_fails_has_its_title_in_the_row(cluster: Cluster) -> None:
    seen = checks.Row("node-0: BGP sessions", checks.Verdict.PASS)

    async def ask_in_vain(_: Cluster) -> AsyncIterator[checks.Row]:
        """Be no title."""
        yield seen
        raise TryAgain("nobody is there")

    shown: list[checks.Row] = []

    async def show(row: checks.Row) -> None:
        shown.append(row)

    vain = checks.Check("BGP sessions", ask_in_vain)
    is_right = asyncio.run(checks.run_all(cluster, show=show, made=[vain]))

    assert not is_right
    assert shown == [seen, checks.Row("BGP sessions", checks.Verdict.FAIL, "nobody is there")]


def test_titles_are_short_and_each_names_one_check() -> None:
    titles = [check.title for check in checks.CHECKS]

    assert len(set(titles)) == len(titles)
    assert all(0 < len(title) <= 30 and not title.endswith(".") for title in titles)


def test_agent_that_does_not_answer_is_named_with_what_to_do(tmp_path: Path) -> None:
    @dataclass(frozen=True, slots=True)
    class PaperLayout(Layout):
        def run_dir(self, node: str) -> Path:
            return tmp_path / node

    with pytest.raises(TryAgain) as refused:
        asyncio.run(Agents(PaperLayout("lab")).ask("node-1", "status"))

    assert "bin/lab agent start node-1" in str(refused.value)
    assert "Errno" not in str(refused.value)


def test_node_that_reaches_nobody_costs_no_other_nodes_rows(cluster: Cluster) -> None:
    async def seen_source(place: str, *, address: IPAddress) -> str:
        if place == "node-1":
            raise TryAgain(f"{place} can't fetch http://{address}/")
        return TUNNEL[place]

    async def ask() -> list[checks.Row]:
        asking = checks.pods_see_the_right_source(cluster, seen_source=seen_source)
        return [row async for row in asking]

    rows = asyncio.run(ask())

    nginx = "default/nginx-deployment-69df458bc5-bb87w on node-2"
    assert sorted((row.what, row.verdict.value) for row in rows) == [
        (f"node-0 asks {nginx}", "PASS"),
        ("node-1 asks default/dnsutils on node-0", "FAIL"),
        (f"node-1 asks {nginx}", "FAIL"),
        ("node-2 asks default/dnsutils on node-0", "PASS"),
    ]


async def rows_of(asking: AsyncIterator[checks.Row]) -> list[tuple[str, str, str]]:
    return [(row.what, row.verdict.value, row.seen) async for row in asking]


def test_dead_agent_costs_no_other_nodes_row_of_sessions(cluster: Cluster) -> None:
    assert asyncio.run(rows_of(checks.sessions_are_up(cluster))) == [
        ("node-0: BGP sessions", "PASS", "2 of 2 up"),
        ("node-1: BGP sessions", "FAIL", "the agent of node-1 does not answer"),
        ("node-2: BGP sessions", "FAIL", "1 of 2 up"),
    ]


def test_dead_agent_and_dead_exabgp_cost_no_other_nodes_row_of_privileges(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text(f"Name:\tx\nUid:\t{BGP_USER}\t1\t1\t1\n")

    assert asyncio.run(rows_of(checks.exabgp_is_unprivileged(cluster, proc=tmp_path))) == [
        ("node-0: ExaBGP has no root", "PASS", f"it runs as user {BGP_USER}"),
        ("node-1: ExaBGP has no root", "FAIL", "the agent of node-1 does not answer"),
        (
            "node-2: ExaBGP has no root",
            "FAIL",
            "no ExaBGP runs there: it ends, or is just being started",
        ),
    ]


def test_dead_agent_costs_no_other_nodes_row_of_nat(cluster: Cluster) -> None:
    cast("PaperAgents", cluster.agents).dead = "node-0"

    rows = asyncio.run(rows_of(checks.pods_leave_by_their_nodes_address(cluster)))

    nginx = "default/nginx-deployment-69df458bc5-bb87w asks outside (NAT)"
    assert sorted(rows) == [
        ("default/dnsutils asks outside (NAT)", "FAIL", "the agent of node-0 does not answer"),
        (nginx, "SKIP", "no pool wants natOutgoing"),
    ]
