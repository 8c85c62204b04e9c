"""Running install.sh below another root."""

import subprocess
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]
INSTALL = CLONE / "install.sh"
AGENT = "hold_time_s: 30  # ours\nnode: build\nnode_address: '10.0.0.1/24'\n"
NETWORK = '{"name": "pods", "plugins": [{"type": "pycni", "nodename": "build"}]}'


def run(root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(INSTALL), "--root", str(root), *words], capture_output=True, text=True, check=False
    )


def installed(root: Path, *, agent: str, network: str) -> tuple[Path, Path]:
    config, conflist = root / "etc/pycni/agent.yaml", root / "etc/cni/net.d/10-pycni.conflist"
    for path, text in ((config, agent), (conflist, network)):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return config, conflist
