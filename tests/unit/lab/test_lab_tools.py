"""The commands of a node's shell run, and are that node's own."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from pycni.lab import nodetools
from pycni.lab.layout import Layout, Plan


@dataclass(frozen=True, slots=True)
class PaperLayout(Layout):
    """A lab below a directory of the test's."""

    directory: Path = Path()

    @property
    def root(self) -> Path:
        return self.directory


def run(path: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(path), *words], capture_output=True, text=True, check=False)


def test_node_has_its_pycnictl_and_a_runtime(tmp_path: Path) -> None:
    layout = PaperLayout("lab", tmp_path)
    layout.node("node-1").mkdir()
    plan = Plan(topology="", source="", tunnel="bpf", where="host", clone="")

    nodetools.write_tools("node-1", plan=plan, layout=layout)

    tools = tmp_path / "node-1" / "bin"
    assert sorted(path.name for path in tools.iterdir()) == ["lab-runtime", "pycnictl"]
    assert str(layout.run_dir("node-1")) in run(tools / "pycnictl", "status").stderr
    assert str(layout.run_dir("node-1")) in run(tools / "pycnictl", "bgp", "peers").stderr
    assert run(tools / "lab-runtime", "--help").stdout.startswith("usage: lab-runtime ")
