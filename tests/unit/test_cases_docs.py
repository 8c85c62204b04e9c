"""docs/cases.md: the tests that it names exist, and it counts what it lists."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "cases.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/.-]+\.py)::(test_\w+)`", TEXT)))
VERDICTS = ("covered", "partly", "planned", "n/a")


def rows(section: str) -> list[list[str]]:
    """Return the cells of a section's table, without its heading."""
    lines = [line for line in section.splitlines() if re.match(r"\| (\d+|`)", line)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def sections() -> dict[str, list[list[str]]]:
    """Return the rows of each file's table by the heading above it."""
    parts = re.split(r"^## (.*)$", TEXT, flags=re.MULTILINE)
    return {title: rows(body) for title, body in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_test_that_is_named_exists(file: str, test: str) -> None:
    assert re.search(rf"^ *(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_every_file_that_is_named_exists() -> None:
    files = set(re.findall(r"`((?:tests|netns-tests)/[\w/.-]+\.py)", TEXT))

    assert [file for file in sorted(files) if not (ROOT / file).exists()] == []


def test_every_row_has_a_verdict_and_what_it_rests_on() -> None:
    for title, table in sections().items():
        assert table, title
        for row in table:
            assert len(row) == 4, row
            count, case, verdict, reason = row
            assert int(count) > 0
            assert case
            assert verdict in VERDICTS, row
            assert reason, row


def test_what_is_covered_names_a_test() -> None:
    """A row may also say that it is held by the same test as the one before it."""
    for table in sections().values():
        for _, _, verdict, reason in table:
            if verdict == "covered":
                assert "::test_" in reason, reason


def test_the_summary_counts_the_rows() -> None:
    summary = {row[0].strip("`"): row[1:] for row in rows(TEXT.split("\n## ", maxsplit=1)[0])}
    total: Counter[str] = Counter()
    counted: dict[str, list[str]] = {}

    for title, table in sections().items():
        counts: Counter[str] = Counter()
        for count, _, verdict, _ in table:
            counts[verdict] += int(count)
        total += counts
        counted[title] = [str(counts.total()), *(str(counts[one]) for one in VERDICTS)]
    counted["all"] = [str(total.total()), *(str(total[one]) for one in VERDICTS)]

    assert summary == counted
