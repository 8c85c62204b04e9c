"""`pycnictl check` as a command: who may, what it prints, how it ends."""

import json
import os
from pathlib import Path

import pytest

from pycni.check.findings import Finding, Report, Severity
from pycni.ctl import check
from pycni.ctl.main import main

FINDING = Finding("clock", Severity.WARNING, "it is late", "leases expire", "timedatectl")


@pytest.fixture
def database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path = str(tmp_path / "pycni.db")
    assert main(["--datastore", path, "ipam", "configure", "--strict-affinity", "true"]) == 0
    capsys.readouterr()
    return path


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (Report(), 0),
        (Report((FINDING,)), 3),
        (Report((FINDING,), ("dns: no file",)), 3),
        (Report(unchecked=("dns: no file",)), 1),
    ],
)
@pytest.mark.parametrize("form", ["table", "json", "yaml"])
def test_the_exit_status_tells_findings_from_what_could_not_be_checked(
    report: Report, status: int, form: str
) -> None:
    assert check.show({"node-0": Report(), "node-1": report}, form=form) == status


def test_people_read_node_reason_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    check.show({"node-0": Report((FINDING,), ("dns: no file",))}, form="table")

    assert capsys.readouterr().out == (
        "warning: node-0: it is late [clock]\n"
        "    why:  leases expire\n"
        "    mend: timedatectl\n"
        "\n"
        "not checked: node-0: dns: no file\n"
        "findings: 1 (nodes: node-0)\n"
    )


def test_only_root_may_look(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert main(["--datastore", database, "check"]) == 1
    assert capsys.readouterr().err == "error: only root may look at a firewall: use sudo\n"


def test_all_nodes_are_asked_in_a_cluster_only(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--datastore", database, "check", "--all"]) == 2
    assert "run `pycnictl check` on each node" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: reads the firewall")
def test_a_node_is_looked_at(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check", "--node", "node-7", "--net-dir", str(tmp_path), "-o", "json"]
    assert main(["--datastore", database, *words]) == 3

    (report,) = json.loads(capsys.readouterr().out)["nodes"]
    assert report["node"] == "node-7"
    assert "cni-configuration" in [one["check"] for one in report["findings"]]
