"""The machines' cgroups on the host: the one thing of a lab that its namespaces don't take along.

Each machine has a cgroup below the lab's, in the hierarchy of version 2 or in every one of version
1.  Whoever ends the lab removes them; after a lab that was killed, the next `up` or `down` does.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pycni.errors import TryAgain

MOUNTS = Path("/proc/self/mounts")
# What runc, the kubelet and containerd ask for.
NEEDED_1 = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
NEEDED_2 = ("cpu", "cpuset", "io", "memory", "pids")
# Version 2 has controllers only where a cgroup's processes are all in cgroups below it.
LEAF = "init"
BUSY_S = 10.0
_REMEDY = (
    "run the lab on the machine itself, or in a container that has its cgroups"
    " (--cgroupns=host --privileged)"
)
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A tree of cgroups: where it is mounted, and what mounts it again."""

    kind: str
    options: str
    place: Path

    @property
    def is_unified(self) -> bool:
        """Say whether this is version 2."""
        return self.kind == "cgroup2"

    def cgroups(self, lab: str, *machine: str) -> list[Path]:
        """Return a cgroup of ours behind those above it, the root first."""
        own = self.place.joinpath("pycni-lab", lab, *machine)
        above = [parent for parent in own.parents if parent.is_relative_to(self.place)]
        return [*reversed(above), own]


def hierarchies() -> list[Hierarchy]:
    """Return the hierarchies of this host."""
    return parse_hierarchies(MOUNTS.read_text(encoding="utf-8"))


def parse_hierarchies(mounts: str) -> list[Hierarchy]:
    """Read hierarchies out of a list of mounts; version 2 counts where version 1 has nothing."""
    old, unified = [], []
    for line in mounts.splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and (identity := _identity(options)):
            old.append(Hierarchy(kind, identity, Path(place)))
        elif kind == "cgroup2":
            unified.append(Hierarchy(kind, "", Path(place)))
    return old if _controllers_of(old) else unified[:1]


def _identity(options: str) -> str:
    """Leave out what any file system may be mounted with."""
    words = options.split(",")
    named = [word for word in words if word.startswith("name=")]
    if named:
        return ",".join(["none", *named])
    return ",".join(word for word in words if word in NEEDED_1)


def _controllers_of(old: Iterable[Hierarchy]) -> set[str]:
    return {word for h in old for word in h.options.split(",")} & set(NEEDED_1)


def require(found: list[Hierarchy]) -> None:
    """Raise unless a host with these hierarchies has what the machines need."""
    is_unified = any(hierarchy.is_unified for hierarchy in found)
    needed = NEEDED_2 if is_unified else NEEDED_1
    present = set(_available(found[0])) if is_unified else _controllers_of(found)
    if lacking := [name for name in needed if name not in present]:
        raise TryAgain(
            f"a Kubernetes lab needs cgroups, and here are none for {', '.join(lacking)}: {_REMEDY}"
        )
    if fixed := [str(h.place) for h in found if not os.access(h.place, os.W_OK)]:
        raise TryAgain(f"no cgroup can be made below {', '.join(fixed)}: {_REMEDY}")


def _available(unified: Hierarchy) -> list[str]:
    return (unified.place / "cgroup.controllers").read_text(encoding="ascii").split()


def make(lab: str, machine: str) -> None:
    """Make a machine's cgroups."""
    for hierarchy in hierarchies():
        try:
            _make_in(hierarchy, lab, machine)
        except OSError as exc:
            # Such as EBUSY of version 2: a container's root has processes.
            raise TryAgain(
                f"cannot make cgroups for {machine} below {hierarchy.place}: {exc.strerror}:"
                f" {_REMEDY}"
            ) from exc


def _make_in(hierarchy: Hierarchy, lab: str, machine: str) -> None:
    *above, own = hierarchy.cgroups(lab, machine)
    own.mkdir(parents=True, exist_ok=True)
    if hierarchy.is_unified:
        for directory in above:
            _pass_on(directory)
    elif "cpuset" in hierarchy.options.split(","):
        # A new cpuset takes no process before it is told which processors and which memory.
        for directory in [*above, own][1:]:
            _copy_cpuset(directory)


def _pass_on(directory: Path) -> None:
    """Let the cgroups below one of version 2 have the controllers that it has."""
    present = (directory / "cgroup.controllers").read_text(encoding="ascii").split()
    wanted = " ".join(f"+{name}" for name in NEEDED_2 if name in present)
    (directory / "cgroup.subtree_control").write_text(wanted, encoding="ascii")


def _copy_cpuset(directory: Path) -> None:
    for name in ("cpuset.cpus", "cpuset.mems"):
        value = (directory.parent / name).read_text(encoding="ascii")
        (directory / name).write_text(value, encoding="ascii")


def enter(lab: str, machine: str) -> None:
    """Move the calling process into a machine's cgroups."""
    for hierarchy in hierarchies():
        _move_to(hierarchy.cgroups(lab, machine)[-1])


def make_room(lab: str, machine: str) -> None:
    """Leave a machine's topmost cgroup of version 2 to those that it will have below."""
    for hierarchy in hierarchies():
        if hierarchy.is_unified:
            own = hierarchy.cgroups(lab, machine)[-1]
            (own / LEAF).mkdir()
            _move_to(own / LEAF)
            _pass_on(own)


def _move_to(directory: Path) -> None:
    # 0 is the writer itself, whatever process ids mean here.
    (directory / "cgroup.procs").write_text("0", encoding="ascii")


def remove(lab: str) -> bool:
    """Remove a lab's cgroups once its processes are gone; False: there were none."""
    places = [place for place in _places(lab) if place.is_dir()]
    for place in places:
        _remove_tree(place)
        with contextlib.suppress(OSError):
            place.parent.rmdir()  # another lab may be there
    return bool(places)


def _places(lab: str) -> Iterator[Path]:
    yield from (hierarchy.cgroups(lab)[-1] for hierarchy in hierarchies())


def _remove_tree(place: Path) -> None:
    """Remove cgroups from the leaves on; the kernel takes a moment to empty them."""
    deadline = time.monotonic() + BUSY_S
    for directory, _, _ in os.walk(place, topdown=False):
        while not _is_removed(Path(directory)):
            if time.monotonic() > deadline:
                raise TryAgain(
                    f"cannot remove {directory} in {BUSY_S:g} s: end what its cgroup.procs names,"
                    " then run the same again"
                )
            time.sleep(_POLL_S)


def _is_removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
