"""The lab's checks: which rows they give when the network doesn't answer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import pytest

from pycni.errors import TryAgain
from pycni.lab import checks, degraded
from pycni.lab.agents import BGP_USER, Agents
from pycni.lab.cluster import Cluster
from pycni.lab.layout import Layout
from pycni.model.network import IPAddress
from pycni.model.resources import IPPool
from pycni.topology.model import Topology, load_topology
from pycni.topology.predict import Prediction, predict

EXERCISE = Path(__file__).parents[3] / "examples" / "exercise.yaml"
OWN6 = {
    "node-0": "fd00:10:10::720",
    "node-1": "fd00:10:10::2489",
    "node-2": "fd00:10:10::4325",
}
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
        return {"peers": peers, "bgp_pid": pids[node], "nat": "unavailable: no nftables"}


@dataclass(frozen=True, slots=True)
class PaperCluster:
    """The part of a cluster that is known without a kernel."""

    topology: Topology
    addresses: dict[str, tuple[IPAddress, ...]]
    agents: PaperAgents = field(default_factory=PaperAgents)
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
        {name: (ip_address(text),) for name, text in addresses.items()},
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


@pytest.fixture
def dual_stack() -> Cluster:
    """The same cluster with IPv6, in which one pod has IPv4 alone."""
    addresses: dict[str, tuple[str, ...]] = {
        "default/dnsutils": ("192.168.39.193", "fd00:192:168::27c0"),
        "default/busybox": ("192.168.39.194",),
        "default/nginx-deployment-69df458bc5-bb87w": ("192.168.247.10", "fd00:192:168::f70a"),
        "default/web": ("192.168.247.11", "fd00:192:168::f70b"),
    }
    paper = PaperCluster(
        load_topology(EXERCISE.with_name("dual-stack.yaml")),
        {name: tuple(map(ip_address, texts)) for name, texts in addresses.items()},
    )
    return cast("Cluster", paper)


def test_pairs_of_an_ip_version_are_of_pods_that_have_it(dual_stack: Cluster) -> None:
    assert len(checks.pairs_of(dual_stack, family=4)) == 12
    assert len(checks.pairs_of(dual_stack, family=6)) == 6
    across = checks.across_nodes(dual_stack, family=6)
    assert across is not None
    assert (str(across.source_address), str(across.address)) == (
        "fd00:192:168::27c0",
        "fd00:192:168::f70a",
    )


def test_nodes_ask_by_the_tunnels_address_or_over_ipv6_by_their_own(dual_stack: Cluster) -> None:
    async def seen_source(place: str, *, address: IPAddress) -> str:
        return OWN6[place] if address.version == 6 else TUNNEL[place]

    async def ask() -> list[checks.Row]:
        asking = checks.pods_see_the_right_source(dual_stack, seen_source=seen_source)
        return [row async for row in asking]

    rows = asyncio.run(ask())

    assert {row.verdict for row in rows} == {checks.Verdict.PASS}
    assert len(rows) == 8
    assert (
        checks.Row(
            "node-1 asks default/dnsutils on node-0 (IPv6)",
            checks.Verdict.PASS,
            "it sees fd00:10:10::2489",
        )
        in rows
    )


def test_wrong_source_over_ipv6_is_a_failure(dual_stack: Cluster) -> None:
    async def seen_source(place: str, *, address: IPAddress) -> str:
        return "fd00:10:10::99" if address.version == 6 else TUNNEL[place]

    async def ask() -> list[checks.Row]:
        asking = checks.pods_see_the_right_source(dual_stack, seen_source=seen_source)
        return [row async for row in asking]

    failed = [row.what for row in asyncio.run(ask()) if row.verdict is checks.Verdict.FAIL]

    assert len(failed) == 4
    assert all(what.endswith("(IPv6)") for what in failed)


def rows_of(asking: AsyncIterator[checks.Row]) -> list[checks.Row]:
    async def collect() -> list[checks.Row]:
        return [row async for row in asking]

    return asyncio.run(collect())


def test_cluster_without_ipv6_is_asked_nothing_of_it(cluster: Cluster) -> None:
    assert rows_of(checks.ipv6_packets_are_plain(cluster)) == []


def test_pods_with_ipv6_on_one_node_have_no_packet_to_watch(dual_stack: Cluster) -> None:
    for name in ("default/nginx-deployment-69df458bc5-bb87w", "default/web"):
        dual_stack.addresses[name] = dual_stack.addresses[name][:1]

    (row,) = rows_of(checks.ipv6_packets_are_plain(dual_stack))

    assert row.verdict is checks.Verdict.SKIP


def test_pods_of_pools_without_nat_are_not_asked_to_leave(dual_stack: Cluster) -> None:
    topology = dual_stack.topology
    resources = tuple(
        replace(r, nat_outgoing=False) if isinstance(r, IPPool) else r for r in topology.resources
    )
    paper = PaperCluster(replace(topology, resources=resources), dual_stack.addresses)

    rows = rows_of(checks.pods_leave_by_their_nodes_address(cast("Cluster", paper)))

    assert [(row.what.partition("(")[2], row.verdict.value) for row in rows] == [
        ("NAT)", "SKIP"),
        ("NAT, IPv6)", "SKIP"),
    ] * 2
    assert rows[1].seen.startswith("no pool with natOutgoing holds fd00:192:168::")


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


async def told(asking: AsyncIterator[checks.Row]) -> list[tuple[str, str, str]]:
    return [(row.what, row.verdict.value, row.seen) async for row in asking]


def test_dead_agent_costs_no_other_nodes_row_of_sessions(cluster: Cluster) -> None:
    assert asyncio.run(told(checks.sessions_are_up(cluster))) == [
        ("node-0: BGP sessions", "PASS", "2 of 2 up"),
        ("node-1: BGP sessions", "FAIL", "the agent of node-1 does not answer"),
        ("node-2: BGP sessions", "FAIL", "1 of 2 up"),
    ]


def test_dead_agent_and_dead_exabgp_cost_no_other_nodes_row_of_privileges(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text(f"Name:\tx\nUid:\t{BGP_USER}\t1\t1\t1\n")

    assert asyncio.run(told(checks.exabgp_is_unprivileged(cluster, proc=tmp_path))) == [
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

    rows = asyncio.run(told(checks.pods_leave_by_their_nodes_address(cluster)))

    nginx = "default/nginx-deployment-69df458bc5-bb87w asks outside (NAT)"
    assert sorted(rows) == [
        ("default/dnsutils asks outside (NAT)", "FAIL", "the agent of node-0 does not answer"),
        (nginx, "SKIP", f"degraded: {degraded.LOSS}"),
    ]


def test_every_title_fits_into_its_column(dual_stack: Cluster) -> None:
    async def seen_source(place: str, *, address: IPAddress) -> str:
        return OWN6[place] if address.version == 6 else TUNNEL[place]

    async def ask() -> list[str]:
        rows = checks.pods_see_the_right_source(dual_stack, seen_source=seen_source)
        return [row.what async for row in rows]

    titles = asyncio.run(ask())

    assert max(map(len, titles)) == len(
        "node-1 asks default/nginx-deployment-69df458bc5-bb87w on node-2 (IPv6)"
    )
    assert all(len(title) <= checks.title_width(dual_stack) for title in titles)
