"""Ask a running lab and its agents as bin/lab and pycnictl do, without starting them.

What waits for something asks many times a second, and each start of a program takes a tenth of a
second of a processor that the other tests want.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pycni.ctl import agentlink
from pycni.errors import PycniError, TryAgain
from pycni.lab import sockets
from pycni.lab.frames import Decoder, Frame, Kind, Request, encode, encode_request, number_of


@dataclass(frozen=True, slots=True)
class Ran:
    """A program's exit status, and all that it printed."""

    status: int
    output: str
    errors: str


def execute(name: str, place: str, *command: str, timeout_s: float = 60) -> Ran:
    """Run a program in a place of a lab; TimeoutError when it takes longer."""
    request = Request("exec", {"place": place, "command": list(command)})
    return _perform(name, request, timeout_s=timeout_s)


def kubectl(name: str, *words: str, timeout_s: float = 60) -> Ran:
    """Ask the cluster of a lab with Kubernetes; TimeoutError when it takes longer."""
    return _perform(name, Request("kubectl", {"command": list(words)}), timeout_s=timeout_s)


def _perform(name: str, request: Request, *, timeout_s: float) -> Ran:
    try:
        return _exchange(name, request, deadline=time.monotonic() + timeout_s)
    except TimeoutError:
        raise
    except (PycniError, OSError) as exc:
        return Ran(1, "", str(exc))  # as bin/lab ends


def _exchange(name: str, request: Request, *, deadline: float) -> Ran:
    printed = {Kind.STDOUT: bytearray(), Kind.STDERR: bytearray()}
    with sockets.connect(name) as connection:
        connection.sendall(encode_request(request) + encode(Frame(Kind.STDIN, b"")))
        decoder = Decoder()
        while True:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            if not (piece := connection.recv(1 << 16)):
                raise ConnectionError(f"the lab {name!r} ended before {request} had")
            for frame in decoder.feed(piece):
                if frame.kind is Kind.EXIT:
                    texts = (text.decode(errors="replace") for text in printed.values())
                    return Ran(number_of(frame), *texts)
                if frame.kind in printed:
                    printed[frame.kind] += frame.payload


def ask_agent(name: str, node: str, question: str) -> dict[str, Any]:
    """Return what a node's agent answers; OSError or PycniError where there is none."""
    run_dir = f"run/pycni-lab/{name}/{node}/run"
    try:
        return agentlink.ask(_root(name) / run_dir, question)
    except TryAgain:
        # There is no agent now, or this is another lab of the same name.
        _root.cache_clear()
        return agentlink.ask(_root(name) / run_dir, question)


@lru_cache
def _root(name: str) -> Path:
    """Return a path to the files as a lab sees them: it has a mount namespace of its own."""
    with sockets.connect(name) as supervisor:
        return Path(f"/proc/{sockets.peer(supervisor)[0]}/root")
