"""One user-mode Linux: what to run in it, its start, its streams, its end.

The command sees the host's files, its writes vanish (except below `writable` directories), /run
and /tmp are its own. This module knows nothing of the lab; it waits for nothing (see
`pycni.lab.uml` for that).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from pycni.errors import InvalidInput, TryAgain

HERE = Path(__file__).resolve().parent
CLONE = HERE.parent.parent
# Not /tmp: the guest has its own there, and must reach this directory.
STATE_PARENT = Path("/var/tmp")  # noqa: S108 - the names below it are random (mkdtemp)
STATE_PREFIX = "pycni-uml."
# The guest's device at the other end of `Guest.channel`, also in its environment.
CHANNEL_DEVICE = "/dev/ttyS2"
DEFAULT_MODULES = ("ipip", "veth", "tun", "bridge", "dummy", "vxlan", "ipv6")
# Where the guest has mounts of its own, so that the host's files below are hidden.
PRIVATE = (Path("/tmp"), Path("/run"), Path("/dev"))  # noqa: S108 - never written to
BOOT_FAILED = 125
MEMORY_ROOM = 2 << 30
GUEST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Outlives us by a moment: when we die without a word (kill -9), it ends what we started. It has
# a session of its own, so no signal meant for us reaches it.
GUARDIAN = """
read -r word && [ "$word" = done ] && exit
kill -KILL "-$1" 2>/dev/null
rm -rf "$2"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What to run, and in how large a machine."""

    command: tuple[str, ...]
    memory: str = "1024M"
    writable: tuple[Path, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)
    modules: tuple[str, ...] = DEFAULT_MODULES
    has_channel: bool = False

    def __post_init__(self) -> None:
        """Refuse what would only fail inside, where errors are harder to read."""
        if not self.command:
            raise InvalidInput("no command to run in user-mode Linux")
        for directory in (*self.writable, self.cwd):
            if not directory.is_dir():
                raise InvalidInput(f"{directory} is no directory: create it, or name another")
        for name in self.env:
            if not name.isidentifier():
                raise InvalidInput(f"{name!r} cannot be the name of an environment variable")


def find_shim() -> Path | None:
    """Find the compiled umlfp.c where bin/ensure puts it."""
    if given := os.environ.get("PYCNI_UML_SHIM"):
        return Path(given)
    digest = hashlib.sha256((HERE / "umlfp.c").read_bytes()).hexdigest()[:16]
    shim = cache_directory() / "uml" / digest / "umlfp.so"
    return shim if shim.exists() else None


def cache_directory() -> Path:
    """Name the directory of compiled things, as bin/lib.sh does."""
    if given := os.environ.get("PYCNI_CACHE"):
        return Path(given)
    caches = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "/root")) / ".cache"
    return Path(caches) / "pycni"


def hidden_directories(spec: Spec) -> tuple[Path, ...]:
    """List what the command needs but the guest's own /tmp and /run would hide."""
    needed = (CLONE, Path(sys.prefix), cache_directory(), spec.cwd)
    below = {path for path in needed if path.is_dir() and any(map(path.is_relative_to, PRIVATE))}
    below -= {*PRIVATE, *spec.writable}
    # A directory inside another one of the list comes with it.
    return tuple(sorted(path for path in below if not below & set(path.parents)))


def env_text(spec: Spec) -> str:
    """Render the settings that the guest's first process reads."""
    visible = shlex.join(map(str, hidden_directories(spec)))
    writable = shlex.join(str(path.resolve()) for path in spec.writable)
    channel = CHANNEL_DEVICE if spec.has_channel else ""
    return (
        f"VISIBLE=({visible})\nWRITABLE=({writable})\n"
        f"MODULES={shlex.quote(' '.join(spec.modules))}\nCHANNEL={channel}\n"
    )


def command_text(spec: Spec) -> str:
    """Render the shell text that becomes the command."""
    env = {
        "PATH": GUEST_PATH,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
        "PYCNI_IN_UML": "1",
        **({"PYCNI_CHANNEL": CHANNEL_DEVICE} if spec.has_channel else {}),
        **spec.env,
    }
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())
    return (
        f"{exports}cd {shlex.quote(str(spec.cwd))} || exit 126\nexec {shlex.join(spec.command)}\n"
    )


class Guest:
    """One running user-mode Linux; use as a context manager, so that nothing is left of it.

    `stdout` and `stderr` are descriptors to read from. `channel` (if asked for) is a pair of them,
    to read from and to write to CHANNEL_DEVICE in the guest. Send nothing there before the guest
    has sent first: until its program has opened the device, bytes would be lost.
    """

    def __init__(self, spec: Spec) -> None:
        kernel = shutil.which("linux.uml", path=f"{os.environ.get('PATH', '')}:/usr/bin")
        if kernel is None:
            raise TryAgain("user-mode-linux is not installed: run  sudo bin/ensure uml")
        sweep(STATE_PARENT)
        self.directory = Path(tempfile.mkdtemp(prefix=STATE_PREFIX, dir=STATE_PARENT))
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._open = [self._lock]
        self.channel: tuple[int, int] | None = None
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian: subprocess.Popen[bytes] | None = None
        try:
            (self.directory / "env").write_text(env_text(spec))
            (self.directory / "cmd").write_text(command_text(spec))
            self._start(kernel, spec)
        except BaseException:
            self.close()
            raise

    def _start(self, kernel: str, spec: Spec) -> None:
        keyboard, self._keyboard = os.pipe()
        self.stdout, screen = os.pipe()
        self.stderr, errors = os.pipe()
        self._open += [self._keyboard, self.stdout, self.stderr]
        theirs = [keyboard, screen, errors]
        lines = ["ssl=null", f"ssl0=fd:{keyboard},fd:{screen}", f"ssl1=null,fd:{errors}"]
        if spec.has_channel:
            their_input, ours_out = os.pipe()
            ours_in, their_output = os.pipe()
            self.channel = (ours_in, ours_out)
            self._open += self.channel
            theirs += [their_input, their_output]
            lines.append(f"ssl2=fd:{their_input},fd:{their_output}")
        try:
            self._spawn([*machine_arguments(kernel, spec, self.directory), *lines], theirs)
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def _spawn(self, arguments: Sequence[str], descriptors: Sequence[int]) -> None:
        env = {"PATH": GUEST_PATH, "HOME": str(self.directory), "TERM": "dumb"}
        env["TMPDIR"] = str(memory_directory(self.directory))
        if shim := find_shim():
            env["LD_PRELOAD"] = str(shim)
        with (self.directory / "boot.log").open("wb") as log:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # The lock too: the directory is in use as long as one of us lives.
                pass_fds=[*descriptors, self._lock],
                env=env,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._guardian = subprocess.Popen(
            ["sh", "-c", GUARDIAN, "guardian", str(self.pid), str(self.directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        """Return the running guest."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it, whatever state it is in."""
        self.close()

    def has_started(self) -> bool:
        """Say whether the boot is over and the command runs (or ran)."""
        return (self.directory / "started").exists()

    def poll(self) -> int | None:
        """Return the command's exit status, 125 if the machine broke, None while it runs."""
        if self._process is None or self._process.poll() is None:
            return None
        try:
            return int((self.directory / "rc").read_text())
        except (OSError, ValueError):
            return BOOT_FAILED

    def has_result(self) -> bool:
        """Say whether the command ended by itself."""
        return (self.directory / "rc").exists()

    def interrupt(self) -> None:
        """Press Ctrl-C on the guest's terminal."""
        os.write(self._keyboard, b"\x03")

    def log(self) -> str:
        """Return what the machine said of itself, for error messages."""
        parts = [self.directory / "boot.log", self.directory / "init.log"]
        return "\n".join(
            path.read_text(errors="replace")[-4000:] for path in parts if path.exists()
        )

    def close(self) -> None:
        """Kill all of its processes and remove its files."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._guardian is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guardian.communicate(b"done\n")
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()


def machine_arguments(kernel: str, spec: Spec, directory: Path) -> list[str]:
    """Compose the kernel's command line, serial lines apart."""
    return [
        kernel,
        f"mem={spec.memory}",
        "rootfstype=hostfs",
        "rootflags=/",
        "rw",
        f"init={HERE / 'uml_init.sh'}",
        f"pycni.dir={directory}",
        f"uml_dir={directory}/",
        "quiet",
        "con=null",
        # The console's output joins the boot log.
        "con0=null,fd:2",
    ]


def memory_directory(fallback: Path) -> Path:
    """Choose where the guest's memory lies: in memory if that has room, else in a file.

    A container's /dev/shm may hold 64 MB, and a guest that outgrows it dies of SIGBUS.
    """
    shm = Path("/dev/shm")  # noqa: S108 - the kernel itself makes an unlinked file there
    with contextlib.suppress(OSError):
        stat = os.statvfs(shm)
        if stat.f_bavail * stat.f_frsize > MEMORY_ROOM and not stat.f_flag & os.ST_NOEXEC:
            return shm
    return fallback


def sweep(parent: Path) -> None:
    """Remove what guests left whose owner and guardian were killed together.

    Whoever uses a directory holds its lock; process ids would mislead across PID namespaces.
    """
    for lock in parent.glob(f"{STATE_PREFIX}*/lock"):
        with contextlib.suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
