"""Network namespaces: enter one for a synchronous stretch, and always come back.

Everything else in the process (its listening sockets' children, /proc/sys/net, new threads) goes
by the namespace of the thread, so nothing may await, nor start a thread, while inside.
"""

import fcntl
import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from pycni.errors import InvalidInput
from pycni.model.endpoints import NetnsSight, WorkloadEndpoint

CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703
_OWN = "/proc/thread-self/ns/net"
_OWN_MOUNTS = "/proc/self/ns/mnt"


@functools.cache
def _libc_setns() -> Callable[[int, int], int]:
    """Return a setns that gives 0 or an errno: Python has os.setns from 3.12 on only."""
    import ctypes  # some milliseconds to load, so not above

    function = ctypes.CDLL(None, use_errno=True).setns

    def call(fd: int, nstype: int) -> int:
        return 0 if function(fd, nstype) == 0 else ctypes.get_errno()

    return call


def _setns_by_libc(fd: int, nstype: int) -> None:
    code = _libc_setns()(fd, nstype)
    if code:
        raise OSError(code, os.strerror(code))


def setns(fd: int) -> None:
    """Move the calling thread into the network namespace behind a descriptor."""
    if hasattr(os, "setns"):
        os.setns(fd, CLONE_NEWNET)
    else:
        _setns_by_libc(fd, CLONE_NEWNET)


def open_own() -> int:
    """Return a descriptor of the calling thread's own network namespace."""
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def is_netns(fd: int) -> bool:
    """Say whether a descriptor is a network namespace, and not some other file."""
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False


def identity(fd: int) -> tuple[int, int]:
    """Return what two descriptors of one namespace have in common, however they were opened."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def sight(path: str, fd: int) -> NetnsSight | None:
    """Return that a path leads to the namespace behind a descriptor; None where it does not.

    Whoever made the namespace may have done so in a mount namespace other than ours.
    """
    try:
        inode = os.fstat(fd).st_ino
        if os.stat(path).st_ino != inode:  # noqa: PTH116  # for each request
            return None
        return NetnsSight(os.stat(_OWN_MOUNTS).st_ino, inode)  # noqa: PTH116  # as above
    except OSError:
        return None


def is_gone(endpoint: WorkloadEndpoint) -> bool:
    """Tell whether an endpoint's namespace is certainly no longer where it was seen.

    From another mount namespace, or where it never was in sight, nothing is certain.
    """
    seen = endpoint.sight
    if seen is None or seen.mount_namespace != os.stat(_OWN_MOUNTS).st_ino:  # noqa: PTH116  # as above
        return False
    try:
        return os.stat(endpoint.netns).st_ino != seen.inode  # noqa: PTH116  # as above
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def inside(fd: int, *, home: int) -> AbstractContextManager[None]:
    """Run a synchronous stretch inside another namespace.

    Where coming back fails, the process ends at once: going on would program a pod's namespace
    instead of the node's.
    """
    return _Inside(fd, home)


class _Inside:
    # A class, because every ADD enters and a generator costs more than the system calls.
    __slots__ = ("_fd", "_home")

    def __init__(self, fd: int, home: int) -> None:
        self._fd = fd
        self._home = home

    def __enter__(self) -> None:
        try:
            setns(self._fd)
        except OSError as exc:
            raise InvalidInput(f"cannot enter the network namespace: {exc.strerror}") from exc

    def __exit__(self, *_: object) -> None:
        try:
            setns(self._home)
        except OSError:
            os.abort()
