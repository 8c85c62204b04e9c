"""A machine's first process: makes its world out of namespaces, then runs its services.

`python -m pycni.lab.kubeadm.boot SPEC`, started by the supervisor in the machine's network
namespace, never by hand.  Prints the first process's id, as its parent sees it.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pycni.lab import commands, isolate
from pycni.lab.kubeadm import cgroups, units
from pycni.lab.kubeadm.cgroups import Hierarchy
from pycni.lab.kubeadm.spec import (
    CLONE,
    EMPTY,
    KIT,
    LOGS,
    SYSCTLS,
    MachineSpec,
    files_of,
    parse_spec,
)

CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
PYTHONS = ("usr/bin", "usr/local/bin")


def main(argv: Sequence[str]) -> int:
    """Be the parent of a machine's first process, and end with it."""
    spec = parse_spec(argv[0])
    cgroups.enter(spec.lab, spec.name)
    # After the move: the machine's cgroups are the root that it sees.
    isolate.unshare(
        isolate.CLONE_NEWPID | isolate.CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP
    )
    cgroups.make_room(spec.lab, spec.name)
    child = os.fork()
    if child == 0:
        _be_first(spec)
    print(child, flush=True)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _be_first(spec: MachineSpec) -> None:
    isolate.die_with_parent()
    # The parent's line is its own.
    os.dup2(2, 1)
    socket.sethostname(spec.name)
    isolate.make_mounts_private()
    make_world(spec)
    services = units.Services(commands.environment())
    (units.STATE / "containerd.want").touch()
    services.run()


def make_world(spec: MachineSpec) -> None:
    """Mount the machine's file systems and make their root the machine's."""
    hierarchies = cgroups.hierarchies()
    root = _mount_root(Path(spec.store))
    _mount_kernel(root)
    _mount_cgroups(root / "sys/fs/cgroup", hierarchies)
    for target, source in ((KIT, spec.kit), (CLONE, spec.clone)):
        if source:
            isolate.bind(Path(source), root / target.relative_to("/"), is_writable=False)
    _write_files(root, spec)
    if not spec.has_python:
        _hide_python(root)
    _change_root(root)


def _mount_root(store: Path) -> Path:
    """Lay what the machine writes over what its host has."""
    upper, work, root = store / "upper", store / "work", store / "root"
    for directory in (upper, work, root):
        directory.mkdir(parents=True)
    options = f"lowerdir=/,upperdir={upper},workdir={work}"
    isolate.mount("overlay", root, kind="overlay", options=options)
    for name in EMPTY:
        isolate.bind(_made(store / "data" / name), root / name)
    for name in ("run", "tmp"):
        isolate.mount("tmpfs", root / name, kind="tmpfs")
    (root / "tmp").chmod(0o1777)
    (root / "run").chmod(0o755)
    return root


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


def _mount_kernel(root: Path) -> None:
    isolate.mount("proc", root / "proc", kind="proc")
    isolate.mount("sysfs", root / "sys", kind="sysfs")
    isolate.bind(Path("/dev"), root / "dev")
    for kind, name in (("tmpfs", "dev/shm"), ("mqueue", "dev/mqueue")):
        # The devices are the host's: no directory is made among them.
        if (root / name).is_dir():
            isolate.mount(kind, root / name, kind=kind)
    for name, value in SYSCTLS.items():
        own = root / "run/sysctl" / name
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(f"{value}\n", encoding="ascii")
        isolate.bind_file(own, root / "proc/sys" / name)


def _mount_cgroups(place: Path, hierarchies: Sequence[Hierarchy]) -> None:
    """Show the machine its own cgroups as the root of each hierarchy."""
    if hierarchies[0].is_unified:
        isolate.mount("cgroup2", place, kind="cgroup2")
        return
    isolate.mount("cgroup", place, kind="tmpfs")
    for hierarchy in hierarchies:
        own = place / hierarchy.place.name
        own.mkdir()
        isolate.mount("cgroup", own, kind=hierarchy.kind, options=hierarchy.options)


def _write_files(root: Path, spec: MachineSpec) -> None:
    for name, text in files_of(spec).items():
        path = root / name
        # It may be a link that leads out of the machine.
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for directory in (units.STATE, LOGS, Path("/run/systemd/system")):
        (root / directory.relative_to("/")).mkdir(parents=True)
    local = root / "usr/local/bin"
    for program in Path(spec.kit, "bin").iterdir():
        (local / program.name).unlink(missing_ok=True)
        (local / program.name).symlink_to(KIT / "bin" / program.name)
    (local / "systemctl").unlink(missing_ok=True)
    (local / "systemctl").write_text(units.systemctl(), encoding="utf-8")
    (local / "systemctl").chmod(0o755)


def _hide_python(root: Path) -> None:
    for directory in PYTHONS:
        for path in (root / directory).glob("python3*"):
            path.unlink()


def _change_root(root: Path) -> None:
    """Leave the old root; the C library has no call for that, util-linux a program."""
    old = root / "run/old"
    old.mkdir()
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "run/old"], check=True, env=commands.environment())
    os.chdir("/")
    isolate.unmount(Path("/run/old"))
    Path("/run/old").rmdir()
    # As on a host: mounts that a pod shares with its node reach other pods.
    isolate.share_mounts()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
