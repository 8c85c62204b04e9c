"""What a file or standard input is called, and what was given in place of what."""

import io
import sys
from pathlib import Path

import pytest

from pycni.ctl.main import main


def test_sentences_about_standard_input_call_it_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for text, said in (
        ("", "error: standard input holds no object: "),
        ("kind: [", "error: cannot read standard input: "),
        ("kind: Pod\n", "error: standard input, document 1: "),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

        assert main(["apply", "-f", "-"]) == 1
        assert capsys.readouterr().err.startswith(said)


def test_topology_in_place_of_a_manifest_is_called_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text("name: lab\nnodes:\n- name: a\n")

    assert main(["apply", "-f", str(path)]) == 1
    assert capsys.readouterr().err == (
        f"error: {path}, document 1: this is a topology, no manifest: see it by"
        "  pycnictl predict -f,  run it by  bin/lab up --topology\n"
    )
