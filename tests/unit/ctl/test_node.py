"""`pycnictl node`: what it asks of the agent, and what it says of the answers."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pycni.agent.cleaning import Cleaned
from pycni.config import AgentConfig
from pycni.ctl import node
from pycni.ctl.main import main
from pycni.errors import InvalidInput, TryAgain

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: others are refused")
Answer = dict[str, Any] | Exception


def said(state: str, *untold: str, trouble: str = "") -> dict[str, Any]:
    return {"node": "node-7", "state": state, "untold": list(untold), "trouble": trouble}


class Agent:
    """Answers in this order, the last one again and again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: Sequence[Answer]) -> None:
        self.answers = list(answers)
        self.heard: list[str] = []
        monkeypatch.setattr(node, "ask", self.hear)
        monkeypatch.setattr(node, "wish", self.hear)
        monkeypatch.setattr(node, "LOOK_S", 0.0)

    def hear(self, run_dir: Path, words: str) -> dict[str, Any]:
        assert run_dir == Path("/run/there")
        self.heard.append(words)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def run(*words: str) -> int:
    return main(["node", *words, "--run-dir", "/run/there"])


def test_leaving_ends_when_the_node_has_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = TryAgain("no agent answers")
    agent = Agent(monkeypatch, [said("leaving"), away, said("leaving"), said("left", "10.0.0.9")])

    assert run("leave") == 0

    printed = capsys.readouterr()
    assert agent.heard == ["leave", *["membership"] * 3]
    assert printed.out == "node node-7 has left; its agent can be removed now\n"
    assert printed.err.startswith("note: 10.0.0.9 could not be told, since its session is down")


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ([said("leaving", trouble="the server is away")], "within 0 s: the server is away; its"),
        ([said("leaving")], "node node-7 has not left within 0 s; its agent goes on with it"),
        ([said("leaving"), said("member")], "stays a member: somebody said `pycnictl node join`"),
        ([InvalidInput("pods are here: default/a")], "pods are here: default/a"),
        ([said("leaving"), TryAgain("no agent answers")], "node-7 has not left|no agent answers"),
    ],
)
def test_what_keeps_a_node_from_leaving_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: Sequence[Answer],
    complaint: str,
) -> None:
    Agent(monkeypatch, answers)
    seconds = "0" if len(answers) == 1 else "0.2"

    assert run("leave", "--timeout", seconds) == 1

    error = capsys.readouterr().err
    assert any(part in error for part in complaint.split("|")), error


def test_joining_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = Agent(monkeypatch, [said("member")])

    assert run("join") == 0

    assert agent.heard == ["join"]
    assert capsys.readouterr().out == "node node-7 is a member\n"


def cleaning(monkeypatch: pytest.MonkeyPatch, outcome: Cleaned) -> None:
    async def clean(_config: AgentConfig, _kernel: object) -> Cleaned:
        return outcome

    monkeypatch.setattr(node, "clean", clean)


@needs_root
def test_cleaning_tells_what_it_removed_and_which_pods_are_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "agent.yaml").touch()
    cleaning(monkeypatch, Cleaned(["table inet pycni"], [], ["default/web"]))

    assert main(["node", "clean", "--config", str(tmp_path / "agent.yaml")]) == 0

    printed = capsys.readouterr()
    assert printed.out == "removed table inet pycni\n"
    assert (
        "note: pods are still here, and are cut off from other nodes: default/web;" in printed.err
    )
    assert "note: net.ipv4.ip_forward and" in printed.err


@needs_root
def test_what_the_kernel_refuses_to_remove_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "agent.yaml").touch()
    cleaning(monkeypatch, Cleaned([], ["cannot delete interface ipip7: busy"], []))

    assert main(["node", "clean", "--config", str(tmp_path / "agent.yaml")]) == 1

    assert "error: cannot delete interface ipip7: busy" in capsys.readouterr().err


def test_only_root_may_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert main(["node", "clean"]) == 1

    assert "only root may change routes: use sudo" in capsys.readouterr().err
