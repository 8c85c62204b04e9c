"""A machine's cgroups of version 2, on a kernel that has controllers there."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.uml

# In mount and PID namespaces of its own, as a lab's supervisor is: the cgroups end with it.
MACHINE = """\
import os, sys
from pathlib import Path
from pycni.lab import isolate
from pycni.lab.kubeadm import boot, cgroups

cgroups.make("lab", "node-0")
(own,) = (h.cgroups("lab", "node-0")[-1] for h in cgroups.hierarchies())
if os.fork() == 0:
    cgroups.enter("lab", "node-0")
    isolate.unshare(isolate.CLONE_NEWNS | boot.CLONE_NEWCGROUP)
    cgroups.make_room("lab", "node-0")
    found = cgroups.hierarchies()
    boot._mount_cgroups(Path("/mnt"), found)
    Path("/mnt/kubepods").mkdir()
    print("root:", Path("/mnt/cgroup.procs").read_text().split())
    print("pods:", Path("/mnt/kubepods/cgroup.controllers").read_text().strip())
    print("self:", Path("/proc/self/cgroup").read_text().strip(), flush=True)
    os._exit(0)
assert os.wait()[1] == 0
print("left:", sorted(p.name for p in own.iterdir() if p.is_dir()))
print("removed:", cgroups.remove("lab"), Path("/sys/fs/cgroup/pycni-lab").exists())
print("again:", cgroups.remove("lab"))
"""


def test_a_machine_has_the_controllers_of_version_2_below_its_own_root() -> None:
    ran = subprocess.run(
        ["unshare", "--mount", sys.executable, "-I", "-c", MACHINE],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "root: []",
        "pods: cpu io memory pids",
        "self: 0::/init",
        "left: ['init', 'kubepods']",
        "removed: True False",
        "again: False",
    ]
