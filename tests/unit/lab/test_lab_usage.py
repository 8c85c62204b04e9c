"""bin/lab's exit statuses: 2 for a mistake in the words, 1 for a failure."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pycni.ctl.usage import exit_status_of
from pycni.errors import PycniError, TryAgain
from pycni.lab import cli, launch, sockets
from pycni.lab.cluster import Cluster
from pycni.lab.layout import Layout, Plan
from pycni.topology.model import load_topology, parse_pod

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
        ("shell", "required: PLACE\n"),
        ("agent kill", "required: NODE\n"),
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


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give what `up` began with, for a user who is root on a machine without a lab."""
    begun: list[str] = []

    def decide_tunnel(asked: str, **_: object) -> tuple[str, str]:
        begun.append(f"tunnel {asked}")
        raise TryAgain("this is as far as a test goes")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sockets, "is_up", lambda _: False)
    monkeypatch.setattr(launch, "decide_tunnel", decide_tunnel)
    return begun


NODES = "nodes: [{name: a, address: 10.10.24.89/20, gateway: 10.10.16.1}]\n"
MANIFEST = "apiVersion: projectcalico.org/v3\nkind: IPPool\n"
NEAR_POOL = (
    "resources: [{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: bad},"
    " spec: {cidr: 10.10.16.0/20}}]"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read FILE: No such file or directory"),
        ("nodes: []", "FILE: nodes: at least one is needed"),
        ("nodes: [", "cannot read FILE: line 1, column 9: "),
        (MANIFEST, "FILE: this is a manifest (IPPool), no topology"),
        (NODES + "pods: [{name: default/a, node: nowhere}]", "nowhere"),
        (NODES + NEAR_POOL, "10.10.16.0/20 overlaps the subnet"),
        (NODES + "hosts: [{name: router, address: 1.1.1.1/24, gateway: 1.1.1.2}]", "'router'"),
    ],
)
def test_bad_topology_is_named_before_anything_is_tried(
    tmp_path: Path,
    text: str | None,
    said: str,
    starts: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "topology.yaml"
    if text is not None:
        path.write_text(text)

    status = cli.main(["up", "--topology", str(path)])

    assert (status, starts) == (1, [])
    assert said.replace("FILE", str(path)) in capsys.readouterr().err


def test_kubernetes_asks_more_of_a_topology_before_anything_starts(
    starts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    topology = str(EXERCISE.with_name("dual-stack.yaml"))

    assert cli.main(["up", "--kubernetes", "--topology", topology]) == 1

    assert starts == []
    assert "--kubernetes makes clusters of IPv4 only" in capsys.readouterr().err


def test_kubernetes_does_not_run_in_user_mode_linux(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["--kubernetes", "--tunnel", "uml"])

    assert "use --tunnel bpf" in capsys.readouterr().err


def test_good_topology_goes_on(starts: list[str]) -> None:
    assert cli.main(["up", "--tunnel", "bpf"]) == 1
    assert starts == ["tunnel bpf"]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("", "up"),
        ("--tunnel bpf", "up --tunnel bpf"),
        ("--name b", "up --name b"),
        ("--name b show -o json", "show --name b -o json"),
        ("--name b --tunnel bpf", "up --name b --tunnel bpf"),
        ("show --name b", "show --name b"),
        ("frob", "frob"),
    ],
)
def test_name_may_stand_before_the_verb(words: str, meant: str) -> None:
    assert cli.normalise(words.split()) == meant.split()


@pytest.mark.parametrize(
    ("words", "own", "others"),
    [
        ("kubectl get pods -A", "kubectl", "get pods -A"),
        ("kubectl --name b get -o yaml", "kubectl --name b", "get -o yaml"),
        ("kubectl -- --help", "kubectl", "--help"),
        ("kubectl exec web -- ls -l", "kubectl", "exec web -- ls -l"),
        ("exec node-0 -- ls -l", "exec node-0", "ls -l"),
    ],
)
def test_kubectl_keeps_all_of_its_words(words: str, own: str, others: str) -> None:
    assert cli.split_command(words.split()) == (own.split(), others.split())


def test_pod_that_is_there_is_not_made_again(cluster: Cluster) -> None:
    pod = parse_pod({"name": "default/web", "node": "node-1"})

    with pytest.raises(PycniError, match=r"a pod 'default/web' already: .*  bin/lab pod del"):
        asyncio.run(cluster.make_pod(pod))
