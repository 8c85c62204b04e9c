"""The test runner itself: what it calls good, what it says, what it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import tier_isolated, tier_run, tiers
from tests.tier_context import Context
from tests.tier_model import (
    Case,
    Outcome,
    closing_line,
    group_skips,
    judge_tests,
    measure,
    render_report,
)
from tests.tier_run import ROOT, TIMED_OUT, Processes, pytest_summary, read_junit, run
from tests.tier_turns import Turns

PASSED = Case("a::one", "passed", 0.1)
FAILED = Case("a::two", "failed", 0.3)
NEEDS_ROOT = Case("a::three", "skipped", 0.0, "needs root")

ONE_OF_EACH = """
import pytest

def test_good(): pass
def test_bad(): assert False, "broken on purpose"
@pytest.mark.skip(reason="no such kernel")
def test_left_out(): pass
"""


def outcome(*cases: Case, tier: str = "unit", is_ok: bool = True) -> Outcome:
    return Outcome(tier, is_ok, 1.0, "", cases=cases)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder whose tests are the unit tier for now."""
    path = tmp_path / "tests"
    path.mkdir()
    tier = tiers.measured(str(path), timeout_s=60, test_timeout_s=20)
    monkeypatch.setitem(tiers.TIERS, "unit", tier)
    before = signal.getsignal(signal.SIGTERM)
    yield path
    signal.signal(signal.SIGTERM, before)


def test_failing_test_fails_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "test_it.py").write_text(ONE_OF_EACH)

    status = tiers.main(["unit"])

    said = capsys.readouterr().out
    assert status == 1
    assert "broken on purpose" in said
    assert "FAIL unit" in said
    assert "unit: no such kernel" in said
    assert said.splitlines()[-1].startswith("1 passed, 1 failed, 1 skipped in ")


def test_passing_tests_pass_and_keep_quiet(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "test_it.py").write_text("def test_good(): print('chatter')")

    status = tiers.main(["unit"])

    said = capsys.readouterr().out
    assert status == 0
    assert "chatter" not in said
    assert said.splitlines()[-1].startswith("1 passed, 0 failed, 0 skipped in ")


def test_error_while_collecting_fails_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "test_it.py").write_text("import no_such_module")

    assert tiers.main(["unit"]) == 1
    assert "no_such_module" in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_required_tier_without_tests_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert tiers.main(["unit"]) == 1
    assert "unit must have some" in capsys.readouterr().out


def test_unknown_tier_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tiers.main(["unti"])

    assert ended.value.code == 2
    assert "no such tier: unti; there are format, lint" in capsys.readouterr().err


def test_coverage_without_data_fails(tmp_path: Path) -> None:
    context = Context(tmp_path, dict(os.environ))
    context.coverage.mkdir()

    assert not tiers.coverage("coverage", context).is_ok


@pytest.mark.parametrize(
    ("cases", "status", "is_required", "is_ok"),
    [
        ((PASSED,), 0, True, True),
        ((PASSED, FAILED), 1, True, False),
        ((PASSED,), 3, True, False),  # pytest broke after its tests
        ((PASSED,), TIMED_OUT, True, False),
        ((), 5, True, False),
        ((), 5, False, True),
        ((), 0, True, False),
        ((), 2, False, False),
        ((NEEDS_ROOT,), 0, True, True),
    ],
)
def test_a_tier_is_good_only_when_its_tests_ran_well(
    cases: tuple[Case, ...], status: int, is_required: bool, is_ok: bool
) -> None:
    good, why = judge_tests("unit", cases=cases, exit_status=status, is_required=is_required)

    assert good is is_ok
    assert why


def test_closing_line_adds_all_tiers_up() -> None:
    outcomes = [outcome(PASSED, NEEDS_ROOT), outcome(PASSED, tier="agent")]

    assert closing_line(outcomes, seconds=1.5) == "2 passed, 0 failed, 1 skipped in 1.50s"


def test_tier_that_fails_without_a_test_counts_as_a_failure() -> None:
    outcomes = [outcome(tier="lint", is_ok=False), outcome(PASSED, FAILED, is_ok=False)]

    assert closing_line(outcomes, seconds=0) == "1 passed, 2 failed, 0 skipped in 0.00s"


def test_skips_are_grouped_by_reason_the_commonest_first() -> None:
    no_bird = Case("a::four", "skipped", 0.0, "no BIRD")
    nameless = Case("a::five", "skipped", 0.0)

    groups = group_skips([outcome(no_bird, NEEDS_ROOT, NEEDS_ROOT), outcome(nameless, tier="cni")])

    assert groups == [
        (2, "unit: needs root"),
        (1, "cni: no reason given"),
        (1, "unit: no BIRD"),
    ]


def test_report_names_failures_and_ends_with_the_totals() -> None:
    lines = render_report([outcome(PASSED, FAILED, is_ok=False)], seconds=2).splitlines()

    assert "  unit: a::two" in lines
    assert lines[-1] == "1 passed, 1 failed, 0 skipped in 2.00s"


def test_coverage_counts_the_files_that_match_and_names_their_gaps() -> None:
    files = [("p/a.py", 10, 10, ()), ("p/b.py", 5, 10, (7, 9)), ("q.py", 0, 100, ())]

    seen = measure(files, patterns=["p/*"])

    assert seen.percent == 75.0
    assert seen.gaps == ("p/b.py: 5/10, missing 7, 9",)


def test_no_files_are_wholly_covered() -> None:
    assert measure([], patterns=["*"]).percent == 100.0


def test_process_beyond_its_time_is_killed_with_its_children(tmp_path: Path) -> None:
    script = "echo begun; sleep 600 & echo $!; wait"

    ran = run(["sh", "-c", script], timeout_s=0.3, env=dict(os.environ), scratch=tmp_path)

    assert ran.status == TIMED_OUT
    begun, child, *rest = ran.output.split("\n", 2)
    assert begun == "begun"
    assert "timed out after 0.3 s" in rest[0]
    assert is_gone(int(child))


def is_gone(pid: int) -> bool:
    """Say whether a process has ended; one that nobody has reaped yet counts."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)  # the kernel tells nobody but its parent, and that one is dead
    return False


def test_report_of_a_dead_pytest_is_empty(tmp_path: Path) -> None:
    broken = tmp_path / "junit.xml"
    broken.write_text("<testsuites><testsuite>")

    assert read_junit(broken) == ()
    assert read_junit(tmp_path / "none.xml") == ()


def test_failure_in_test_and_teardown_is_one(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    entry = '<testcase classname="t" name="one" time="0.5"><{0} message="m"/></testcase>'
    report.write_text(f"<s>{entry.format('failure')}{entry.format('error')}</s>")

    assert read_junit(report) == (Case("t::one", "failed", 0.5),)


@pytest.mark.parametrize(
    ("output", "summary"),
    [
        ("x\n===== 3 passed, 1 skipped in 0.10s =====\n", "3 passed, 1 skipped in 0.10s"),
        ("== 1 passed in 1.0s ==\nException ignored in: x\n", "1 passed in 1.0s"),
        ("Killed\n", ""),
    ],
)
def test_pytests_own_closing_line_is_found(output: str, summary: str) -> None:
    assert pytest_summary(output) == summary


def test_end_of_the_run_ends_what_runs_and_what_comes_late(tmp_path: Path) -> None:
    processes = Processes()

    def sleep(name: str) -> int:
        scratch = tmp_path / name
        scratch.mkdir()
        command = ["sh", "-c", "echo begun; exec sleep 600"]
        env = dict(os.environ)
        return run(command, timeout_s=60, env=env, scratch=scratch, processes=processes).status

    with ThreadPoolExecutor() as executor:
        early = executor.submit(sleep, "early")
        while not (tmp_path / "early" / "output").exists():
            time.sleep(0.01)  # until the thread is there
        processes.end_all()
        late = executor.submit(sleep, "late")

        assert (early.result(), late.result()) == (-signal.SIGKILL, -signal.SIGKILL)


def test_outcomes_come_in_the_tiers_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, script in [("unit", "sleep 0.2"), ("contract", "true"), ("build", "true")]:
        monkeypatch.setitem(tiers.TIERS, name, tiers.commands(["sh", "-c", script]))
    begun: list[str] = []
    context = Context(tmp_path, dict(os.environ), begun.append)

    outcomes = list(tiers.run_tiers(["unit", "contract", "build"], context))

    assert [outcome.tier for outcome in outcomes] == ["unit", "contract", "build"]
    assert sorted(begun) == ["build", "contract", "unit"]


MEETS = """
import pathlib, time
import pytest

pytestmark = {marks}
HERE = pathlib.Path("{place}")

def test_meets():
    (HERE / "{name}").touch()
    deadline = time.monotonic() + 3
    while not (HERE / "{other}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    met = sorted(path.name for path in HERE.iterdir())
    (HERE / "{name}.done").touch()
    assert "{other}" in met
"""
ALONE = "[pytest.mark.alone]"


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder for a tier of files on their own, without namespaces."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  alone\n  long\n  uml\n")
    monkeypatch.setattr(tier_run, "ROOT", tmp_path)
    monkeypatch.setattr(tier_isolated, "ISOLATE", ())
    monkeypatch.setattr(Context, "find_obstacle", lambda _: "")
    return tmp_path / "tests"


def run_isolated(folder: Path, *, timeout_s: float = 60, capacity: int = 4) -> Outcome:
    scratch = folder.parent / "scratch"
    scratch.mkdir()
    tier = tier_isolated.isolated(
        "tests", markers="not uml", timeout_s=timeout_s, test_timeout_s=60
    )
    return tier("netns", Context(scratch, dict(os.environ), turns=Turns(capacity)))


@pytest.mark.parametrize("marks", [ALONE, "[]"])
def test_files_meet_unless_they_want_to_be_alone(
    isolated: Path, capsys: pytest.CaptureFixture[str], marks: str
) -> None:
    place = isolated.parent / "place"
    place.mkdir()
    for name, other, mine in [
        ("three", "two.done", ALONE),
        ("one", "two", "[pytest.mark.long]"),
        ("two", "one", marks),
    ]:
        text = MEETS.format(marks=mine, place=place, name=name, other=other)
        (isolated / f"test_{name}.py").write_text(text)

    outcome = run_isolated(isolated)

    if marks == ALONE:
        assert (outcome.is_ok, outcome.summary) == (False, "1 passed, 2 failed, 0 skipped")
    else:
        assert (outcome.is_ok, outcome.summary) == (True, "3 passed, 0 failed, 0 skipped")
    assert capsys.readouterr().out.count("netns: tests/test_one.py: 1 ") == 1


def test_the_files_of_a_run_are_its_own_and_go_with_it(isolated: Path) -> None:
    # pytest's own place is everybody's, and each run removes there what it takes for old.
    text = "def test(tmp_path): (tmp_path.parents[2] / 'place').write_text(str(tmp_path))"
    (isolated / "test_it.py").write_text(text)

    outcome = run_isolated(isolated)

    place = Path((isolated.parent / "place").read_text())
    assert outcome.is_ok
    assert isolated.parent / "scratch" in place.parents
    assert not place.exists()


def test_a_file_has_its_own_time(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (isolated / "test_slow.py").write_text("import time\ndef test(): time.sleep(30)")
    (isolated / "test_quick.py").write_text("def test(): pass")

    outcome = run_isolated(isolated, timeout_s=3, capacity=1)

    assert not outcome.is_ok
    assert outcome.summary.startswith("timed out")
    assert "tests/test_quick.py: 1 passed" in capsys.readouterr().out


def test_help_needs_no_environment(tmp_path: Path) -> None:
    command = [str(ROOT / "bin" / "test"), "--help"]
    env = {"PATH": os.environ["PATH"], "PYCNI_VENV": str(tmp_path / "venv")}

    ran = subprocess.run(command, capture_output=True, text=True, env=env, check=False)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("usage: bin/test ")
    assert not (tmp_path / "venv").exists()
