"""What a machine is made of: its cgroups, its files, and the little systemd that it has."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pycni.errors import TryAgain
from pycni.lab.kubeadm import cgroups, host, units
from pycni.lab.kubeadm.spec import MachineSpec, files_of, parse_spec

MOUNTS = """\
sysfs /sys sysfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,nosuid,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0
cgroup /sys/fs/cgroup/net_cls cgroup rw,net_cls 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
"""
SPEC = MachineSpec(
    lab="lab",
    name="node-1",
    store="/run/store",
    kit="/cache/kit",
    sandbox_image="localhost/pause:1",
    gateway="10.10.16.1",
    names={"node-0": "10.10.7.20", "node-1": "10.10.24.89"},
)


def test_hierarchies_are_known_by_what_mounts_them_again() -> None:
    found = cgroups.parse_hierarchies(MOUNTS)

    assert [(h.options, str(h.place), h.is_unified) for h in found] == [
        ("cpu,cpuacct", "/sys/fs/cgroup/cpu", False),
        ("none,name=systemd", "/sys/fs/cgroup/systemd", False),
    ]


def test_version_2_counts_where_version_1_has_no_controller() -> None:
    mounts = "\n".join(line for line in MOUNTS.splitlines() if "cpu" not in line)

    (found,) = cgroups.parse_hierarchies(mounts)

    assert (found.is_unified, found.place) == (True, Path("/sys/fs/cgroup/unified"))
    assert [str(path) for path in found.cgroups("lab", "node-0")] == [
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/unified/pycni-lab",
        "/sys/fs/cgroup/unified/pycni-lab/lab",
        "/sys/fs/cgroup/unified/pycni-lab/lab/node-0",
    ]


def test_a_host_without_the_controllers_is_told_which_are_missing(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")

    with pytest.raises(TryAgain, match=r"here are none for cpuset, memory, .*: run the lab on"):
        cgroups.require(cgroups.parse_hierarchies(MOUNTS))
    with pytest.raises(TryAgain, match="here are none for cpuset: run the lab on"):
        cgroups.require(cgroups.parse_hierarchies(f"none {tmp_path} cgroup2 rw 0 0\n"))
    with pytest.raises(TryAgain, match="here are none for cpu, cpuacct"):
        cgroups.require([])


def test_cgroups_that_nobody_may_write_to_are_named() -> None:
    controllers = ",".join(cgroups.NEEDED_1)
    found = cgroups.parse_hierarchies(f"cgroup /nowhere cgroup ro,{controllers} 0 0\n")

    with pytest.raises(TryAgain, match="no cgroup can be made below /nowhere: run the lab on"):
        cgroups.require(found)


def test_a_host_with_too_little_memory_is_told_how_much_it_takes() -> None:
    meminfo = "MemTotal: 8000000 kB\nMemAvailable: 2969599 kB\n"

    host.require_memory(meminfo, nodes=2)
    with pytest.raises(TryAgain, match=r"3 nodes needs 2900 MB of memory, and 2899 MB are free"):
        host.require_memory(meminfo, nodes=3)


def test_a_spec_travels_as_text() -> None:
    assert parse_spec(SPEC.text()) == SPEC


def test_a_machine_knows_all_nodes_by_name_and_its_sandbox_by_the_image() -> None:
    files = files_of(SPEC)

    assert files["etc/hosts"] == "127.0.0.1 localhost\n10.10.7.20 node-0\n10.10.24.89 node-1\n"
    assert 'sandbox = "localhost/pause:1"' in files["etc/containerd/config.toml"]


def test_the_last_command_of_a_unit_holds() -> None:
    text = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exec kubelet --a=b'\nRestart=always\n"

    assert units.command_of(text) == ["/bin/sh", "-c", "exec kubelet --a=b"]
    assert units.command_of("[Service]\n") == []


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "kubelet.service").write_text("[Service]\nExecStart=kubelet\n")
    return tmp_path


def systemctl(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    script = units.systemctl(state=directory, units=directory)
    # Nothing is woken here.
    script = script.replace("kill -HUP 1", ":").replace("seq 600", "seq 1")
    return subprocess.run(
        ["sh", "-c", script, "systemctl", *words], capture_output=True, text=True, check=False
    )


def test_systemctl_tells_whether_a_service_runs(directory: Path) -> None:
    assert systemctl(directory, "is-active", "kubelet").returncode == 3

    (directory / "kubelet.pid").touch()

    assert systemctl(directory, "is-active", "kubelet.service").stdout == "active\n"


def test_systemctl_leaves_a_wish_and_waits_for_it(directory: Path) -> None:
    started = systemctl(directory, "enable", "--now", "kubelet")

    assert (directory / "kubelet.want").exists()
    assert (started.returncode, started.stderr) == (1, "kubelet did not start in 30 s\n")


def test_systemctl_only_enables_without_now(directory: Path) -> None:
    assert systemctl(directory, "enable", "kubelet").returncode == 0
    assert not (directory / "kubelet.want").exists()


def test_systemctl_stops_what_runs_no_more_at_once(directory: Path) -> None:
    (directory / "kubelet.want").touch()

    assert systemctl(directory, "stop", "kubelet").returncode == 0
    assert not (directory / "kubelet.want").exists()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["start", "nothing"], 4, "Unit nothing.service could not be found.\n"),
        (["mask", "kubelet"], 1, "this machine's systemctl knows no mask\n"),
        (["daemon-reload"], 0, ""),
    ],
)
def test_systemctl_names_what_it_does_not_know(
    directory: Path, words: list[str], status: int, said: str
) -> None:
    ran = systemctl(directory, *words)

    assert (ran.returncode, ran.stderr) == (status, said)
