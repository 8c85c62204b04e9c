"""Release what a report of the check found leaked, if it is still as reported."""

import io
import json
import sys
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pycni.ipam import block as arithmetic
from pycni.model.endpoints import PendingRelease
from pycni.model.resources import (
    Block,
)
from tests.unit.ctl.conftest import Machine, held
from tests.unit.written_books import (
    CIDR,
    DETAILS,
    KEY,
    POD,
    POD_HANDLE,
    POOL,
    THERE,
    TUNNEL,
    TUNNEL_HANDLE,
    empty_block,
    endpoint,
    full_block,
    give,
)

ODD_NUMBER = """{"kind": "IPAMReport", "version": 1, "findings": [
    {"kind": "address-leaked", "sequenceNumber": "5"}
]}"""


def report(machine: Machine) -> str:
    """Write the report of the check to a file."""
    path = machine.path / "report.json"
    path.write_text(json.dumps(machine.document("check", status=3)))
    return str(path)


def test_leaked_addresses_of_a_report_are_released(agent: Machine) -> None:
    agent.write(*THERE)
    agent.serve()

    said = agent.said("release", "--from-report", report(agent))

    assert said == f"{POD}: released, which pod default/web held"
    assert agent.said("check").startswith("findings: 0")


def test_report_is_read_from_standard_input(
    agent: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.write(*THERE)
    agent.serve()
    monkeypatch.setattr(sys, "stdin", io.StringIO(Path(report(agent)).read_text()))

    assert agent.ctl("release", "--from-report", "-") == 0
    assert held(agent) == [str(TUNNEL)]


@pytest.mark.parametrize(
    "now",
    [
        # Free, given again under the same handle, to another one, on another node; no block at all.
        give(empty_block(), TUNNEL_HANDLE),
        replace(full_block(), sequence_numbers=tuple(range(64))),
        give(give(empty_block(), TUNNEL_HANDLE), "net.c2", **DETAILS),
        give(give(empty_block(), TUNNEL_HANDLE), POD_HANDLE, **DETAILS | {"node": "node-1"}),
        None,
    ],
)
def test_address_that_is_not_as_reported_stays(agent: Machine, now: Block | None) -> None:
    agent.write(*THERE)
    agent.serve()
    path = report(agent)
    agent.database.unlink()
    agent.write(POOL, *([now] if now else []))
    agent.serve()

    said = agent.said("release", "--from-report", path)

    assert said == f"{POD}: kept, because it is not held as reported any more"
    assert agent.kinds(Block) == ([now] if now else [])


@pytest.mark.parametrize("what", ["a record", "a journalled release"])
def test_address_whose_pod_has_turned_up_stays(agent: Machine, what: str) -> None:
    agent.write(*THERE)
    agent.serve()
    path = report(agent)
    if what == "a record":
        agent.endpoints.put(endpoint())
    else:
        agent.endpoints.journal(PendingRelease(KEY, POD_HANDLE))

    said = agent.said("release", "--from-report", path)

    assert said == f"{POD}: kept, because pod default/web has {what} by now"
    assert len(held(agent)) == 2


def test_address_whose_pod_shows_life_by_now_stays(agent: Machine) -> None:
    agent.write(*THERE)
    agent.serve()
    path = report(agent)
    agent.serve(routed=[str(POD)])

    said = agent.said("release", "--from-report", path)

    assert said == f"{POD}: kept, because the pod has an interface or a damaged record"


def test_address_of_a_node_that_can_not_be_asked_stays_unless_forced(agent: Machine) -> None:
    agent.write(*THERE)
    agent.serve()
    path = report(agent)
    agent.serve(node="node-1")

    said = agent.said("release", "--from-report", path, status=1)

    assert "its record can't be looked for here: run this on node-0, beside its agent" in said
    assert agent.ctl("release", "--from-report", path, "--force") == 0
    assert held(agent) == [str(TUNNEL)]


def test_address_that_others_gave_stays(agent: Machine) -> None:
    block = give(give(empty_block(), TUNNEL_HANDLE), POD_HANDLE, node="node-0", pod="web")
    agent.write(*THERE)
    agent.serve()
    path = report(agent)
    agent.database.unlink()
    agent.write(POOL, block)
    agent.serve()

    said = agent.said("release", "--from-report", path)

    assert said == f"{POD}: kept, because it was not given by pycni"


def test_error_at_one_address_is_said_and_the_others_go_on(agent: Machine) -> None:
    agent.write(*THERE)
    agent.serve()
    path = report(agent)
    agent.database.unlink()
    agent.write(POOL, replace(full_block(), unallocated=()))
    agent.serve()

    said = agent.said("release", "--from-report", path, status=1)

    assert said.startswith(f"{POD}: kept, because of an error: block {CIDR} is corrupt")


def test_report_without_leaks_is_said(machine: Machine) -> None:
    machine.write(
        POOL, arithmetic.new_block(IPv4Network("10.0.0.0/26"), affinity=None, sequence_number=1)
    )

    said = machine.said("release", "--from-report", report(machine))

    assert said == "the report has no leaked addresses"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "is no report: while parsing"),
        ("- a", "is no report: write one by"),
        ('{"kind": "IPAMReport", "version": 2}', "of another version"),
        ('{"kind": "IPAMReport", "version": 1}', "is damaged"),
        (ODD_NUMBER, "sequenceNumber '5'"),
    ],
)
def test_what_is_no_report_is_refused(machine: Machine, text: str, complaint: str) -> None:
    machine.write(*THERE)
    path = machine.path / "report.json"
    path.write_text(text)

    assert complaint in machine.said("release", "--from-report", str(path), status=1)
