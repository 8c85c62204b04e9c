"""`pycnictl migrate` as a command: who may, what it asks of datastore and agent."""

import json
import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from pycni.ctl import migrate
from pycni.ctl.main import main
from pycni.migrate.doing import Journal
from pycni.migrate.looking import Node
from pycni.migrate.plan import Agent, Found
from pycni.migrate.record import Migration, Stage
from tests.unit.ctl.conftest import Machine
from tests.unit.migrate.found import FOUND
from tests.unit.migrate.test_looking import ToldDocuments


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def words(machine: Machine, *more: str) -> list[str]:
    config = machine.path / "agent.yaml"
    config.write_text(json.dumps({"run_dir": str(machine.run_dir), "state_dir": str(machine.path)}))
    return ["--datastore", str(machine.database), "migrate", *more, "--config", str(config)]


def said(machine: Machine, *more: str, status: int) -> str:
    machine.capsys.readouterr()
    assert main(words(machine, *more)) == status
    return machine.capsys.readouterr().err


def test_only_root_may_migrate(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert "use sudo" in said(machine, "--from", "calico", status=1)


@pytest.mark.usefixtures("root")
def test_calicos_objects_are_in_a_cluster_alone(machine: Machine) -> None:
    machine.ctl("configure", "--strict-affinity", "true")

    assert "this datastore is a file" in said(machine, "--from", "calico", status=2)


@pytest.mark.usefixtures("root")
def test_there_is_no_way_back_without_a_migration(machine: Machine) -> None:
    machine.ctl("configure", "--strict-affinity", "true")

    assert "there is nothing to go back from" in said(machine, "--back", status=1)


@pytest.mark.parametrize("line", [[], ["--from", "flannel"], ["--back", "--from", "calico"]])
def test_a_way_has_to_be_named(machine: Machine, line: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words(machine, *line))

    assert ended.value.code == 2


# --- a node whose kernel and cluster are told ---------------------------------------------------


@pytest.fixture
def told(
    machine: Machine, root: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Found], ToldDocuments]:
    """Return what says which node it is that is looked at."""
    assert root is None
    machine.ctl("configure", "--strict-affinity", "true")
    documents = ToldDocuments({})
    monkeypatch.setattr(migrate, "documents_of", lambda _: documents)

    def tell(found: Found) -> ToldDocuments:
        async def look(node: Node, datastore: object, *, agent: Agent) -> Found:
            assert (node.name, datastore is None) == (found.node, False)
            there = tuple(name for name in found.networks.calico if (node.net_dir / name).exists())
            return replace(found, agent=agent, networks=replace(found.networks, calico=there))

        monkeypatch.setattr(migrate, "look_at_node", look)
        return documents

    return tell


def run(machine: Machine, *more: str, status: int) -> str:
    machine.capsys.readouterr()
    place = ["--node", "node-0", "--net-dir", str(machine.path)]
    assert main([*words(machine, *more), *place]) == status
    printed = machine.capsys.readouterr()
    return printed.out + printed.err


def test_the_plan_is_shown_and_names_what_comes_first(
    machine: Machine, told: Callable[[Found], ToldDocuments]
) -> None:
    told(FOUND)

    shown = run(machine, "--from", "calico", status=3)

    assert "pycni's agent doesn't run here: start it" in shown
    assert "take over default/web: 192.168.39.193 by" in shown
    assert shown.endswith("before what is named above is settled\n")
    assert run(machine, "--from", "calico", "--yes", status=3) == shown


@pytest.mark.parametrize(
    ("status", "complaint"),
    [
        ({"node": "node-9", "converged": True}, "the agent here is node node-9's"),
        ({"node": "node-0", "converged": False}, "pycni's agent does not serve yet"),
    ],
)
def test_the_agent_has_to_serve_this_node(
    agent: Machine, told: Callable[[Found], ToldDocuments], status: object, complaint: str
) -> None:
    told(FOUND)
    agent.answers["status"] = status

    assert complaint in run(agent, "--from", "calico", status=3)


def test_an_agent_that_gives_no_answer_counts_as_none(
    machine: Machine, told: Callable[[Found], ToldDocuments]
) -> None:
    told(FOUND)
    (machine.run_dir / "control.sock").write_text("")

    assert "no agent answers at" in run(machine, "--from", "calico", status=3)


def test_a_node_is_taken_over_and_given_back(
    agent: Machine, told: Callable[[Found], ToldDocuments]
) -> None:
    agent.answers["status"] = {"node": "node-0", "converged": True}
    told(replace(FOUND, blocks=()))
    (agent.path / "10-calico.conflist").write_text("{}")

    assert "nothing was changed: sudo pycnictl migrate --from calico --yes" in run(
        agent, "--from", "calico", status=0
    )
    assert "node-0 is pycni's" in run(agent, "--from", "calico", "--yes", status=0)
    again = run(agent, "--from", "calico", "--yes", status=0)
    assert again.endswith(
        "node-0 is pycni's already; sudo pycnictl migrate --back  gives it back\n"
    )
    assert "pycni's agent runs" in run(agent, "--back", status=3)
    (agent.run_dir / "control.sock").unlink()
    assert "nothing was changed: sudo pycnictl migrate --back --yes" in run(
        agent, "--back", status=0
    )
    assert "node-0 is Calico's again" in run(agent, "--back", "--yes", status=0)


def test_a_node_that_never_was_calicos_gets_no_way_back(
    agent: Machine, told: Callable[[Found], ToldDocuments]
) -> None:
    agent.answers["status"] = {"node": "node-0", "converged": True}
    told(replace(FOUND, blocks=()))

    for more in ((), ("--yes",)):
        shown = run(agent, "--from", "calico", *more, status=0)
        assert shown.endswith("nothing of Calico's is on node-0: there is nothing to migrate\n")

    assert "this node was not migrated from Calico" in run(agent, "--back", status=1)


def test_a_migration_that_stopped_behind_its_last_step_is_ended(
    agent: Machine, told: Callable[[Found], ToldDocuments]
) -> None:
    agent.answers["status"] = {"node": "node-0", "converged": True}
    told(replace(FOUND, blocks=()))
    journal = Journal(agent.path)
    journal.write(Migration("node-0"))

    assert "node-0 is pycni's;" in run(agent, "--from", "calico", "--yes", status=0)
    assert journal.need().stage is Stage.DONE
