"""bin/lab's exit statuses: 2 for a mistake in the words, 1 for a failure."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pycni.ctl.usage import exit_status_of
from pycni.errors import InvalidInput, PycniError
from pycni.lab import cli
from pycni.lab.cluster import Cluster
from pycni.lab.launch import make_plan
from pycni.lab.layout import Layout, Plan
from pycni.topology.model import load_topology

EXERCISE = Path(__file__).parents[3] / "examples" / "exercise.yaml"


@pytest.fixture
def cluster() -> Cluster:
    plan = Plan(topology="", source="", tunnel="ipip", where="host", clone="")
    return Cluster(plan, layout=Layout("lab"), topology=load_topology(EXERCISE))


@pytest.mark.parametrize(
    "ask",
    [
        lambda cluster: cluster.find_place("nope"),
        lambda cluster: cluster.find_pod("nope"),
        lambda cluster: cluster.require_node("nope"),
    ],
)
def test_name_of_nothing_is_wrong_usage(cluster: Cluster, ask: Callable[[Cluster], object]) -> None:
    with pytest.raises(PycniError, match=r"'nope'.*: use one of .*") as refused:
        ask(cluster)

    assert exit_status_of(refused.value) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nonsense", "invalid choice"),
        ("pod add x --node node-0", "must be namespace/name"),
        ("pod add default/x --node node-0 --address 1.2", "pod.address: '1.2'"),
        ("pod add default/x", "pod add needs --node"),
        ("pod del default/x --address 1.2.3.4", "neither --node nor --address"),
        ("exec node-0", "exec needs a command"),
        ("show --name Capital", "--name 'Capital'"),
    ],
)
def test_words_that_no_lab_could_obey_are_wrong_usage(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words.split())

    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_unreadable_topology_is_a_failure_and_no_wrong_usage() -> None:
    with pytest.raises(PycniError) as refused:
        make_plan(Path("/nonexistent.yaml"), tunnel="ipip", where="host")

    assert str(refused.value) == "cannot read /nonexistent.yaml: No such file or directory"
    assert exit_status_of(refused.value) == 1
    assert exit_status_of(InvalidInput("nodes: at least one is needed")) == 1
