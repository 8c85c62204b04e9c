"""A forked child that plays another process on the same files, and never a second pytest."""

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Child:
    """A process that runs until it is awaited or killed."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._status: int | None = None

    def is_running(self) -> bool:
        """Tell whether the child goes on."""
        return self._reap(os.WNOHANG) is None

    def wait(self) -> int:
        """Return how it ended: 0 when all went well, 1 by an error, or minus a signal."""
        status = self._reap(0)
        assert status is not None
        return status

    def kill(self) -> int:
        """Let it end in the midst of what it does; return how it ended."""
        if self.is_running():
            os.kill(self._pid, signal.SIGKILL)
        return self.wait()

    def _reap(self, options: int) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self._pid, options)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status


@contextmanager
def forked(work: Callable[[], None]) -> Iterator[Child]:
    """Run `work` in a child beside the body; what is left of it after the body is killed."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the status tells the parent.
            traceback.print_exc()  # pytest shows it beside the parent's failure
        finally:
            os._exit(status)
    child = Child(pid)
    try:
        yield child
    finally:
        child.kill()
