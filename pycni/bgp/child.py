"""Start ExaBGP as a child of ours: its user, its environment, its end with us.

It keeps CAP_NET_BIND_SERVICE alone and dies with the agent (PR_SET_PDEATHSIG), all by setpriv(1)
of util-linux, which sets the death signal after the change of user, as the kernel wants it.
"""

import asyncio
import contextlib
import os
import pwd
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pycni import programs
from pycni.errors import InvalidInput, TryAgain
from pycni.model.bgp import BGP_PORT
from pycni.model.network import IPAddress

STOP_TIMEOUT_S = 5.0
MAX_LOG = 1 << 20
"""Bytes of ExaBGP's log, and of the one kept from before: the run directory is memory."""


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """How ExaBGP is started.

    `python` is an interpreter that can import exabgp; `user` a name or number, None for our own;
    `listen` the addresses to accept sessions on; `log_level` is a name of ExaBGP's.
    """

    run_dir: Path
    python: str = sys.executable
    user: str | None = None
    listen: tuple[IPAddress, ...] = ()
    port: int = BGP_PORT
    log_level: str = "WARNING"


@dataclass(frozen=True, slots=True)
class Identity:
    """The numeric user and group that ExaBGP runs as."""

    uid: int
    gid: int


def identity(user: str | None) -> Identity:
    """Look a user up; numbers need no entry in the password file."""
    if user is None:
        return Identity(os.getuid(), os.getgid())
    if user.isdecimal():
        return Identity(int(user), int(user))
    try:
        entry = pwd.getpwnam(user)
    except KeyError as exc:
        raise InvalidInput(
            f"cannot run ExaBGP as {user!r}: no such user; create it or change bgp_user"
        ) from exc
    return Identity(entry.pw_uid, entry.pw_gid)


def environment(settings: ChildSettings) -> Mapping[str, str]:
    """Return ExaBGP's whole environment: nothing of ours leaks into it."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(settings.run_dir),
        "LANG": "C.UTF-8",
        "exabgp.daemon.user": "root",  # we changed the user already; it must not try again
        "exabgp.api.cli": "false",
        "exabgp.api.ack": "true",
        "exabgp.api.respawn": "true",
        "exabgp.api.encoder": "json",
        "exabgp.tcp.bind": " ".join(str(address) for address in settings.listen),
        "exabgp.tcp.port": str(settings.port),
        "exabgp.log.destination": "stdout",
        "exabgp.log.short": "false",
        "exabgp.log.level": settings.log_level,
        # Polls of its main loop per second fall with this number, and with them idle CPU.
        "exabgp.reactor.speed": "5",
    }


def command(settings: ChildSettings, *, configuration: Path) -> Sequence[str]:
    """Return the command line, wrapped so that it loses privileges and dies with us."""
    setpriv = shutil.which("setpriv", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if setpriv is None:
        raise TryAgain("cannot start ExaBGP: setpriv is missing; install util-linux")
    words = [setpriv, "--pdeathsig", "KILL"]
    if os.getuid() == 0 and settings.user is not None:
        who = identity(settings.user)
        words += ["--reuid", str(who.uid), "--regid", str(who.gid), "--clear-groups"]
        words += ["--no-new-privs"]
        for capability_set in ("--inh-caps", "--ambient-caps", "--bounding-set"):
            words += [capability_set, "-all,+net_bind_service"]
    return [*words, "--", settings.python, "-I", "-m", "exabgp", "server", str(configuration)]


async def start(settings: ChildSettings, *, configuration: Path) -> asyncio.subprocess.Process:
    """Start ExaBGP; its log goes to exabgp.log in the run directory, see `open_log`."""
    with open_log(settings.run_dir) as log:
        return await asyncio.create_subprocess_exec(
            *command(settings, configuration=configuration),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(environment(settings)),
            cwd="/",
        )


def open_log(run_dir: Path) -> BinaryIO:
    """Open a new log; that of the child before becomes exabgp.log.1, which may say why it ended."""
    path = run_dir / "exabgp.log"
    with contextlib.suppress(FileNotFoundError):
        path.replace(_old(path))
    # Appending, so that the child goes on at the beginning when the log is cut off.
    return path.open("ab")


def cut_log(run_dir: Path) -> None:
    """Cut a log off that has grown too long; its end becomes exabgp.log.1.

    The child keeps the file open.  What it writes while the end is copied is lost.
    """
    path = run_dir / "exabgp.log"
    # A log is no reason to end ExaBGP, and where there is no room for the copy, cutting makes some.
    with contextlib.suppress(OSError):
        if path.stat().st_size <= MAX_LOG:
            return
        with contextlib.suppress(OSError):
            _keep_end(path)
        os.truncate(path, 0)


def _keep_end(path: Path) -> None:
    with path.open("rb") as log:
        log.seek(-MAX_LOG, os.SEEK_END)
        _old(path).write_bytes(log.read(MAX_LOG))


def _old(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


async def stop(process: asyncio.subprocess.Process) -> None:
    """Kill ExaBGP without a word to its peers, so that they keep our routes (RFC 4724)."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await programs.is_over(process, within_s=STOP_TIMEOUT_S)


def is_descendant(pid: int, *, ancestor: int) -> bool:
    """Tell whether a process is another or one of its descendants, as /proc tells parents."""
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return False
        # The name of the process, in parentheses, may hold blanks and parentheses itself.
        pid = int(stat.rpartition(")")[2].split()[1])
    return False


def replace_file(path: Path, content: bytes, *, user: str | None, mode: int) -> None:
    """Write a file of ExaBGP's user, atomically."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.write(fd, content)
        os.fchmod(fd, mode)
        if os.getuid() == 0:
            who = identity(user)
            os.fchown(fd, who.uid, who.gid)
    finally:
        os.close(fd)
    temporary.replace(path)
