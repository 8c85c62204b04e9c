"""A plan's steps on a node of files: in which order, what is kept, and what a repeated run does."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pycni.agent.claim import claim_run_dir
from pycni.datastore.memory import MemoryDatastore
from pycni.endpoints import FileEndpoints
from pycni.errors import InvalidInput, NotFound, TryAgain
from pycni.migrate import doing
from pycni.migrate.doing import Doing, Journal
from pycni.migrate.looking import Node
from pycni.migrate.record import Migration, Moved, Stage, parse_migration
from pycni.migrate.steps import (
    ClearCondition,
    HandOver,
    LetGo,
    Plan,
    RemoveRules,
    RemoveTable,
    Rename,
    Step,
    TakeOver,
)
from pycni.model.network import DeleteRoute, Failure, Op, ReplaceRoute
from pycni.plan.ownership import alias_of
from tests.unit.migrate.found import FOUND, learned
from tests.unit.migrate.test_looking import ToldDocuments
from tests.unit.migrate.test_plan import WEB_RECORD

CALICO = Rename("10-calico.conflist", "10-calico.conflist.before-pycni")
ALIAS = alias_of(WEB_RECORD.key)


class Host:
    """A node: its ifaliases, its routes and programs, as the shells would leave them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.aliases = {WEB_RECORD.host_veth: ""}
        self.ops: list[Op] = []
        self.failures: list[Failure] = []
        self.ran: list[tuple[str, ...]] = []
        self.said: list[str] = []
        self.working: list[list[str]] = []
        self.documents = ToldDocuments({})
        self.store = MemoryDatastore()
        self.endpoints = FileEndpoints(run_dir=directory / "run", state_dir=directory)
        (directory / "10-calico.conflist").write_text("{}")

    def name_end(self, host_veth: str, *, alias: str, expected: Sequence[str]) -> bool:
        if self.aliases.get(host_veth) not in (alias, *expected):
            return False
        self.aliases[host_veth] = alias
        return True

    async def apply(self, ops: Sequence[Op]) -> Sequence[Failure]:
        self.ops += ops
        return self.failures

    def close(self) -> None:
        """Nothing is open."""

    async def run(self, *words: str, stdin: str = "") -> str:
        self.ran.append((*words, stdin) if stdin else words)
        return ""

    def processes(self, names: frozenset[str]) -> list[str]:
        assert names == {"calico", "calico-ipam"}
        return self.working.pop(0) if self.working else []

    @property
    def journal(self) -> Journal:
        return Journal(self.directory)

    def work(self, *plans: list[Step] | Plan, back: bool = False) -> None:
        """Migrate, or go back, by these plans, after which nothing is left to do."""
        waiting = iter([*plans, *([[]] * 20)])

        async def make_plan() -> Plan:
            plan = next(waiting)
            return plan if isinstance(plan, Plan) else Plan("plan", plan)

        async def story() -> None:
            if not (await self.store.list(type(FOUND.blocks[0]))).items:
                await self.store.create(FOUND.blocks[0])
            node = Node("node-0", self.directory / "run", self.directory, self.directory)
            work = Doing(
                node, self.store, self.endpoints, self.journal, self.documents, self.said.append
            )
            await (work.go_back(make_plan) if back else work.migrate(make_plan))

        asyncio.run(story())


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setattr(doing, "name_end", made.name_end)
    monkeypatch.setattr(doing, "LinuxKernel", lambda: made)
    monkeypatch.setattr(doing, "output_of", made.run)
    monkeypatch.setattr(doing, "processes", made.processes)
    return made


def stage(host: Host) -> Stage | None:
    migration = host.journal.read()
    return None if migration is None else migration.stage


def test_each_step_has_its_effect(host: Host) -> None:
    table, rules = RemoveTable("ip calico"), RemoveRules("iptables-nft-restore", "*filter\n")
    old, new = learned(protocol=80), learned()

    host.work(
        [
            CALICO,
            TakeOver(WEB_RECORD),
            HandOver(old, new),
            HandOver(old, None),
            rules,
            table,
            ClearCondition("node-0"),
        ]
    )

    assert (host.directory / CALICO.target).exists()
    assert not (host.directory / CALICO.source).exists()
    assert host.endpoints.list() == [WEB_RECORD]
    assert host.aliases == {WEB_RECORD.host_veth: ALIAS}
    assert host.ops == [ReplaceRoute(old, new), DeleteRoute(old)]
    assert host.ran == [
        ("iptables-nft-restore", "--noflush", "*filter\n"),
        ("nft", "delete", "table", "ip", "calico"),
    ]
    assert host.documents.conditions == [("node-0", "NetworkUnavailable", "False")]
    assert len(host.said) == 7
    assert host.journal.read() == Migration(
        "node-0",
        Stage.DONE,
        (Moved(CALICO.source, CALICO.target),),
        (("192.168.84.128/26", 80),),
    )


def test_what_will_be_done_is_on_disk_before_it_is_done(host: Host) -> None:
    host.failures = [Failure(DeleteRoute(learned()), 101, "network unreachable")]

    with pytest.raises(TryAgain, match="network unreachable"):
        host.work([HandOver(learned(protocol=80), learned()), CALICO])

    assert host.journal.read() == Migration(
        "node-0",
        Stage.GOING,
        (Moved(CALICO.source, CALICO.target),),
        (("192.168.84.128/26", 80),),
    )


def test_nothing_is_begun_while_something_stands_in_the_way(host: Host) -> None:
    with pytest.raises(InvalidInput, match="IPPool one uses VXLAN\nfirst stop calico-node"):
        host.work(
            Plan(
                "plan",
                [CALICO],
                refused=["IPPool one uses VXLAN"],
                first=["first stop calico-node"],
            )
        )

    assert stage(host) is None
    assert (host.directory / CALICO.source).exists()


def test_a_request_of_calicos_that_has_begun_is_waited_for(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.working = [["calico (pid 7)"], []]
    host.work([CALICO], [TakeOver(WEB_RECORD)])
    assert host.endpoints.list() == [WEB_RECORD]

    (host.directory / CALICO.source).write_text("{}")
    monkeypatch.setattr(doing, "PLUGIN_S", 0.01)
    host.working = [["calico (pid 7)"]] * 100
    with pytest.raises(TryAgain, match=r"Calico's plugin still works: calico \(pid 7\)"):
        host.work([CALICO])


def test_a_run_that_was_killed_while_it_waited_is_not_the_end_of_that_request(host: Host) -> None:
    host.journal.write(Migration("node-0", moved=(Moved(CALICO.source, CALICO.target),)))
    host.working = [["calico (pid 7)"], ["calico (pid 7)"], []]

    host.work()

    assert host.working == []
    assert stage(host) is Stage.DONE


def test_a_pod_whose_deletion_was_faster_is_not_taken_over(host: Host) -> None:
    gone = replace(WEB_RECORD, handle_id="k8s-pod-network.other")

    host.work([TakeOver(gone)])

    assert host.endpoints.list() == []
    assert host.aliases == {WEB_RECORD.host_veth: ""}


def test_a_record_without_an_interface_goes_and_one_that_was_there_stays(host: Host) -> None:
    host.aliases = {}
    host.work([TakeOver(WEB_RECORD)])
    assert host.endpoints.list() == []

    host.endpoints.put(WEB_RECORD)
    host.work([TakeOver(WEB_RECORD)])
    assert host.endpoints.list() == [WEB_RECORD]


def test_an_interface_gets_its_name_after_the_record(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[int] = []

    def name_end(*_: str, **__: object) -> bool:
        recorded.append(len(host.endpoints.list()))
        return True

    monkeypatch.setattr(doing, "name_end", name_end)
    host.work([TakeOver(WEB_RECORD)])
    host.work([LetGo(WEB_RECORD)], back=True)

    # Without a record, an interface that is named ours loses its route.
    assert recorded == [1, 1]
    assert host.endpoints.list() == []


def test_the_way_back_ends_with_nothing_to_remember(host: Host) -> None:
    host.work([CALICO, TakeOver(WEB_RECORD)])

    host.work([Rename(CALICO.target, CALICO.source), LetGo(WEB_RECORD)], back=True)

    assert (host.directory / CALICO.source).exists()
    assert host.endpoints.list() == []
    assert host.aliases == {WEB_RECORD.host_veth: ""}
    assert stage(host) is None
    with pytest.raises(NotFound, match="there is nothing to go back from"):
        host.work(back=True)


def test_there_is_no_way_back_while_an_agent_runs_even_one_that_hangs(host: Host) -> None:
    host.work([TakeOver(WEB_RECORD)])
    lock = claim_run_dir(host.directory / "run")

    with pytest.raises(TryAgain, match="an agent runs in"):
        host.work([LetGo(WEB_RECORD)], back=True)

    assert host.aliases == {WEB_RECORD.host_veth: ALIAS}
    assert stage(host) is Stage.DONE
    os.close(lock)
    host.work([LetGo(WEB_RECORD)], back=True)
    assert stage(host) is None


def test_no_agent_begins_to_run_on_the_way_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.work([TakeOver(WEB_RECORD)])

    def start_one(*_: object, **__: object) -> bool:
        with pytest.raises(TryAgain, match="an agent runs in"):
            claim_run_dir(host.directory / "run")
        return True

    monkeypatch.setattr(doing, "name_end", start_one)
    host.work([LetGo(WEB_RECORD)], back=True)

    assert stage(host) is None


def test_a_way_back_that_has_begun_is_ended_before_anything_else(host: Host) -> None:
    host.journal.write(Migration("node-0", Stage.RETURNING))

    with pytest.raises(InvalidInput, match="the way back has begun"):
        host.work([CALICO])


def test_another_nodes_migration_is_not_gone_on_with(host: Host) -> None:
    host.journal.write(Migration("node-9", Stage.GOING))

    with pytest.raises(InvalidInput, match="it was node node-9 that was migrated"):
        host.work([CALICO])


def test_what_never_ends_is_given_up(host: Host) -> None:
    again: Callable[[], list[Step]] = lambda: [RemoveTable("ip calico")]  # noqa: E731

    with pytest.raises(TryAgain, match="there is always more to do"):
        host.work(*(again() for _ in range(doing.ROUNDS)))


def test_the_file_says_who_may_read_it(host: Host) -> None:
    host.work([CALICO])

    assert host.journal.path.stat().st_mode & 0o777 == 0o600
    assert parse_migration(host.journal.path.read_text(), source="").stage is Stage.DONE
