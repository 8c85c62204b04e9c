"""What the supervisor tells of an `up` that fails, however long it takes, and of what it lacks."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import pytest

from pycni.errors import TryAgain
from pycni.lab import sockets, supervise
from pycni.lab.frames import Decoder, Kind, Request, encode_request
from pycni.lab.layout import Layout, Plan

if TYPE_CHECKING:
    from pathlib import Path

    from pycni.lab.session import Session

PLAN = Plan("", source="a.yaml", tunnel="bpf", where="host", clone="/clone")
UP = Request("up", PLAN.document())


async def fail(*, session: Session) -> bool:
    await session.say("beginning")
    raise TryAgain("it is broken")


async def come_up(*, session: Session) -> bool:
    await session.say("all is up")
    return True


async def ask_around(*, session: Session) -> None:
    """As logs are gathered from a cluster that must still be there to be asked."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await session.complain("what was seen last")


async def told(path: Path, request: Request) -> list[tuple[Kind, bytes]]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(encode_request(request))
    decoder = Decoder()
    found: list[tuple[Kind, bytes]] = []
    while not any(kind is Kind.EXIT for kind, _ in found):
        piece = await reader.read(4096)
        assert piece, found
        found += [(frame.kind, frame.payload) for frame in decoder.feed(piece)]
    writer.close()
    return found


def ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: supervise.Running, *asked: Request
) -> list[list[tuple[Kind, bytes]]]:
    """Return what each of these requests is told by a lab that comes up so; the last ends it."""

    def made(_: Plan, *, layout: Layout) -> supervise.Running:
        assert layout.name == "lab"
        return running

    monkeypatch.setattr(supervise, "running_of", made)
    monkeypatch.setattr(sockets, "peer", lambda _: (os.getpid(), 0))
    path = tmp_path / "verbs.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    async def scene() -> list[list[tuple[Kind, bytes]]]:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(supervise.Supervisor(Layout("lab")).run(listener))
            return [await told(path, request) for request in asked]

    return asyncio.run(scene())


def test_the_end_waits_for_what_is_to_be_said_of_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = supervise.Running(fail, ask_around, {})

    assert ask(tmp_path, monkeypatch, running, UP) == [
        [
            (Kind.STDOUT, b"beginning\n"),
            (Kind.STDERR, b"what was seen last\n"),
            (Kind.STDERR, b"error: it is broken\n"),
            (Kind.EXIT, b"\x01"),
        ]
    ]


@pytest.mark.parametrize(
    ("verb", "way"),
    [
        ("kubectl", "end it with  bin/lab down, then  bin/lab --kubernetes"),
        ("agent", "bin/lab exec NODE -- systemctl stop pycni-agent"),
        ("pod", "pods are made by  bin/lab kubectl"),
    ],
)
def test_a_verb_of_the_other_kind_of_lab_names_the_way_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, way: str
) -> None:
    running = supervise.Running(come_up, ask_around, {})

    answers = ask(tmp_path, monkeypatch, running, UP, Request(verb, {}), Request("down", {}))

    (_, said), ended = answers[1]
    assert said.decode().startswith(f"error: {verb} is ")
    assert way in said.decode()
    assert ended == (Kind.EXIT, b"\x02")
