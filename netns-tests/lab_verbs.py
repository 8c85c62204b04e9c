"""Ask a running lab and its agents as bin/lab and pycnictl do, without starting them.

What waits for something asks many times a second, and each start of a program takes a tenth of a
second of a processor that the other tests want.
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pycni.errors import PycniError
from pycni.lab import sockets
from pycni.lab.frames import Decoder, Frame, Kind, Request, encode, encode_request, number_of

ANSWER_S = 20.0


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
    path = f"run/pycni-lab/{name}/{node}/run/control.sock"
    try:
        return _ask(f"{_root(name)}/{path}", question)
    except OSError:
        # There is no agent now, or this is another lab of the same name.
        _root.cache_clear()
        return _ask(f"{_root(name)}/{path}", question)


@lru_cache
def _root(name: str) -> str:
    """Return a path to the files as a lab sees them: it has a mount namespace of its own."""
    with sockets.connect(name) as supervisor:
        return f"/proc/{sockets.peer(supervisor)[0]}/root"


def _ask(path: str, question: str) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(ANSWER_S)
        agent.connect(path)
        agent.sendall(json.dumps({"question": question}).encode() + b"\n")
        with agent.makefile() as told:
            line = told.readline()
    if not line:
        raise ConnectionResetError("the agent went before it had answered")
    answer: dict[str, Any] = json.loads(line)["answer"]
    return answer
