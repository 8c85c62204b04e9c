"""Who runs beside whom, and who waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tests.tier_turns import LAST, SOON, USUAL, Turns

SOON_S = 10.0


class Line:
    """Threads that want a turn each, keep it until told, and say that they have it."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.has_turn: list[str] = []
        self._ends: dict[str, threading.Event] = {}
        self._threads: dict[str, threading.Thread] = {}

    def ask(self, name: str, weight: int, rank: int = USUAL) -> None:
        """Let somebody ask, and return when it stands in the line or has its turn."""
        self._ends[name] = threading.Event()
        thread = threading.Thread(target=self._take, args=(name, weight, rank), daemon=True)
        self._threads[name] = thread
        before = len(self.turns) + len(self.has_turn)
        thread.start()
        wait_for(lambda: len(self.turns) + len(self.has_turn) > before)

    def _take(self, name: str, weight: int, rank: int) -> None:
        with self.turns.turn(weight, rank):
            self.has_turn.append(name)
            self._ends[name].wait(SOON_S)
            self.has_turn.remove(name)

    def end(self, name: str) -> None:
        """End somebody's turn."""
        self._ends[name].set()
        self._threads[name].join(SOON_S)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)  # threads tell nobody


def test_turns_are_given_while_the_machine_bears_them() -> None:
    line = Line(Turns(4))
    line.ask("heavy", 2)
    line.ask("light", 1)

    line.ask("second heavy", 2)
    assert sorted(line.has_turn) == ["heavy", "light"]
    line.end("light")

    wait_for(lambda: sorted(line.has_turn) == ["heavy", "second heavy"])


def test_nobody_overtakes_what_is_heavy() -> None:
    line = Line(Turns(2))
    line.ask("light", 1)
    line.ask("heavy", 2)
    line.ask("later", 1)

    assert line.has_turn == ["light"]
    line.end("light")
    wait_for(lambda: line.has_turn == ["heavy"])
    line.end("heavy")
    wait_for(lambda: line.has_turn == ["later"])


def test_ranks_come_before_the_order_of_asking() -> None:
    line = Line(Turns(1))
    line.ask("first", 1)
    line.ask("alone", 9, LAST)
    line.ask("usual", 1)
    line.ask("soon", 1, SOON)

    seen = []
    for _ in range(4):
        wait_for(lambda: len(line.has_turn) == 1)
        seen += line.has_turn
        line.end(line.has_turn[0])

    assert seen == ["first", "soon", "usual", "alone"]


def test_more_than_the_machine_bears_is_all_of_it() -> None:
    line = Line(Turns(2))

    line.ask("too heavy", 5)

    wait_for(lambda: line.has_turn == ["too heavy"])
