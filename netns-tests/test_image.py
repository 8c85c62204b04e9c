"""The container image itself: what is in it, and that containerd takes it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

import pycni
from cluster import eventually
from daemon_host import image_archive, unpack_image
from runtime_machine import machine, require_runtimes

pytestmark = [pytest.mark.netns, pytest.mark.kubernetes, pytest.mark.timeout(120)]

CTR = ("ctr", "--address", "/run/containerd.sock")
NAME = f"localhost/pycni:{pycni.__version__}"
PROGRAMS = ["nft", "python3", "python3.11", "setpriv", "tini"]


def test_the_image_holds_what_the_agent_runs_and_no_shell(tmp_path: Path) -> None:
    image = unpack_image(tmp_path / "image")
    root = image.root

    assert image.name == NAME
    assert (
        sorted(p.name for part in ("bin", "sbin") for p in (root / "usr" / part).iterdir())
        == PROGRAMS
    )
    files = [path for path in root.rglob("*") if not path.is_symlink()]
    privileged = [path for path in files if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    foreign = [path for path in files if (path.stat().st_uid, path.stat().st_gid) != (0, 0)]
    open_to_all = stat.S_IWOTH | stat.S_ISVTX
    writable = [path for path in files if path.stat().st_mode & open_to_all == stat.S_IWOTH]
    assert (privileged, foreign, writable) == ([], [], [])
    # Of the machine that it was made on, nothing.
    for path in (root / "etc" / "hostname", root / "etc" / "resolv.conf"):
        assert not path.exists() or path.read_text() == ""
    assert not (root / "etc" / "apt").exists()
    assert sum(path.stat().st_size for path in files if path.is_file()) < 150_000_000


def test_containerd_takes_the_image_and_runs_it(tmp_path: Path) -> None:
    require_runtimes("containerd", "ctr", "runc")
    with (
        machine(tmp_path, has_agent=False) as host,
        host.running("containerd", "--config", f"{tmp_path}/containerd.toml"),
    ):
        eventually(lambda: "containerd.sock" in host.ls("/run"), within_s=60)

        taken = host.run(*CTR, "images", "import", str(image_archive()))
        said = host.run(
            *CTR, "run", "--rm", "--read-only", "--seccomp", "--runc-binary", "runc",
            "--cgroup", f"/{host.name}/pycni", NAME, "pycni", "pycni-agent", "--version",
        )  # fmt: skip

    assert f"unpacking {NAME} " in taken
    assert said.strip() == f"pycni {pycni.__version__}"
