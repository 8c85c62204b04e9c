"""`ipam release`: what it takes back, and what it refuses to."""

import asyncio
import io
import json
import sys
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pycni.ctl.ipam_reading import Reading
from pycni.ctl.ipam_release import Releasing
from pycni.ipam import block as arithmetic
from pycni.model.endpoints import PendingRelease
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    Handle,
    IPAMConfig,
    Node,
    Resource,
)
from tests.unit.ctl.conftest import Machine
from tests.unit.written_books import (
    AFFINITY,
    CIDR,
    DETAILS,
    FREE,
    KEY,
    OTHER,
    POD,
    POD_HANDLE,
    POOL,
    TUNNEL,
    TUNNEL_HANDLE,
    books,
    empty_block,
    endpoint,
    full_block,
    give,
)

ODD_NUMBER = """{"kind": "IPAMReport", "version": 1, "findings": [
    {"kind": "address-leaked", "sequenceNumber": "5"}
]}"""
GONE: tuple[Resource, ...] = (POOL, full_block(), AFFINITY, *books().handles)
THERE: tuple[Resource, ...] = (*GONE, Node("node-0"))


def held(machine: Machine) -> list[str]:
    return [str(one.address) for block in machine.kinds(Block) for one in arithmetic.given(block)]


def handles(machine: Machine) -> list[str]:
    return [one.id for one in machine.kinds(Handle)]


def report(machine: Machine) -> str:
    """Write the report of the check to a file."""
    path = machine.path / "report.json"
    path.write_text(json.dumps(machine.document("check", status=3)))
    return str(path)


# --- one address --------------------------------------------------------------------------------


def test_address_of_a_node_that_is_gone_is_released(machine: Machine) -> None:
    machine.write(*GONE)

    said = machine.said("release", "--ip", str(POD))

    assert said == f"{POD}: released, which pod default/web held"
    assert held(machine) == [str(TUNNEL)]
    assert handles(machine) == [TUNNEL_HANDLE]


def test_address_of_a_node_that_is_there_is_refused(machine: Machine) -> None:
    machine.write(*THERE)

    said = machine.said("release", "--ip", str(POD), status=1)

    assert f"cannot release {POD}: pod default/web is on node-0, and that node is there" in said
    assert "say --force; then whoever uses the address goes on using it" in said
    assert len(held(machine)) == 2


def test_address_with_a_record_here_is_refused(agent: Machine) -> None:
    agent.write(*GONE)
    agent.serve(endpoint())

    said = agent.said("release", "--ip", str(POD), status=1)

    assert "pod default/web has a record or an interface on node-0, this node" in said
    assert len(held(agent)) == 2


def test_address_of_a_pod_that_lost_its_record_is_refused(agent: Machine) -> None:
    agent.write(*GONE)
    agent.serve(aliases=["pycni:net/C1/eth0"])

    assert "or an interface on node-0" in agent.said("release", "--ip", str(POD), status=1)


def test_force_releases_what_is_in_use(agent: Machine) -> None:
    agent.write(*THERE)
    agent.serve(endpoint())

    assert agent.ctl("release", "--ip", str(POD), "--force") == 0
    assert held(agent) == [str(TUNNEL)]


def test_attachment_that_is_being_added_is_waited_for(
    agent: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.write(*THERE)
    agent.serve()
    monkeypatch.setattr("pycni.ctl.ipam_release.LOCK_TIMEOUT_S", 0.01)

    async def locked() -> int:
        async with agent.endpoints.lock(KEY, timeout_s=1):
            return await asyncio.to_thread(agent.ctl, "release", "--ip", str(POD), "--force")

    assert asyncio.run(locked()) == 1
    assert len(held(agent)) == 2


@pytest.mark.parametrize("address", [str(FREE), "10.1.2.3", "fd00::1"])
def test_free_address_is_done_already(machine: Machine, address: str) -> None:
    machine.write(*THERE)

    assert machine.said("release", "--ip", address) == f"{address} is free already"


def test_released_address_rests_and_is_not_released_again(machine: Machine) -> None:
    machine.write(*GONE, IPAMConfig(cooldown_s=60))

    assert machine.ctl("release", "--ip", str(POD)) == 0

    assert f"{POD} rests since 20" in machine.said("release", "--ip", str(POD))
    assert [str(one) for one, _ in arithmetic.resting(machine.kinds(Block)[0])] == [str(POD)]


def test_address_without_a_handle_is_nobodys_to_release(machine: Machine) -> None:
    block = full_block()
    nameless = tuple(replace(one, handle_id=None) for one in block.attributes)
    machine.write(POOL, AFFINITY, replace(block, attributes=nameless))

    assert "no handle holds it" in machine.said("release", "--ip", str(POD), status=1)


def test_address_of_a_corrupt_block_is_refused(machine: Machine) -> None:
    machine.write(POOL, replace(full_block(), unallocated=()))

    assert "is corrupt" in machine.said("release", "--ip", str(POD), status=1)


@pytest.mark.parametrize(
    "words", [["--ip", "nonsense"], ["--node", "node-0", "--force"], ["--ip", "10.0.0.0/8"]]
)
def test_wrong_words_exit_with_2(machine: Machine, words: list[str]) -> None:
    assert machine.ctl("release", *words) == 2


@pytest.mark.parametrize("words", [[], ["--ip", "10.0.0.1", "--handle", "h"]])
def test_just_one_thing_is_released(machine: Machine, words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        machine.ctl("release", *words)

    assert end.value.code == 2


def test_address_that_was_given_again_since_it_was_read_stays(machine: Machine) -> None:
    machine.write(POOL, give(full_block(), "net.c2", **DETAILS), AFFINITY, *books().handles)
    stale = give(full_block(), POD_HANDLE, **DETAILS)
    reading = Reading(books(blocks=(stale,), nodes=frozenset(), records=()))

    status = machine.work(
        lambda store: Releasing(store, reading, is_forced=True).release_address(FREE)
    )

    assert status == 1
    assert machine.capsys.readouterr().out == (
        f"{FREE}: kept, because it was given again meanwhile\n"
    )
    assert str(FREE) in held(machine)


# --- a handle -----------------------------------------------------------------------------------


def test_handle_goes_with_all_spellings_of_its_name(machine: Machine) -> None:
    machine.write(
        POOL,
        AFFINITY,
        give(full_block(), "NET.c1", **DETAILS),
        Handle("net.c1", ((CIDR, 2),)),
        books().handles[1],
    )

    assert machine.ctl("release", "--handle", "Net.C1") == 0
    assert held(machine) == [str(TUNNEL)]
    assert handles(machine) == [TUNNEL_HANDLE]


def test_handle_that_holds_nothing_is_dropped(machine: Machine) -> None:
    machine.write(*THERE, Handle("left", ((CIDR, 1),)))

    assert machine.said("release", "--handle", "left") == "dropped handle left, which held nothing"
    assert "left" not in handles(machine)


def test_handle_in_use_is_refused(agent: Machine) -> None:
    agent.write(*THERE)
    agent.serve(endpoint())

    assert "has a record" in agent.said("release", "--handle", POD_HANDLE, status=1)
    assert len(held(agent)) == 2


def test_unknown_handle_is_said(machine: Machine) -> None:
    machine.write(*THERE)

    assert "there is no handle x" in machine.said("release", "--handle", "x", status=1)


# --- a node -------------------------------------------------------------------------------------


def test_everything_of_a_node_that_is_gone_is_released(machine: Machine) -> None:
    pending = BlockAffinity("node-0", OTHER, AffinityState.PENDING)
    machine.write(*GONE, pending, IPAMConfig(cooldown_s=60))

    assert machine.said("release", "--node", "node-0").splitlines() == [
        f"{TUNNEL}: released, which handle {TUNNEL_HANDLE} held",
        f"{POD}: released, which pod default/web held",
        f"{CIDR}: deleted",
        f"{OTHER}: deleted",
    ]
    assert [machine.kinds(kind) for kind in (Block, BlockAffinity, Handle)] == [[], [], []]
    assert machine.said("release", "--node", "node-0") == "node node-0 has nothing"


def test_what_others_borrowed_of_a_gone_node_stays_theirs(machine: Machine) -> None:
    block = give(full_block(), "net.other", **DETAILS | {"node": "node-1"})
    machine.write(
        POOL, AFFINITY, Node("node-1"), block, *books().handles, Handle("net.other", ((CIDR, 1),))
    )

    said = machine.said("release", "--node", "node-0")

    assert "has no owner any more, and goes with the last of 1 addresses of others" in said
    assert held(machine) == [str(FREE)]
    assert machine.said("check").startswith("findings: 0")


def test_node_that_is_there_is_refused(machine: Machine) -> None:
    machine.write(*THERE)

    assert "node node-0 is there: stop its agent" in machine.said(
        "release", "--node", "node-0", status=1
    )
    assert len(held(machine)) == 2


def test_node_whose_agent_runs_here_is_refused(agent: Machine) -> None:
    agent.write(*GONE)
    agent.serve()

    assert "runs here: stop it" in agent.said("release", "--node", "node-0", status=1)


# --- a report -----------------------------------------------------------------------------------


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

    assert said == f"{POD}: kept, because the pod's interface is there"


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
