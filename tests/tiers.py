"""Run the project's tests tier by tier: `bin/test [-v] [fast | TIER…]`.

Standard library only: it runs before anything else is known to work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.tier_context import Context, Tier, module, tests_outcome
from tests.tier_isolated import collect, isolated
from tests.tier_model import Case, Outcome, measure, render_report, tier_line
from tests.tier_run import ISOLATE, ROOT, TIMED_OUT, pytest_command, read_junit
from tests.tier_turns import LONG, ONE_PROCESSOR, SOON

# These need neither root nor much time.
FAST = ("format", "lint", "imports", "types", "unit", "contract", "agent", "stories", "scenarios")
ON_HOST = "not uml and not peers and not kubernetes and not kubeadm and not stories"
PYTHON_CODE = ("pycni", "tests", "typings", "netns-tests", "bench")


def in_turn(tier: Tier, *, weight: int = ONE_PROCESSOR, rank: int = SOON) -> Tier:
    """Let a tier wait for its turn, and take its time from then on."""

    def when_it_is_time(name: str, context: Context) -> Outcome:
        with context.turns.turn(weight, rank):
            context.announce(name)
            started = time.monotonic()
            outcome = tier(name, context)
            return replace(outcome, seconds=time.monotonic() - started)

    return when_it_is_time


def run_steps(
    steps: Sequence[Sequence[str]], name: str, context: Context, *, timeout_s: float = 300
) -> Outcome:
    """Run tools that must all end with 0."""
    output = []
    status = 0
    for step in steps:
        ran = context.run(step, timeout_s=timeout_s)
        output.append(f"$ {' '.join(step)}\n{ran.output}")
        status = status or ran.status
    last = (output[-1].strip().splitlines() or [""])[-1]
    summary = last if status == 0 and not last.startswith("$ ") else ""
    if status:
        summary = "timed out" if status == TIMED_OUT else f"ended with status {status}"
    return Outcome(name, status == 0, 0, summary, "\n".join(output))


def commands(*steps: Sequence[str], timeout_s: float = 300) -> Tier:
    """Make a tier of tools."""
    return in_turn(partial(run_steps, steps, timeout_s=timeout_s))


def measured(
    folder: str,
    *,
    timeout_s: float,
    test_timeout_s: int,
    isolate: bool = False,
    markers: str = ON_HOST,
    is_covered: bool = True,
) -> Tier:
    """Make a tier of pytest tests that run under coverage, which makes most twice as slow.

    With `isolate` and as root they get namespaces of their own, so that a contract's suite can
    also ask the real kernel.
    """

    def tier(name: str, context: Context) -> Outcome:
        scratch, files = context.fresh(name), context.fresh("t")
        command = pytest_command(
            [folder],
            markers=markers,
            junit=scratch / "junit.xml",
            test_timeout_s=test_timeout_s,
            coverage=context.coverage / name if is_covered else None,
            basetemp=files,
        )
        if not any((ROOT / folder).rglob("test_*.py")):
            return tests_outcome(name, (), status=5, output="")
        if isolate and not context.find_obstacle():
            command = [*ISOLATE, *command]
        ran = context.run(command, timeout_s=timeout_s, scratch=scratch)
        shutil.rmtree(files, ignore_errors=True)
        cases = read_junit(scratch / "junit.xml")
        return tests_outcome(name, cases, status=ran.status, output=ran.output)

    return in_turn(tier)


def in_uml(folder: str, *, timeout_s: float, test_timeout_s: int) -> Tier:
    """Make a tier that runs inside one user-mode Linux, which has what this kernel lacks."""

    def tier(name: str, context: Context) -> Outcome:
        tests, complaint = collect(folder, "uml", context)
        if complaint:
            return Outcome(name, is_ok=False, seconds=0, summary="not collected", output=complaint)
        reason = "needs root" if os.geteuid() else ""
        if not reason and shutil.which("linux.uml") is None:
            reason = "user-mode-linux is not installed"
        if not tests or reason:
            skipped = [Case(test, "skipped", 0.0, reason) for test in tests]
            return tests_outcome(name, skipped, status=0, output="")
        # The guest has a /tmp of its own: results come back through a directory that it shares.
        with tempfile.TemporaryDirectory(prefix="pycni-uml.", dir="/var/tmp") as shared:
            junit = Path(shared) / "junit.xml"
            inner = pytest_command(
                [folder], markers="uml", junit=junit, test_timeout_s=test_timeout_s, coverage=None
            )
            outer = module("pycni.lab.uml", "--mem", "1500M", "--timeout", str(timeout_s - 20))
            command = [*outer, "--rw", shared, "--", *inner]
            ran = context.run(command, timeout_s=timeout_s)
            return tests_outcome(name, read_junit(junit), status=ran.status, output=ran.output)

    return in_turn(tier, weight=1, rank=LONG)


def coverage(name: str, context: Context) -> Outcome:
    """Hold the pure modules and the whole to what pyproject.toml demands."""
    data = [str(path) for path in context.coverage.iterdir()]
    if not data:
        why = "no data: ask for it together with unit, contract, agent, cni, apiserver"
        return Outcome(name, is_ok=False, seconds=0, summary=why)
    merged, report = context.scratch / "coverage.db", context.scratch / "coverage.json"
    combine = module("coverage", "combine", "--keep", f"--data-file={merged}", *data)
    render = module("coverage", "json", f"--data-file={merged}", "-o", str(report))
    made = run_steps((combine, render), name, context)
    if not made.is_ok:
        return made
    demanded = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pycni"]["coverage"]
    files = list(_covered_files(report))
    pure, everything = measure(files, patterns=demanded["pure"]), measure(files, patterns=["*"])
    is_ok = (
        pure.percent >= demanded["pure_minimum"] and everything.percent >= demanded["all_minimum"]
    )
    wanted = f"want {demanded['pure_minimum']} / {demanded['all_minimum']}"
    summary = f"pure {pure.percent:.2f} % / all {everything.percent:.2f} % ({wanted})"
    output = "\n".join(["pure modules:", *pure.gaps, "all:", *everything.gaps])
    return Outcome(name, is_ok, 0, summary, output)


def _covered_files(report: Path) -> Iterator[tuple[str, int, int, tuple[int, ...]]]:
    for path, entry in json.loads(report.read_text())["files"].items():
        counts = entry["summary"]
        covered = counts["covered_lines"] + counts["covered_branches"]
        total = counts["num_statements"] + counts["num_branches"]
        yield path, covered, total, tuple(entry["missing_lines"])


def present(*names: str) -> list[str]:
    """Keep the folders that exist."""
    return [name for name in names if (ROOT / name).exists()]


# mypy can't name a module below a folder with a hyphen: that one is checked from inside.
MYPY_NETNS = [
    "sh", "-c",
    'cd netns-tests && ls ./*.py >/dev/null 2>&1 || exit 0; exec "$@"', "mypy",
    *module("mypy", "--config-file", "../pyproject.toml", "."),
]  # fmt: skip
# What begins with a shell's line is shell; the sourced part has none.
SHELL_FILES = 'bin/*.sh $(grep -lE "^#!/bin/sh" bin/* tests/*.sh install.sh 2>/dev/null)'
SHELL_SYNTAX = ["sh", "-c", f'for f in {SHELL_FILES}; do sh -n "$f" || exit; done']

TIERS: dict[str, Tier] = {
    "format": commands(module("ruff", "format", "--check", "--quiet", ".")),
    "lint": commands(
        SHELL_SYNTAX,
        module("codespell_lib", *present(*PYTHON_CODE, "docs", "bin", "README.md")),
        module("ruff", "check", "."),
    ),
    "imports": commands([str(Path(sys.executable).parent / "lint-imports"), "--no-logo"]),
    "types": commands(
        MYPY_NETNS, module("mypy", *present("pycni", "tests", "bench")), timeout_s=600
    ),
    "unit": measured("tests/unit", timeout_s=300, test_timeout_s=20),
    "contract": measured("tests/contract", timeout_s=300, test_timeout_s=30, isolate=True),
    "agent": measured("tests/agent", timeout_s=300, test_timeout_s=20, isolate=True),
    "stories": measured(
        "tests/agent", timeout_s=600, test_timeout_s=20, markers="stories", is_covered=False
    ),
    "scenarios": measured("tests/scenarios", timeout_s=120, test_timeout_s=20),
    "cni": measured("tests/cni", timeout_s=600, test_timeout_s=60, isolate=True),
    "apiserver": measured("tests/contract", timeout_s=900, test_timeout_s=60, markers="kubernetes"),
    "coverage": in_turn(coverage),
    "netns": isolated("netns-tests", markers=ON_HOST, timeout_s=1200, test_timeout_s=180),
    "kubernetes": isolated("netns-tests", markers="kubernetes", timeout_s=600, test_timeout_s=180),
    "kubeadm": isolated(
        "netns-tests", markers="kubeadm", timeout_s=1800, test_timeout_s=900, weight=ONE_PROCESSOR
    ),
    "uml": in_uml("netns-tests", timeout_s=1800, test_timeout_s=300),
    "peers": isolated(
        "netns-tests", markers="peers and not uml", timeout_s=900, test_timeout_s=180
    ),
    "build": commands(["sh", "tests/build.sh", sys.executable]),
}


def environment(scratch: Path) -> dict[str, str]:
    """Compose what the tools see: their caches out of the sources, one for each user."""
    state = ROOT / ".tiers" / str(os.getuid())
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError:
        state = scratch
    return {
        **os.environ,
        "MYPY_CACHE_DIR": str(state / "mypy"),
        "RUFF_CACHE_DIR": str(state / "ruff"),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(state / "hypothesis"),
        "COVERAGE_CORE": "ctrace",
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
    }


def run_tiers(names: Sequence[str], context: Context) -> Iterator[Outcome]:
    """Run the tiers side by side, as turns come, and give their outcomes in the tiers' own order.

    The coverage of the others' tests is looked at when all of them have ended.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as executor:
        try:
            running = {
                name: executor.submit(TIERS[name], name, context)
                for name in names
                if name != "coverage"
            }
            for name in names:
                yield running[name].result() if name in running else TIERS[name](name, context)
        except BaseException:
            # Ctrl-C: the threads wait for processes, which have to end first.
            executor.shutdown(wait=False, cancel_futures=True)
            context.processes.end_all()
            raise


def show(outcome: Outcome, *, is_verbose: bool) -> None:
    """Print a tier's line, below all of its output where it failed."""
    if (is_verbose or not outcome.is_ok) and outcome.output:
        print(f"--- {outcome.tier}\n{outcome.output.rstrip()}\n---")
    print(tier_line(outcome), flush=True)


def announce(name: str) -> None:
    """Tell a person who waits which tier has begun: some take minutes."""
    if sys.stderr.isatty():
        print(f"..   {name} runs", file=sys.stderr, flush=True)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bin/test", description="Run the project's tests, all tiers unless some are named."
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show passing output too")
    parser.add_argument(
        "tiers", nargs="*", metavar="TIER", help=f"fast ({' '.join(FAST)}) or: {' '.join(TIERS)}"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.tiers) - {"fast", *TIERS}:
        parser.error(f"no such tier: {', '.join(sorted(unknown))}; there are {', '.join(TIERS)}")
    return options


def main(arguments: Sequence[str]) -> int:
    """Run the tiers that were asked for; 0 only when all are good."""
    options = parse(arguments)
    asked = set(options.tiers) or set(TIERS)
    if "fast" in asked:
        asked |= set(FAST)
    # SIGTERM like Ctrl-C: the process groups of running tests must end with us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="pycni-test.", ignore_cleanup_errors=True) as scratch:
        context = Context(Path(scratch), environment(Path(scratch)), announce)
        context.coverage.mkdir()
        with contextlib.suppress(KeyboardInterrupt):
            for outcome in run_tiers([name for name in TIERS if name in asked], context):
                outcomes.append(outcome)
                show(outcome, is_verbose=options.verbose)
    print(render_report(outcomes, seconds=time.monotonic() - started), flush=True)
    if len(outcomes) < len(asked & set(TIERS)):
        print("interrupted: not all tiers ran", file=sys.stderr)
        return 130
    return 0 if all(outcome.is_ok for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
