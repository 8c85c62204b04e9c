"""Give the calling process a world of its own that the kernel clears away with it.

PID, mount and network namespaces: the first process of a PID namespace takes all others with it
when it ends, by whatever signal, and with the last process go the mounts and the network
namespaces that are bound to them.  Knows nothing of the lab.
"""

import contextlib
import ctypes
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

from pycni.errors import TryAgain

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_MS_RDONLY = 1
_MS_REMOUNT = 32
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_MS_SHARED = 1 << 20
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(status: int, what: str) -> None:
    if status != 0:
        reason = os.strerror(ctypes.get_errno())
        raise TryAgain(f"cannot {what}: {reason}; the lab needs root with CAP_SYS_ADMIN")


def unshare(flags: int) -> None:
    """Leave namespaces of the parent's; of a PID namespace, from the next child on."""
    _check(_libc.unshare(flags), "make namespaces of the lab's own")


def mount(
    source: str, target: Path | str, *, kind: str = "", flags: int = 0, options: str = ""
) -> None:
    """Mount a file system."""
    arguments = (source.encode(), str(target).encode(), kind.encode() or None)
    data = options.encode() or None
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), data), f"mount {target}")


def unmount(target: Path) -> None:
    """Take a file system out of sight; it goes when nobody uses it any more."""
    _check(_libc.umount2(str(target).encode(), _MNT_DETACH), f"unmount {target}")


def bind(source: Path, target: Path, *, is_writable: bool = True) -> None:
    """Show a directory at a second place."""
    target.mkdir(parents=True, exist_ok=True)
    mount(str(source), target, flags=_MS_BIND | _MS_REC)
    if not is_writable:
        mount("none", target, flags=_MS_BIND | _MS_REMOUNT | _MS_RDONLY)


def bind_file(source: Path, target: Path) -> None:
    """Show a file in another's place."""
    mount(str(source), target, flags=_MS_BIND)


def share_mounts() -> None:
    """Let what is mounted from now on be seen in copies of this mount namespace."""
    mount("none", "/", flags=_MS_REC | _MS_SHARED)


def make_mounts_private() -> None:
    """Keep what is mounted from now on from everybody else."""
    mount("none", "/", flags=_MS_REC | _MS_PRIVATE)


def cover(directory: Path, *, keep: tuple[Path, ...] = ()) -> None:
    """Put an empty file system in memory over a directory, except for what is to be kept of it."""
    held = [(path, os.open(path, os.O_PATH)) for path in keep if path.is_relative_to(directory)]
    mount("tmpfs", directory, kind="tmpfs")
    directory.chmod(0o755)
    for path, descriptor in held:
        bind(Path(f"/proc/self/fd/{descriptor}"), path)
        os.close(descriptor)


def cover_child(parent: Path, child: str, *, store: Path) -> None:
    """Give `parent/child` an empty directory without making it where it doesn't exist yet.

    The parent is covered by links to all that is in it; `store` is where they lead.
    """
    if (parent / child).is_dir():
        mount("tmpfs", parent / child, kind="tmpfs")
        return
    names = [path.name for path in parent.iterdir()]
    bind(parent, store)
    mount("tmpfs", parent, kind="tmpfs")
    parent.chmod(0o755)
    for name in names:
        (parent / name).symlink_to(store / name)
    (parent / child).mkdir()


def die_with_parent() -> None:
    """Have the kernel end the calling process when its parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "tie processes together")


def adopt_orphans() -> None:
    """Become the parent of what our descendants leave behind, so that `bury` can wait for it."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "adopt orphans")


def bury() -> None:
    """Wait for the end of all children."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def become_first_process(work: Callable[[], int], *, on_first: Callable[[], None]) -> None:
    """Run `work` in a new PID namespace, below a first process that only reaps; never return.

    `on_first` is called in the first process.  When `work` ends, so does everything.
    """
    unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET)
    if os.fork():
        os._exit(0)
    make_mounts_private()
    mount("proc", "/proc", kind="proc")
    on_first()
    worker = os.fork()
    if worker == 0:
        _run(work)
    _detach_output()
    while os.wait()[0] != worker:
        pass  # an orphan that was ours to bury
    os._exit(0)


def _run(work: Callable[[], int]) -> None:
    status = 1
    try:
        status = work()
    except BaseException:  # noqa: BLE001  # border: process top
        traceback.print_exc()
    finally:
        # Not sys.exit: what the parent has set up to happen at exit is not ours.
        os._exit(status)


def _detach_output() -> None:
    """Let go of what the worker inherited, so that its readers see the end of it."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_IGN)
