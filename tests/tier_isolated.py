"""Tiers whose test files get fresh namespaces each, several side by side where they allow it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from tests.tier_context import Context, Tier, module, tests_outcome
from tests.tier_model import Case, Outcome
from tests.tier_run import ISOLATE, TIMED_OUT, pytest_command, pytest_summary, read_junit
from tests.tier_turns import ALONE, LAST, LONG, SOON, USUAL


@dataclass(frozen=True, slots=True)
class _File:
    """What came of one file: its tests, what pytest printed, its status, and when it ran."""

    cases: tuple[Case, ...]
    output: str
    status: int
    begun: float
    ended: float


@dataclass(frozen=True, slots=True)
class _Files:
    """How each of a tier's files is run."""

    name: str
    context: Context
    markers: str
    weight: int
    timeout_s: float
    test_timeout_s: int

    def run(self, path: str, *, weight: int, rank: int) -> _File:
        """Run one file when it is its turn, and say so."""
        with self.context.turns.turn(weight, rank):
            begun = time.monotonic()
            scratch = self.context.fresh(self.name)
            junit, files = scratch / "junit.xml", self.context.fresh("t")
            command = pytest_command(
                [path],
                markers=self.markers,
                junit=junit,
                test_timeout_s=self.test_timeout_s,
                coverage=None,
                basetemp=files,
            )
            ran = self.context.run([*ISOLATE, *command], timeout_s=self.timeout_s, scratch=scratch)
            shutil.rmtree(files, ignore_errors=True)
            summary = pytest_summary(ran.output) or f"status {ran.status}"
            print(f"     {self.name}: {path}: {summary}", flush=True)
            ended = time.monotonic()
            return _File(read_junit(junit), ran.output, ran.status, begun, ended)


def collect(folder: str, markers: str, context: Context) -> tuple[list[str], str]:
    """List the tests that a marker expression selects; with pytest's complaint, if it has one."""
    command = module("pytest", folder, "-m", markers, "--collect-only", "-q", "-p", "no:randomly")
    ran = context.run(command, timeout_s=120)
    tests = [line for line in ran.output.splitlines() if "::" in line and ".py" in line]
    return tests, "" if ran.status in (0, 5) else ran.output


def isolated(
    folder: str, *, markers: str, timeout_s: float, test_timeout_s: int, weight: int = 1
) -> Tier:
    """Make a tier that gives each test file fresh namespaces (root only), and so long a time."""

    def tier(name: str, context: Context) -> Outcome:
        context.announce(name)
        with context.turns.turn(1, SOON):
            tests, complaint = collect(folder, markers, context)
            alone, _ = collect(folder, f"({markers}) and alone", context)
            long, _ = collect(folder, f"({markers}) and long", context)
            reason = context.find_obstacle() if tests else ""
        if complaint:
            return Outcome(name, is_ok=False, seconds=0, summary="not collected", output=complaint)
        if reason:
            skipped = [Case(test, "skipped", 0.0, reason) for test in tests]
            return tests_outcome(name, skipped, status=0, output="")
        files = _Files(name, context, markers, weight, timeout_s, test_timeout_s)
        return _run_files(files, _paths(tests), alone=_paths(alone), long=_paths(long))

    return tier


def _paths(tests: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(test.split("::")[0] for test in tests))


def _run_files(
    files: _Files, paths: Sequence[str], *, alone: Sequence[str], long: Sequence[str]
) -> Outcome:
    """Run all files: those that take minutes first, those that bear no company at the end."""

    def run(path: str) -> _File:
        if path in alone:
            return files.run(path, weight=ALONE, rank=LAST)
        return files.run(path, weight=files.weight, rank=LONG if path in long else USUAL)

    with ThreadPoolExecutor(max_workers=max(1, len(paths))) as pool:
        try:
            done = list(pool.map(run, paths))
        except BaseException:
            # Ctrl-C: the threads wait for processes, which have to end first.
            pool.shutdown(wait=False, cancel_futures=True)
            files.context.processes.end_all()
            raise
    cases = [case for file in done for case in file.cases]
    # Only where it failed does a file's output matter: twenty green files would hide one red.
    output = [file.output for file in done if file.status not in (0, 5)]
    status = next((file.status for file in done if file.status not in (0, 5)), 0)
    outcome = tests_outcome(files.name, cases, status=status, output="\n".join(output))
    if done:
        took = max(file.ended for file in done) - min(file.begun for file in done)
        outcome = replace(outcome, seconds=took)
    # Many files, many closing lines: ours adds them up.
    counts = ", ".join(f"{outcome.count(what)} {what}" for what in ("passed", "failed", "skipped"))
    return replace(outcome, summary=counts) if cases and status != TIMED_OUT else outcome
