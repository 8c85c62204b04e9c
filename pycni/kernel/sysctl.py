"""Sysctls, read and written below /proc/sys of the calling thread's network namespace.

A container's own /proc/sys is read-only; those of the network can be mounted for it where `HOSTS`
says.  Whose they are follows from the thread, not from the place.
"""

import errno
import os

from pycni.errors import InvalidInput

HOSTS = "/host/proc/sys/"
_LONGEST = 4096
_FORBIDDEN = frozenset({"", ".", ".."})
_SWAP = str.maketrans("./", "/.")


def find_root(hosts: str = HOSTS) -> str:
    """Return where sysctls can be written: in a container, where its host's are mounted."""
    return hosts if os.path.isdir(f"{hosts}net") else "/proc/sys/"  # noqa: PTH112  # as all here


_ROOT = find_root()


def sysctl_path(name: str) -> str:
    """Return the file behind a dotted name.

    As in sysctl(8), a `/` in the name stands for a dot within one component, which is how the
    settings of an interface called `eth0.100` are named: "net.ipv4.conf.eth0/100.rp_filter".
    """
    path = name.translate(_SWAP)
    if _FORBIDDEN.intersection(path.split("/")) or "\0" in name:
        raise InvalidInput(f"sysctl name {name!r} is malformed: expected dotted components")
    return _ROOT + path


def read_sysctl(name: str) -> str | None:
    """Return a sysctl's value, None where it does not exist or can't be read."""
    try:
        fd = os.open(sysctl_path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, _LONGEST).decode("ascii").strip()
        finally:
            os.close(fd)
    except OSError:
        return None


def write_sysctl(name: str, *, value: str) -> None:
    """Write a sysctl; raises OSError where that is refused."""
    fd = os.open(sysctl_path(name), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode("ascii"))
    finally:
        os.close(fd)


def ensure_sysctl(name: str, *, value: str) -> None:
    """Write a setting; where /proc/sys is read-only, it may be right already."""
    try:
        write_sysctl(name, value=value)
    except OSError as exc:
        if read_sysctl(name) != value:
            text = f"cannot set sysctl {name} to {value}: {exc.strerror}"
            raise OSError(exc.errno or errno.EIO, text) from exc
