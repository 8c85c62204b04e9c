"""What a check has found, for people and programs.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

_LONGEST = 1000
"""Of each text that another node wrote; nobody's report is to fill a terminal."""
MOST = 40
"""Findings, and things unchecked, in a report for others: 256 KiB is all that a Node's annotations
may have, and a node that was cut off has something to say of each other one."""


class Severity(Enum):
    """How bad a finding is: an error breaks traffic of pods, a warning may."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: what, why it matters, and the command that mends it."""

    check: str
    severity: Severity
    what: str
    why: str
    repair: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one look at a node has shown; `unchecked` says what could not be looked at, and why."""

    findings: tuple[Finding, ...] = ()
    unchecked: tuple[str, ...] = ()

    def __add__(self, other: "Report") -> "Report":
        return Report(self.findings + other.findings, self.unchecked + other.unchecked)


def report_document(report: Report) -> dict[str, Any]:
    """Return a report for programs."""
    return {
        "findings": [
            {
                "check": one.check,
                "severity": one.severity.value,
                "what": one.what,
                "why": one.why,
                "repair": one.repair,
            }
            for one in report.findings
        ],
        "unchecked": list(report.unchecked),
    }


def bounded(report: Report) -> Report:
    """Return as much of a report as others are told."""
    findings, texts = report.findings[:MOST], report.unchecked[:MOST]
    if (findings, texts) != (report.findings, report.unchecked):
        texts = texts[: MOST - 1]
        more = len(report.findings) + len(report.unchecked) - len(findings) - len(texts)
        texts += (f"{more} more findings: run `pycnictl check` on that node",)
    return Report(tuple(map(_cut, findings)), tuple(one[:_LONGEST] for one in texts))


def _cut(one: Finding) -> Finding:
    return Finding(
        one.check,
        one.severity,
        one.what[:_LONGEST],
        one.why[:_LONGEST],
        one.repair[:_LONGEST],
    )


def read_report(document: object) -> Report | None:
    """Return the report that a document spells; None: it spells none, as a later version's."""
    try:
        if not isinstance(document, Mapping):
            return None
        findings = tuple(map(_read_finding, document["findings"]))
        return bounded(Report(findings, tuple(map(_text, document["unchecked"]))))
    except (KeyError, TypeError, ValueError):
        return None


def _read_finding(document: Mapping[str, object]) -> Finding:
    return Finding(
        check=_text(document["check"]),
        severity=Severity(document["severity"]),
        what=_text(document["what"]),
        why=_text(document["why"]),
        repair=_text(document["repair"]),
    )


def _text(value: object) -> str:
    """Return a text as a terminal may show it: others wrote it."""
    return "".join(char if char.isprintable() else "?" for char in str(value)[:_LONGEST])
