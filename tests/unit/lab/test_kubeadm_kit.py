"""A kit: files of the cache under further names, in one directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycni.lab.kubeadm.kit import Kit, assemble

REFERENCES = "pause localhost/kubernetes/pause:3.10.2\nkube-apiserver localhost/a:v1.36.3\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYCNI_CACHE", str(tmp_path))
    (tmp_path / "kubectl").write_text("a program")
    return tmp_path


def test_a_kit_names_files_of_the_cache_and_copies_none(cache: Path) -> None:
    kit = assemble({"bin/kubectl": cache / "kubectl"}, references=REFERENCES)

    assert (kit.programs / "kubectl").samefile(cache / "kubectl")
    assert kit.references()["pause"] == "localhost/kubernetes/pause:3.10.2"
    assert kit.version() == "v1.36.3"


def test_the_same_content_is_the_same_kit_and_another_one_is_not(cache: Path) -> None:
    def made(name: str) -> Kit:
        return assemble({name: cache / "kubectl"}, references=REFERENCES)

    assert made("bin/kubectl") == made("bin/kubectl") != made("bin/kubelet")
    assert len(list((cache / "kubeadm" / "kits").iterdir())) == 2
