"""The report of `pycnictl ipam check` as a document, and reading it back for `ipam release`.

The document is stable: see docs/pycnictl.md.  A change of what a field means is a new version.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any

from pycni.ctl.ipam_reading import Reading
from pycni.errors import InvalidInput
from pycni.ipam import block as arithmetic
from pycni.ipam.findings import Finding, Kind
from pycni.model.network import IPAddress, IPNetwork

REPORT_KIND = "IPAMReport"
REPORT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Leak:
    """A leaked address as it was reported."""

    address: IPAddress
    handle_id: str
    sequence_number: int | None
    block: IPNetwork
    node: str


def report_document(
    reading: Reading, findings: Sequence[Finding], *, repaired: Sequence[str]
) -> dict[str, Any]:
    """Return the report as a document."""
    return {
        "kind": REPORT_KIND,
        "version": REPORT_VERSION,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "counts": counts_of(reading),
        "recordsOf": [records.node for records in reading.books.records],
        "notes": [reading.note] if reading.note else [],
        "repaired": list(repaired),
        "findings": [_finding_document(finding) for finding in findings],
    }


def counts_of(reading: Reading) -> dict[str, int]:
    """Return how much was looked at."""
    books = reading.books
    sound = books.sound_blocks
    return {
        "pools": len(books.pools),
        "blocks": len(books.blocks),
        "addresses": sum(len(arithmetic.given(block)) for block in sound),
        "resting": sum(len(arithmetic.resting(block)) for block in sound),
        "handles": len(books.handles),
        "affinities": len(books.affinities),
        "nodes": len(books.nodes),
        "records": sum(len(records.endpoints) for records in books.records),
    }


def _finding_document(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.value,
        "information": finding.is_information,
        "subject": finding.subject,
        "sentence": finding.sentence,
        "address": None if finding.address is None else str(finding.address),
        "handle": finding.handle_id,
        "sequenceNumber": finding.sequence_number,
        "block": None if finding.block is None else str(finding.block),
        "node": finding.node,
        "repair": finding.repair,
    }


def parse_leaks(text: str, *, source: str) -> list[Leak]:
    """Return the leaked addresses of a report, in JSON or YAML."""
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise InvalidInput(f"{source} is no report: {' '.join(str(exc).split())}") from exc
    if not isinstance(document, dict) or document.get("kind") != REPORT_KIND:
        raise InvalidInput(
            f"{source} is no report: write one by  pycnictl ipam check -o json > report.json"
        )
    if document.get("version") != REPORT_VERSION:
        raise InvalidInput(f"{source} is of another version of pycnictl: write the report anew")
    try:
        findings = [one for one in document["findings"] if one["kind"] == Kind.ADDRESS_LEAKED.value]
        return [_parse_leak(one) for one in findings]
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidInput(f"{source} is damaged ({exc!r}): write the report anew") from exc


def _parse_leak(finding: dict[str, Any]) -> Leak:
    number = finding["sequenceNumber"]
    if not isinstance(number, int | None) or isinstance(number, bool):
        raise TypeError(f"sequenceNumber {number!r}")
    return Leak(
        address=ip_address(str(finding["address"])),
        handle_id=str(finding["handle"]),
        sequence_number=number,
        block=ip_network(str(finding["block"])),
        node=str(finding["node"]),
    )
