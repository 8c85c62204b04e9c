"""What tiers of tests share: where a run keeps what it makes, and how tests are judged."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.tier_model import Case, Outcome, judge_tests
from tests.tier_run import (
    ISOLATE,
    TIMED_OUT,
    Processes,
    Ran,
    find_obstacle,
    pytest_summary,
    run,
)
from tests.tier_turns import Turns

# Tiers that can't be empty: a run without them proves nothing. Add a tier once it has tests.
REQUIRED = (
    *("unit", "contract", "agent", "stories", "scenarios", "cni", "apiserver"),
    *("netns", "kubernetes", "kubeadm", "uml", "peers"),
)


@dataclass(frozen=True, slots=True)
class Context:
    """Where one run keeps what it makes, and how it was asked to run."""

    scratch: Path
    env: dict[str, str]
    announce: Callable[[str], object] = str
    processes: Processes = field(default_factory=Processes)
    turns: Turns = field(default_factory=Turns)

    def run(self, command: Sequence[str], *, timeout_s: float, scratch: Path | None = None) -> Ran:
        """Run a command of this run."""
        where = scratch or self.fresh("step")
        return run(
            command, timeout_s=timeout_s, env=self.env, scratch=where, processes=self.processes
        )

    def find_obstacle(self) -> str:
        """Say why tests can't have namespaces of their own; empty when they can."""
        if os.geteuid() != 0:
            return "needs root (sudo bin/test)"
        return find_obstacle(self.run([*ISOLATE, "true"], timeout_s=20))

    def fresh(self, name: str) -> Path:
        """Make an empty directory for one step."""
        return Path(tempfile.mkdtemp(prefix=f"{name}.", dir=self.scratch))

    @property
    def coverage(self) -> Path:
        """The directory of this run's coverage data, one file for each tier."""
        return self.scratch / "coverage"


Tier = Callable[[str, Context], Outcome]


def module(name: str, *arguments: str) -> list[str]:
    """Compose the call of a tool in this environment."""
    return [sys.executable, "-I", "-m", name, *arguments]


def tests_outcome(name: str, cases: Sequence[Case], *, status: int, output: str) -> Outcome:
    """Judge a tier of tests by what they and pytest said."""
    is_ok, why = judge_tests(name, cases=cases, exit_status=status, is_required=name in REQUIRED)
    if status == TIMED_OUT:
        why = f"timed out; {why}"
    pytests_own = pytest_summary(output)
    if is_ok and cases and pytests_own:
        why = pytests_own
    elif pytests_own:
        why = f"{why} ({pytests_own})"
    return Outcome(name, is_ok, 0, why, output, tuple(cases))
