"""Naming the cluster's objects as the datastore of a command."""

from argparse import Namespace
from pathlib import Path

import pytest

from pycni.ctl import store
from pycni.ctl.main import main
from pycni.errors import InvalidInput


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--kubeconfig", "", "get", "pools"), 2, "--kubeconfig is empty"),
        (
            ("--datastore", "/x.db", "--kubeconfig", "/k", "get", "pools"),
            2,
            "--kubeconfig is for --datastore kubernetes: leave one of them out",
        ),
        (("--kubeconfig", "/nonexistent", "get", "pools"), 1, "the kubeconfig /nonexistent"),
        (("ipam", "show", "--kubeconfig", "/nonexistent"), 1, "the kubeconfig /nonexistent"),
    ],
)
def test_what_is_wrong_is_said(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, message: str
) -> None:
    assert main(words) == status
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "has_file", "told"),
    [
        ("/from/variable", True, "the kubeconfig /from/variable"),
        (None, True, ".kube/config"),
        (None, False, "the service account of this pod"),
    ],
)
def test_a_kubeconfig_is_looked_for_where_kubectl_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str | None,
    told: str,
    *,
    has_file: bool,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    if variable is not None:
        monkeypatch.setenv("KUBECONFIG", variable)
    if has_file:
        (tmp_path / ".kube").mkdir()
        (tmp_path / ".kube" / "config").write_text("", encoding="utf-8")

    assert main(["--datastore", "kubernetes", "get", "pools"]) == 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("datastore: kubernetes\nkubeconfig: /from/agent\n", "the kubeconfig /from/agent"),
        ("datastore: kubernetes\n", "the service account of this pod"),
        ("datastore: {directory}/none/pycni.db\n", "{directory}/none/pycni.db"),
        ("colour: red\n", "unknown key 'colour'"),
    ],
)
def test_what_the_command_line_leaves_open_is_as_the_agents_settings_say(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: str,
    told: str,
) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(settings.replace("{directory}", str(tmp_path)))
    monkeypatch.setattr(store, "DEFAULT_CONFIG", path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)

    assert main(["get", "pools"]) == 1

    assert told.replace("{directory}", str(tmp_path)) in capsys.readouterr().err


def test_settings_that_only_root_may_read_are_root_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: Path) -> None:
        raise InvalidInput("cannot read it") from PermissionError()

    monkeypatch.setattr(store, "load_config", denied)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)

    assert store.kubeconfig_of(Namespace()) == ""


def test_subnets_are_asked_of_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--datastore", str(tmp_path / "pycni.db"), "cluster", "subnets"]) == 2

    assert "name a cluster by --kubeconfig" in capsys.readouterr().err
