"""Tiers whose test files get fresh namespaces each, two files at a time where they allow it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from tests.tier_context import Context, Tier, module, tests_outcome
from tests.tier_model import Case, Outcome
from tests.tier_run import ISOLATE, TIMED_OUT, pytest_command, pytest_summary, read_junit

WORKERS = min(2, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class _Files:
    """How each of a tier's files is run."""

    name: str
    context: Context
    markers: str
    deadline: float
    test_timeout_s: int

    def run(self, path: str) -> tuple[tuple[Case, ...], str, int]:
        """Run one file; return its tests, what it printed and its status."""
        scratch = self.context.fresh(self.name)
        junit = scratch / "junit.xml"
        command = pytest_command(
            [path],
            markers=self.markers,
            junit=junit,
            test_timeout_s=self.test_timeout_s,
            coverage=None,
        )
        left = max(1.0, self.deadline - time.monotonic())
        ran = self.context.run([*ISOLATE, *command], timeout_s=left, scratch=scratch)
        print(f"     {path}: {pytest_summary(ran.output) or f'status {ran.status}'}", flush=True)
        return read_junit(junit), ran.output, ran.status


def collect(folder: str, markers: str, context: Context) -> tuple[list[str], str]:
    """List the tests that a marker expression selects; with pytest's complaint, if it has one."""
    command = module("pytest", folder, "-m", markers, "--collect-only", "-q", "-p", "no:randomly")
    ran = context.run(command, timeout_s=120)
    tests = [line for line in ran.output.splitlines() if "::" in line and ".py" in line]
    return tests, "" if ran.status in (0, 5) else ran.output


def isolated(folder: str, *, markers: str, timeout_s: float, test_timeout_s: int) -> Tier:
    """Make a tier that gives each test file fresh namespaces (root only)."""

    def tier(name: str, context: Context) -> Outcome:
        tests, complaint = collect(folder, markers, context)
        if complaint:
            return Outcome(name, is_ok=False, seconds=0, summary="not collected", output=complaint)
        reason = context.find_obstacle() if tests else ""
        if reason:
            skipped = [Case(test, "skipped", 0.0, reason) for test in tests]
            return tests_outcome(name, skipped, status=0, output="")
        together, _ = collect(folder, f"({markers}) and together", context)
        files = _Files(name, context, markers, time.monotonic() + timeout_s, test_timeout_s)
        return _run_files(files, _paths(tests), together=_paths(together))

    return tier


def _paths(tests: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(test.split("::")[0] for test in tests))


def _run_files(files: _Files, paths: Sequence[str], *, together: Sequence[str]) -> Outcome:
    """Run the files that don't mind company two at a time, then the others alone."""
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        try:
            done = list(pool.map(files.run, together))
        except BaseException:
            # Ctrl-C: the threads wait for processes, which have to end first.
            pool.shutdown(wait=False, cancel_futures=True)
            files.context.processes.end_all()
            raise
    done += [files.run(path) for path in paths if path not in together]
    cases = [case for ran, _, _ in done for case in ran]
    # Only where it failed does a file's output matter: twenty green files would hide one red.
    output = [text for _, text, status in done if status not in (0, 5)]
    status = next((status for _, _, status in done if status not in (0, 5)), 0)
    outcome = tests_outcome(files.name, cases, status=status, output="\n".join(output))
    # Many files, many closing lines: ours adds them up.
    counts = ", ".join(f"{outcome.count(what)} {what}" for what in ("passed", "failed", "skipped"))
    return replace(outcome, summary=counts) if cases and status != TIMED_OUT else outcome
