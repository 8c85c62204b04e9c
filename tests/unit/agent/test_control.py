"""The control socket: questions by name, and what becomes of one that can't be answered."""

import asyncio
import os
from pathlib import Path
from typing import NoReturn

import pytest

from pycni.agent.control import Answers, ControlServer
from pycni.ctl.agentlink import ask, wish
from pycni.errors import DatastoreUnusable, InvalidInput

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: others are not answered")

NONE: Answers = {}


def asked(run_dir: Path, answers: Answers, question: str, *, wishes: Answers = NONE) -> object:
    async def main() -> object:
        control = ControlServer(run_dir / "control.sock", answers, wishes)
        server = asyncio.create_task(control.run())
        try:
            await asyncio.sleep(0)  # it listens before it first waits
            talk = wish if wishes else ask
            return await asyncio.to_thread(talk, run_dir, question)
        finally:
            server.cancel()
            await asyncio.wait([server])

    return asyncio.run(main())


@needs_root
def test_question_is_answered_by_its_name(tmp_path: Path) -> None:
    answer = asked(tmp_path, {"endpoints": lambda: {"node": "node-0"}}, "endpoints")

    assert answer == {"node": "node-0"}


@needs_root
def test_wish_is_fulfilled_by_its_name_and_is_no_question(tmp_path: Path) -> None:
    wishes: Answers = {"leave": lambda: {"state": "leaving"}}

    assert asked(tmp_path, {}, "leave", wishes=wishes) == {"state": "leaving"}
    with pytest.raises(InvalidInput, match="known questions: ; wishes: "):
        asked(tmp_path, {}, "leave")


@needs_root
def test_unknown_question_is_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="known questions: status"):
        asked(tmp_path, {"status": dict}, "endpoints")


@needs_root
def test_damaged_record_is_named_to_who_asks(tmp_path: Path) -> None:
    def broken() -> NoReturn:
        raise DatastoreUnusable("cannot read /run/pycni/endpoints/x.json")

    with pytest.raises(InvalidInput, match=r"cannot read /run/pycni/endpoints/x\.json"):
        asked(tmp_path, {"endpoints": broken}, "endpoints")
