"""The manifests of examples/kubernetes: what they name is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pycni import __version__
from pycni.lab.kubeadm.kit import REDIS, TOOLBOX

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "kubernetes"
OF_THE_LAB = {TOOLBOX, REDIS, f"localhost/pycni:{__version__}"}


def documents() -> list[dict[str, Any]]:
    return [
        document
        for path in sorted(EXAMPLES.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


def templates() -> list[dict[str, Any]]:
    """What pods are made of."""
    return [
        found["spec"]["template"] for found in documents() if "template" in found.get("spec", ())
    ]


def test_pods_run_in_images_that_the_lab_has() -> None:
    images = {one["image"] for pod in templates() for one in pod["spec"]["containers"]}

    assert images == OF_THE_LAB


def test_every_service_selects_pods() -> None:
    labels = [pod["metadata"]["labels"] for pod in templates()]
    services = [d["spec"] for d in documents() if d["kind"] == "Service"]

    assert [s for s in services if "selector" not in s] == [
        {"type": "ExternalName", "externalName": "any-cluster-ip.default.svc.cluster.local"}
    ]
    assert all(s["selector"] in labels for s in services if "selector" in s)


def test_every_program_of_dockercoins_is_run() -> None:
    commands = [one["command"] for pod in templates() for one in pod["spec"]["containers"]]
    run = {Path(words[1]).name for words in commands if words[0] == "python3"}

    assert run == {path.name for path in (EXAMPLES / "dockercoins").iterdir()}
