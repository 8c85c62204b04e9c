"""Own a lab that runs inside user-mode Linux: the machine's life, and the way in for clients.

`python -m pycni.lab.keeper NAME --ready-fd FD`, started by `up`, never by hand.  Its end is the
lab's end.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Sequence

from pycni.errors import PycniError, TryAgain
from pycni.lab import isolate, mux, sockets
from pycni.lab.uml_guest import Guest, Spec

READY = b"ready\n"
BOOT_TIMEOUT_S = 90.0
LOG_LINES = 40


class Keeper:
    """One machine and the two sockets that stand for it on the host."""

    def __init__(self, name: str, *, guest: Guest, ready_fd: int) -> None:
        self._name = name
        self._guest = guest
        self._ready_fd = ready_fd
        self._said: deque[bytes] = deque(maxlen=LOG_LINES)
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Carry clients until the machine ends or we are told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        # What the machine prints has to be read, or it would stand still one day.
        for descriptor in (self._guest.stdout, self._guest.stderr):
            os.set_blocking(descriptor, False)
            loop.add_reader(descriptor, self._drain, descriptor)
        assert self._guest.channel is not None  # noqa: S101 - it was asked for
        address = "@" + sockets.verb_address(self._name)[1:]
        line = mux.Line(*self._guest.channel)
        tasks = [
            asyncio.create_task(mux.serve_clients(line, address, on_ready=self._ready)),
            asyncio.create_task(self._watch_machine()),
            asyncio.create_task(self._stop.wait()),
            asyncio.create_task(self._watch_boot()),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        if self._ready_fd >= 0 and not self._stop.is_set():
            reasons = [str(r) for r in results if isinstance(r, PycniError)]
            raise TryAgain("; ".join(reasons or ["user-mode Linux ended"]) + self._story())

    def _drain(self, descriptor: int) -> None:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:
            piece = b""
        if not piece:
            asyncio.get_running_loop().remove_reader(descriptor)
            return
        self._said.extend(piece.splitlines())

    def _ready(self) -> None:
        os.write(self._ready_fd, READY)
        os.close(self._ready_fd)
        self._ready_fd = -1

    async def _watch_machine(self) -> None:
        ended = asyncio.Event()
        descriptor = os.pidfd_open(self._guest.pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    async def _watch_boot(self) -> None:
        await asyncio.sleep(BOOT_TIMEOUT_S)
        if self._ready_fd >= 0:
            raise TryAgain(f"user-mode Linux did not boot within {BOOT_TIMEOUT_S:g} s")
        await asyncio.Event().wait()

    def _story(self) -> str:
        said = b"\n".join(self._said).decode(errors="replace")
        return f"\n--- its log\n{self._guest.log()}\n--- its output\n{said}"


def main(argv: Sequence[str]) -> int:
    """Be the keeper."""
    parser = argparse.ArgumentParser(prog="pycni.lab.keeper", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--ready-fd", type=int, required=True)
    options = parser.parse_args(argv)
    command = (sys.executable, "-I", "-m", "pycni.lab.supervise", options.name)
    isolate.adopt_orphans()
    try:
        life = sockets.take_life(options.name)
        life.listen()
        with Guest(Spec(command=command, has_channel=True)) as guest:
            asyncio.run(Keeper(options.name, guest=guest, ready_fd=options.ready_fd).run())
    except PycniError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    finally:
        # The machine's processes die a moment after their first one; our end must mean theirs.
        isolate.bury()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
