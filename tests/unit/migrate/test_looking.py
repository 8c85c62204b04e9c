"""What is looked at on a node: its files, its processes, its firewall, by small programs."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pycni.endpoints import FileEndpoints
from pycni.errors import InvalidInput, ServerAway, TryAgain
from pycni.migrate import looking
from pycni.migrate.cluster import POOLS, Verdict
from pycni.migrate.looking import Node
from pycni.migrate.plan import Found
from pycni.model.endpoints import EndpointKey, PendingRelease
from pycni.model.network import KernelState
from pycni.model.resources import IPPool
from tests.unit.migrate.found import FOUND
from tests.unit.migrate.found import POOLS as CIDRS
from tests.unit.migrate.test_plan import WEB_RECORD

RULES = "*filter\n:cali-FORWARD - [0:0]\nCOMMIT\n"
REMOVAL = "*filter\n:cali-FORWARD - [0:0]\n-X cali-FORWARD\nCOMMIT\n"


class ToldDocuments:
    """A cluster that answers what it was told, or raises."""

    def __init__(self, answers: Mapping[str, Sequence[Any] | Exception]) -> None:
        self.answers = answers
        self.conditions: list[tuple[str, str, str]] = []

    async def list(self, path: str) -> Sequence[dict[str, Any]]:
        answer = self.answers.get(path, ())
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def set_condition(self, node: str, *, kind: str, status: str, reason: str) -> None:
        assert reason
        self.conditions.append((node, kind, status))


def judged(answer: Sequence[Any] | Exception) -> Verdict:
    return asyncio.run(looking.look_at_cluster(ToldDocuments({POOLS: answer})))


def test_a_cluster_is_judged_as_far_as_it_may_be_looked_at() -> None:
    pool = {"metadata": {"name": "p"}, "spec": {"cidr": "10.0.0.0/16"}}

    assert judged([pool]).kept == ["IPPool p: 10.0.0.0/16, ipipMode Never"]
    assert judged(TryAgain("denied")).attention == ["not looked at: ippools (denied)"]
    with pytest.raises(ServerAway):
        judged(ServerAway("it does not answer"))


# --- a node of files and small programs ---------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/bin:/usr/bin")
    monkeypatch.setattr(looking, "SAVES", looking.SAVES[:2])
    for name in ("iptables-nft-save", "ip6tables-nft-save", "nft"):
        program(directory, name, "")
    return directory


def program(directory: Path, name: str, output: str, *, status: int = 0) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\ncat <<'X'\n{output}X\nexit {status}\n")
    path.chmod(0o755)


def test_calicos_rules_are_found_in_each_firewall(programs: Path) -> None:
    program(programs, "ip6tables-nft-save", RULES)

    assert asyncio.run(looking.firewalls()) == {"ip6tables-nft-restore": REMOVAL}


def test_a_firewall_that_can_not_be_read_is_refused_where_calico_has_rules(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(programs))
    for name in ("iptables-nft-save", "ip6tables-nft-save"):
        (programs / name).unlink()
    (programs / "nft").write_text("#!/bin/sh\necho '  chain cali-FORWARD {'\n")
    with pytest.raises(InvalidInput, match="there is no iptables-nft-save here"):
        asyncio.run(looking.firewalls())

    (programs / "nft").write_text("#!/bin/sh\necho '  chain FORWARD {'\n")
    assert asyncio.run(looking.firewalls()) == {}

    (programs / "nft").unlink()
    assert asyncio.run(looking.firewalls()) == {}


def test_older_tables_are_read_only_where_there_are_some(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tmp_path / "names"
    monkeypatch.setattr(looking, "SAVES", (("iptables-legacy", names),))
    program(programs, "iptables-legacy-save", RULES)
    assert asyncio.run(looking.firewalls()) == {}

    names.write_text("")
    assert asyncio.run(looking.firewalls()) == {}

    names.write_text("filter\n")
    assert asyncio.run(looking.firewalls()) == {"iptables-legacy-restore": REMOVAL}

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidInput, match="there is no iptables-legacy-save here"):
        asyncio.run(looking.firewalls())


def test_of_processes_only_those_of_these_names_count() -> None:
    own = Path("/proc/self/comm").read_text().strip()

    assert looking.processes(frozenset({"no such program"})) == []
    assert any(one.startswith(f"{own} (pid ") for one in looking.processes(frozenset({own})))


def test_only_what_a_runtime_reads_is_a_network_configuration(tmp_path: Path) -> None:
    (tmp_path / "10-calico.conflist").write_text("{}")
    (tmp_path / "10-calico.conflist.before-pycni").write_text("{}")
    (tmp_path / "calico-kubeconfig").write_text("secret")

    assert looking.read_files(tmp_path) == {"10-calico.conflist": "{}"}
    assert looking.read_files(tmp_path / "none") == {}


class Kernel:
    async def snapshot(self, sysctls: Sequence[str]) -> KernelState:
        assert not sysctls
        return FOUND.kernel

    def close(self) -> None:
        """Nothing is open."""


def look(node: Node) -> Found:
    from pycni.datastore.memory import MemoryDatastore

    async def story() -> Found:
        store = MemoryDatastore()
        await store.create(IPPool("p", CIDRS[0]))
        await store.create(FOUND.blocks[0])
        return await looking.look_at_node(node, store, agent=FOUND.agent)

    return asyncio.run(story())


def test_a_node_is_looked_at_without_making_anything(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "LinuxKernel", Kernel)
    monkeypatch.setattr(looking, "find_ends", dict)
    program(programs, "nft", "table ip calico\n")
    node = Node("node-0", tmp_path / "run", tmp_path / "state", tmp_path / "net")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "10.conflist").write_text(json.dumps({"type": "pycni", "name": "n"}))

    found = look(node)

    assert (found.pools, found.blocks, found.kernel) == (CIDRS, FOUND.blocks, FOUND.kernel)
    assert (found.networks.own, found.tables) == ("10.conflist", ("ip calico",))
    assert (found.records, found.debts) == ((), 0)
    assert not node.run_dir.exists()


def test_records_and_debts_are_read_and_a_damaged_one_is_named(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert programs.is_dir()
    monkeypatch.setattr(looking, "LinuxKernel", Kernel)
    monkeypatch.setattr(looking, "find_ends", dict)
    endpoints = FileEndpoints(run_dir=tmp_path / "run", state_dir=tmp_path)
    endpoints.put(WEB_RECORD)
    endpoints.journal(PendingRelease(EndpointKey("n", "c", "eth0"), "n.c"))
    node = Node("node-0", tmp_path / "run", tmp_path, tmp_path / "net")

    found = look(node)
    assert (found.records, found.debts) == ((WEB_RECORD,), 1)

    (tmp_path / "run" / "endpoints" / "x.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"x\.json"):
        look(node)
