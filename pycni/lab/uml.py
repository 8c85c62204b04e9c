"""Run a command in user-mode Linux over the host's files, and wait for it.

For kernels without IP-in-IP: user-mode Linux brings its own, as an ordinary process. This module
knows nothing of the lab. `python -m pycni.lab.uml --help` shows it as a command.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pycni.errors import InvalidInput, PycniError
from pycni.lab.uml_guest import BOOT_FAILED, Guest, Spec

TIMED_OUT = 124
INTERRUPTED = 130
BOOT_TIMEOUT_S = 90.0
INTERRUPT_GRACE_S = 5.0
POLL_S = 0.5
CHUNK = 65536

EXAMPLE = """\
example:
  python -m pycni.lab.uml --rw results -- sh -c 'ip link show tunl0 | tee results/tunl0'

exit status: the command's; 124 after --timeout, 125 when the machine did not start (its boot log
is shown), 130 after Ctrl-C
"""


def run(spec: Spec, *, timeout_s: float, stdout: BinaryIO, stderr: BinaryIO) -> int:
    """Run to the end; return the command's exit status, or one of the three of EXAMPLE."""
    with Guest(spec) as guest:
        try:
            return _relay(guest, timeout_s, stdout, stderr)
        except KeyboardInterrupt:
            guest.interrupt()
            with contextlib.suppress(KeyboardInterrupt):
                _relay(guest, INTERRUPT_GRACE_S, stdout, stderr)
            return INTERRUPTED


def _relay(guest: Guest, timeout_s: float, stdout: BinaryIO, stderr: BinaryIO) -> int:
    """Copy the guest's output until it ends or its time is up."""
    started = time.monotonic()
    with selectors.DefaultSelector() as selector, _pidfd(guest.pid) as ended:
        selector.register(guest.stdout, selectors.EVENT_READ, stdout)
        selector.register(guest.stderr, selectors.EVENT_READ, stderr)
        selector.register(ended, selectors.EVENT_READ, None)
        while (status := guest.poll()) is None:
            _copy_ready(selector, POLL_S)
            elapsed = time.monotonic() - started
            if elapsed > timeout_s:
                stderr.write(f"timed out after {timeout_s:g} s\n".encode())
                return TIMED_OUT
            if elapsed > BOOT_TIMEOUT_S and not guest.has_started():
                status = BOOT_FAILED
                break
        # What it wrote last is still in the pipes.
        while _copy_ready(selector, 0):
            pass
    if status == BOOT_FAILED and not guest.has_result():
        stderr.write(f"user-mode Linux did not run the command; its log:\n{guest.log()}\n".encode())
    stderr.flush()
    return status


def _copy_ready(selector: selectors.BaseSelector, wait_s: float) -> bool:
    """Copy what is there now; False when there was nothing."""
    is_any = False
    for key, _ in selector.select(wait_s):
        if key.data is None:
            continue
        if chunk := os.read(key.fd, CHUNK):
            key.data.write(chunk)
            key.data.flush()
            is_any = True
        else:
            selector.unregister(key.fd)
    return is_any


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    """Give a descriptor that becomes readable when the process ends."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def parse(arguments: Sequence[str]) -> tuple[Spec, float]:
    """Read the command line: what to run, and how many seconds it may take."""
    parser = argparse.ArgumentParser(
        prog="python -m pycni.lab.uml",
        description="Run a command in user-mode Linux over this machine's files.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--mem", default="1024M", metavar="M", help="memory, default %(default)s")
    add("--timeout", type=float, default=600.0, metavar="S", help="seconds, default %(default)g")
    add("--rw", action="append", type=Path, default=[], metavar="DIR", help="writes here stay")
    add("--env", action="append", default=[], metavar="K=V", help="set a variable for the command")
    add("command", nargs="+", metavar="CMD", help="the command and its arguments, after --")
    options = parser.parse_args(arguments)
    env = dict(_assignment(text) for text in options.env)
    spec = Spec(
        command=tuple(options.command),
        memory=options.mem,
        writable=tuple(path.resolve() for path in options.rw),
        env=env,
    )
    return spec, options.timeout


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"--env {text}: write it as NAME=VALUE")
    return name, value


def main(arguments: Sequence[str]) -> int:
    """Be the command."""
    # SIGTERM like Ctrl-C: the machine must end with us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        spec, timeout_s = parse(arguments)
        return run(spec, timeout_s=timeout_s, stdout=sys.stdout.buffer, stderr=sys.stderr.buffer)
    except PycniError as error:
        print(f"error: {error}", file=sys.stderr)
        return BOOT_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
