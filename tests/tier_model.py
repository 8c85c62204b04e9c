"""What the test runner knows of a tier and how it speaks about it: values and text, no effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

SLOWEST_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Case:
    """One test as pytest reported it."""

    name: str
    outcome: str  # passed, failed or skipped
    seconds: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one tier."""

    tier: str
    is_ok: bool
    seconds: float
    summary: str
    output: str = ""
    cases: tuple[Case, ...] = ()

    def count(self, outcome: str) -> int:
        """Count the cases with this outcome."""
        return sum(case.outcome == outcome for case in self.cases)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of some modules ran, lines and branches together."""

    percent: float
    gaps: tuple[str, ...]


def judge_tests(
    tier: str, *, cases: Sequence[Case], exit_status: int, is_required: bool
) -> tuple[bool, str]:
    """Say whether a pytest run is good, and why in a few words."""
    failed = sum(case.outcome == "failed" for case in cases)
    if failed:
        return False, f"{failed} of {len(cases)} failed"
    if exit_status not in (0, 5):
        return False, f"pytest ended with status {exit_status}"
    if not cases and is_required:
        return False, f"no tests, but {tier} must have some"
    if not cases:
        return True, f"no tests for {tier} yet"
    return True, f"{len(cases)} tests"


def measure(
    files: Iterable[tuple[str, int, int, tuple[int, ...]]], *, patterns: Sequence[str]
) -> Coverage:
    """Add up the coverage of the files that match; each is (path, covered, total, missing)."""
    covered = total = 0
    gaps = []
    for path, file_covered, file_total, missing in files:
        if not any(fnmatch(path, pattern) for pattern in patterns):
            continue
        covered += file_covered
        total += file_total
        if file_covered < file_total:
            lines = ", ".join(map(str, missing)) or "branches only"
            gaps.append(f"{path}: {file_covered}/{file_total}, missing {lines}")
    return Coverage(100.0 * covered / total if total else 100.0, tuple(gaps))


def group_skips(outcomes: Iterable[Outcome]) -> list[tuple[int, str]]:
    """Count the skipped tests by reason, the commonest first."""
    reasons = Counter(
        f"{outcome.tier}: {case.reason or 'no reason given'}"
        for outcome in outcomes
        for case in outcome.cases
        if case.outcome == "skipped"
    )
    return sorted(((n, text) for text, n in reasons.items()), key=lambda item: (-item[0], item[1]))


def tier_line(outcome: Outcome) -> str:
    """Render one tier as the line that appears when it ends."""
    mark = "ok  " if outcome.is_ok else "FAIL"
    return f"{mark} {outcome.tier:<9} {outcome.seconds:7.1f} s  {outcome.summary}"


def closing_line(outcomes: Sequence[Outcome], *, seconds: float) -> str:
    """Render the totals over all tiers.

    A tier that failed without a failed test (lint, coverage, a timeout) counts as one failure, so
    that the last line never looks green in a red run.
    """
    passed = sum(outcome.count("passed") for outcome in outcomes)
    skipped = sum(outcome.count("skipped") for outcome in outcomes)
    failed = sum(outcome.count("failed") or (not outcome.is_ok) for outcome in outcomes)
    return f"{passed} passed, {failed} failed, {skipped} skipped in {seconds:.2f}s"


def render_report(outcomes: Sequence[Outcome], *, seconds: float) -> str:
    """Render everything that stands below the last tier."""
    cases = [(case, outcome.tier) for outcome in outcomes for case in outcome.cases]
    slowest = sorted(cases, key=lambda item: -item[0].seconds)[:SLOWEST_SHOWN]
    lines = ["", "tiers", *(f"  {tier_line(outcome)}" for outcome in outcomes)]
    if slowest:
        lines += ["", "slowest tests"]
        lines += [f"  {case.seconds:7.2f} s  {tier}: {case.name}" for case, tier in slowest]
    if skips := group_skips(outcomes):
        lines += ["", "skipped"]
        lines += [f"  {number:5}  {text}" for number, text in skips]
    if failures := [(case, tier) for case, tier in cases if case.outcome == "failed"]:
        lines += ["", "failed"]
        lines += [f"  {tier}: {case.name}" for case, tier in failures]
    return "\n".join([*lines, "", closing_line(outcomes, seconds=seconds)])
