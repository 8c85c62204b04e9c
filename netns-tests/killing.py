"""Ends a process by SIGKILL at a system call of one's choice: ptrace(2), as a debugger does it.

A process that dies on entering its call number N has done N - 1 of them and not this one; so a run
for each N, up to the first that lives to its end, goes through every state that a crash can leave
behind.  Calls are counted over all threads of the process, not over its children.

Between two calls that change something outside the process lie many that only look (`_looks_only`):
a death before, between or after them leaves the same.  They are not counted, unless
PYCNI_FAULT_CALLS=all says that this is to be shown and not believed.
"""

import contextlib
import ctypes
import json
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

_TRACEME, _SYSCALL, _SETOPTIONS, _SEIZE, _INTERRUPT = 0, 24, 0x4200, 0x4206, 0x4207
_GET_SYSCALL_INFO = 0x420E
_TRACESYSGOOD, _TRACECLONE, _TRACEEXEC = 0x1, 0x8, 0x10
_OPTIONS = _TRACESYSGOOD | _TRACECLONE | _TRACEEXEC
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_WALL = 0x40000000
_ENTRY = 1

_COUNTS_ALL = os.environ.get("PYCNI_FAULT_CALLS") == "all"
_X86_64 = 0xC000003E  # AUDIT_ARCH_X86_64; other machines have other numbers, and count them all
_OPENAT = 257
# By number, as in arch/x86/entry/syscalls.  Closing and locking are here because the end of a
# process closes and unlocks everything that it had.
_READING = (0, 8, 17, 19, 45, 47, 217, 295)  # read, lseek, recvmsg, getdents64 and the like
_LOOKING_UP = (4, 5, 6, 21, 79, 89, 262, 267, 269, 332, 439)  # stat, access, getcwd, readlink
_MEMORY = (9, 10, 11, 12, 28)
_SIGNALS = (13, 14, 15, 131)
_WAITING = (7, 24, 35, 202, 230, 232, 270, 271, 281)  # poll, nanosleep, futex, epoll_wait
_DESCRIPTORS = (3, 32, 33, 41, 51, 52, 54, 55, 72, 233, 290, 291, 292, 293)  # socket, fcntl, pipe2
_OF_ITSELF = (39, 63, 97, 99, 102, 104, 107, 108, 158, 186, 204, 218, 273, 302, 334)  # getpid
_CLOCKS_AND_CHANCE = (96, 100, 228, 318)
_LOOKING = frozenset(
    _READING + _LOOKING_UP + _MEMORY + _SIGNALS + _WAITING
    + _DESCRIPTORS + _OF_ITSELF + _CLOCKS_AND_CHANCE
)  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _SyscallInfo(ctypes.Structure):
    """The beginning of struct ptrace_syscall_info."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
    )


@dataclass(frozen=True)
class Ran:
    """How a traced process went: how many calls, the last one's number, and its end.

    `was_killed` tells whether it came to the call that it was to die on; `status` is None for a
    process that was killed, by whomever.
    """

    calls: int
    last: int
    was_killed: bool
    status: int | None = None

    def __str__(self) -> str:
        """Say where it died."""
        return f"killed on entering call {self.calls}, number {self.last} of the kernel's table"


def run(prepare: Callable[[], None], work: Callable[[], int]) -> int:
    """Do `prepare` and `work` in a process of its own; return its exit status."""
    pid = start(prepare, work)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def start(prepare: Callable[[], None], work: Callable[[], int]) -> int:
    """Begin the same; return the process, which is the caller's to wait for."""

    def both() -> int:
        prepare()
        return work()

    pid = os.fork()
    if pid == 0:
        _become(both)
    return pid


def run_killed(prepare: Callable[[], None], work: Callable[[], int], *, at: int) -> Ran:
    """Do the same in a process that dies on entering call `at` of `work`.

    What they do to their process (namespace, descriptors, environment) stays with it.
    """

    def stopped() -> None:
        prepare()
        _ptrace(_TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)

    def trace(_: Callable[[], None]) -> Ran:
        pid = start(stopped, work)
        os.waitpid(pid, _WALL)
        _ptrace(_SETOPTIONS, pid, data=_OPTIONS)
        _ptrace(_SYSCALL, pid)
        return _follow(pid, at=at)

    return _tracer(trace).wait()


def kill_at(pid: int, at: int) -> "Tracer":
    """Kill a running process on entering its call number `at`, counted from now on.

    It is followed to its end, which the caller brings about where that call never comes.
    """

    def trace(tell_ready: Callable[[], None]) -> Ran:
        for tid in [path.name for path in Path(f"/proc/{pid}/task").iterdir()]:
            _ptrace(_SEIZE, int(tid), data=_OPTIONS)
            _ptrace(_INTERRUPT, int(tid))
            os.waitpid(int(tid), _WALL)
            _ptrace(_SYSCALL, int(tid))
        tell_ready()
        return _follow(pid, at=at)

    tracer = _tracer(trace)
    tracer.wait_until_ready()
    return tracer


class Tracer:
    """A process that traces another one; it waits for any child, so it is nobody else's."""

    def __init__(self, pid: int, pipe: int) -> None:
        self._pid = pid
        self._pipe = os.fdopen(pipe, "rb")
        self._ran: Ran | None = None

    def wait_until_ready(self) -> None:
        """Return when it traces."""
        assert self._pipe.readline() == b"ready\n", "the tracer failed"

    def wait(self) -> Ran:
        """Return how the process ended, once it has."""
        if self._ran is None:
            said = self._pipe.read()
            self._pipe.close()
            os.waitpid(self._pid, 0)
            assert said, "the tracer failed"
            self._ran = Ran(*json.loads(said))
        return self._ran


def _tracer(trace: Callable[[Callable[[], None]], Ran]) -> Tracer:
    reading, writing = os.pipe()

    def tell() -> int:
        ran = trace(lambda: _write(writing, b"ready\n"))
        _write(writing, json.dumps([ran.calls, ran.last, ran.was_killed, ran.status]).encode())
        return 0

    pid = start(lambda: None, tell)
    os.close(writing)
    return Tracer(pid, reading)


def _write(fd: int, what: bytes) -> None:
    os.write(fd, what)


def _follow(pid: int, *, at: int) -> Ran:
    calls, last = 0, -1
    while True:
        tid, status = os.waitpid(-1, _WALL)
        if not os.WIFSTOPPED(status):
            if tid == pid:
                return Ran(calls, last, was_killed=calls >= at, status=_exit_status(status))
            continue
        if calls < at and (entered := _entered(tid, status)) is not None:
            calls, last = calls + 1, entered
            if calls == at:
                os.kill(pid, signal.SIGKILL)
                continue
        _resume(tid, status)


def _entered(tid: int, status: int) -> int | None:
    """Return the number of the call that a thread is about to begin, if it counts."""
    if os.WSTOPSIG(status) != _SYSCALL_STOP:
        return None
    info = _SyscallInfo()
    with contextlib.suppress(ProcessLookupError):  # killed meanwhile
        _ptrace(_GET_SYSCALL_INFO, tid, ctypes.sizeof(info), ctypes.addressof(info))
    if info.op != _ENTRY or (not _COUNTS_ALL and _looks_only(info)):
        return None
    return int(info.nr)


def _looks_only(info: _SyscallInfo) -> bool:
    """Say whether a call leaves everything outside its process as it is."""
    if info.arch != _X86_64:
        return False
    if info.nr == _OPENAT:
        return not int(info.args[2]) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    return int(info.nr) in _LOOKING


def _resume(tid: int, status: int) -> None:
    number = os.WSTOPSIG(status)
    is_ours = status >> 16 or number in {signal.SIGTRAP, _SYSCALL_STOP}
    # A new thread begins with SIGSTOP.
    deliver = 0 if is_ours or number == signal.SIGSTOP else number
    with contextlib.suppress(ProcessLookupError):  # killed meanwhile
        _ptrace(_SYSCALL, tid, data=deliver)


def _exit_status(status: int) -> int | None:
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None


def _become(work: Callable[[], int]) -> NoReturn:
    """Do nothing but `work` in this forked process, whatever comes of it."""
    status = 70
    try:
        status = work()
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 1
    except BaseException:  # noqa: BLE001  # the top of this process
        traceback.print_exc()
    finally:
        os._exit(status)


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request:#x}: {os.strerror(number)}")
