"""Reports as documents, which other nodes write and anybody's terminal shows."""

import json

import pytest

from pycni.check.findings import (
    MOST,
    Finding,
    Report,
    Severity,
    bounded,
    read_report,
    report_document,
)

FINDING = Finding("clock", Severity.WARNING, "it is late", "leases expire", "timedatectl")
REPORT = Report((FINDING,), ("dns: no file",))


def test_a_report_reads_back_as_it_was_written() -> None:
    assert read_report(json.loads(json.dumps(report_document(REPORT)))) == REPORT


def test_reports_add_up() -> None:
    assert Report((FINDING,)) + Report(unchecked=("dns: no file",)) == REPORT


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"findings": [{"check": "x"}], "unchecked": []},
        {"findings": 1},
        {"findings": [report_document(REPORT)["findings"][0] | {"severity": "x"}]},
    ],
)
def test_what_is_no_report_is_none(document: object) -> None:
    assert read_report(document) is None


def test_escape_sequences_and_floods_of_another_node_do_not_reach_a_terminal() -> None:
    document = report_document(REPORT)
    document["unchecked"] = ["\x1b[31mred\n", "x" * 5000]

    read = read_report(document)

    assert read is not None
    assert read.unchecked == ("?[31mred?", "x" * 1000)


@pytest.mark.parametrize(
    ("findings", "unchecked", "shown", "last"),
    [
        (MOST, MOST, (MOST, MOST), "dns"),
        (MOST + 1, 0, (MOST, 1), "1 more findings"),
        (MOST, MOST + 1, (MOST, MOST), "2 more findings"),
        (3000, 3000, (MOST, MOST), f"{6000 - 2 * MOST + 1} more findings"),
    ],
)
def test_a_report_without_end_is_told_in_part(
    findings: int, unchecked: int, shown: tuple[int, int], last: str
) -> None:
    report = Report((FINDING,) * findings, ("dns: no file",) * unchecked)

    told = bounded(report)

    assert (len(told.findings), len(told.unchecked)) == shown
    assert told.unchecked[-1].startswith(last)
    assert bounded(told) == told
    assert read_report(json.loads(json.dumps(report_document(report)))) == told
