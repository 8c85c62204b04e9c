"""docs/bgp-cases.md: what it names exists, it leaves no case out, and it counts what it lists."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.plan.bgp_stories import refusals, stories

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "bgp-cases.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/.-]+\.py)::(test_\w+)`", TEXT)))
VERDICTS = ("covered", "partly", "planned", "differs", "n/a")
OTHER = "Other tests of Calico's BGP"
PLAYED = {
    **{name: {case.name for case in stories(name)} for name in ("mesh", "peers", "filters")},
    "refused": {str(one["name"]) for one in refusals()},
}


def rows(section: str) -> list[list[str]]:
    """Return the cells of a section's table, without its heading."""
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def sections() -> dict[str, list[list[str]]]:
    """Return the rows of each table by the heading above it."""
    parts = re.split(r"^## (.*)$", TEXT, flags=re.MULTILINE)
    return {title: rows(body) for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def directories() -> list[tuple[str, str, str]]:
    """Return the rows of directories: case, verdict and reason."""
    tables = (table for title, table in sections().items() if title != OTHER)
    return [(row[0].strip("`"), row[2], row[3]) for table in tables for row in table]


def played_by(reason: str) -> set[str]:
    """Return which of the files a row says to have its case."""
    return set(re.findall(r"`(\w+)`", reason)) & PLAYED.keys()


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_test_that_is_named_exists(file: str, test: str) -> None:
    assert re.search(rf"^ *(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_every_row_has_a_verdict_and_what_it_rests_on() -> None:
    for title, table in sections().items():
        assert table, title
        for row in table:
            assert len(row) == 4, row
            assert all(row), row
            assert row[2] in VERDICTS, row


def test_no_case_stands_twice() -> None:
    names = [name for name, _, _ in directories()]

    assert [name for name, count in Counter(names).items() if count > 1] == []


@pytest.mark.parametrize(("case", "verdict", "reason"), directories())
def test_a_case_rests_on_what_is_played(case: str, verdict: str, reason: str) -> None:
    files = played_by(reason)
    played = {name for name, cases in PLAYED.items() if case in cases}

    assert files == played
    assert verdict != "covered" or files - {"refused"}
    assert verdict != "planned" or files == {"refused"}
    assert verdict == "n/a" or files or "::test_" in reason or "`password/" in reason


def test_every_case_that_is_played_stands_in_a_row() -> None:
    listed = {name for name, _, _ in directories()}
    mentioned = set(re.findall(r"`([\w/.-]+)`", TEXT))

    for cases in PLAYED.values():
        assert cases - listed <= mentioned


def test_what_is_covered_elsewhere_names_a_test() -> None:
    for _, _, verdict, reason in sections()[OTHER]:
        assert verdict != "covered" or "::test_" in reason


def test_the_summary_counts_the_rows() -> None:
    summary = {row[0]: row[1:] for row in rows(TEXT.split("\n## ", maxsplit=1)[0])}
    total: Counter[str] = Counter()
    counted: dict[str, list[str]] = {}

    for title, table in sections().items():
        counts: Counter[str] = Counter()
        for row in table:
            counts[row[2]] += int(row[0]) if title == OTHER else 1
        total += counts
        counted[title] = [str(counts.total()), *(str(counts[one]) for one in VERDICTS)]
    counted["all"] = [str(total.total()), *(str(total[one]) for one in VERDICTS)]

    assert summary == counted
