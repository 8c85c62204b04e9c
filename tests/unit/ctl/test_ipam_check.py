"""`ipam check`: what it says, its report, and what --repair mends."""

import asyncio
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml

from pycni.ctl.ipam_reading import read_findings
from pycni.datastore.sqlite import SqliteDatastore
from pycni.ipam import block as arithmetic
from pycni.ipam.audit import audit
from pycni.ipam.findings import Finding
from pycni.ipam.lookup import read_books
from pycni.model.endpoints import PendingRelease
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    Handle,
    IPPool,
    Node,
    Resource,
)
from tests.unit.ctl.conftest import Machine
from tests.unit.written_books import (
    AFFINITY,
    CIDR,
    KEY,
    POD,
    POD_HANDLE,
    POOL,
    START,
    books,
    empty_block,
    endpoint,
    full_block,
)

SOUND: tuple[Resource, ...] = (POOL, Node("node-0"), full_block(), AFFINITY, *books().handles)
STRAY = IPv4Network("10.0.0.0/26")


def test_sound_books_exit_with_0(agent: Machine) -> None:
    agent.write(*SOUND)
    agent.serve(endpoint())

    assert agent.said("check") == (
        "findings: 0 (read: pools 1, blocks 1, addresses 2, resting 0, handles 2, affinities 1,"
        " nodes 1, records 1)"
    )


def test_leaked_address_exits_with_3_and_names_its_repair(agent: Machine) -> None:
    agent.write(*SOUND)
    agent.serve()

    headings, finding = agent.said("check", status=3).splitlines()[:2]

    assert headings == "FINDING WHAT REPAIR"
    assert finding == (
        "address-leaked 192.168.39.193 is held by net.C1 for pod default/web of node-0, which has"
        " neither a record nor a journalled release of it, nor an interface"
        " pycnictl ipam release --from-report FILE"
    )


def test_address_whose_namespace_is_there_is_no_leak(agent: Machine, tmp_path: Path) -> None:
    there = full_block(netns=str(tmp_path))
    agent.write(*(there if one == full_block() else one for one in SOUND))
    agent.serve()

    assert agent.document("check")["findings"] == []


def test_journalled_release_is_no_leak(agent: Machine) -> None:
    agent.write(*SOUND)
    agent.serve(debts=(PendingRelease(KEY, POD_HANDLE),))

    assert agent.document("check")["findings"] == []


def test_report_says_all_of_a_finding(agent: Machine) -> None:
    agent.write(*SOUND)
    agent.serve()

    report = agent.document("check", status=3)

    assert list(report) == [
        "kind", "version", "time", "counts", "recordsOf", "notes", "repaired", "findings"
    ]  # fmt: skip
    assert (report["kind"], report["version"]) == ("IPAMReport", 1)
    assert (report["recordsOf"], report["notes"], report["repaired"]) == (["node-0"], [], [])
    assert report["counts"]["addresses"] == 2
    (finding,) = report["findings"]
    assert "neither a record" in finding.pop("sentence")
    assert finding == {
        "kind": "address-leaked",
        "information": False,
        "subject": f"address {POD}",
        "address": str(POD),
        "handle": POD_HANDLE,
        "sequenceNumber": START + 1,
        "block": str(CIDR),
        "node": "node-0",
        "repair": "pycnictl ipam release --from-report FILE",
    }


def test_what_is_gone_at_the_second_look_is_not_told(machine: Machine) -> None:
    machine.write(*SOUND[:-2], SOUND[-1])

    async def make_handle_between(store: SqliteDatastore) -> tuple[Finding, ...]:
        task = asyncio.create_task(read_findings(store, machine.run_dir))
        await asyncio.sleep(0)  # it goes on until it waits for its second look
        assert audit(await read_books(store))
        await store.create(SOUND[-2])
        return (await task)[1]

    assert machine.work(make_handle_between) == ()


def test_report_comes_as_yaml_too(machine: Machine) -> None:
    machine.write(*SOUND)

    assert machine.ctl("check", "-o", "yaml") == 0
    assert yaml.safe_load(machine.capsys.readouterr().out)["kind"] == "IPAMReport"


def test_without_an_agent_no_record_is_compared_and_it_says_so(machine: Machine) -> None:
    machine.write(*SOUND)

    assert "note: no agent runs in" in machine.said("check")


def test_agent_that_is_dead_is_not_compared_with(machine: Machine) -> None:
    machine.write(*SOUND)
    (machine.run_dir / "control.sock").touch()

    assert "note: no records were compared: no agent answers" in machine.said("check")


def test_agent_of_another_datastore_is_not_compared_with(agent: Machine) -> None:
    agent.write(*SOUND)
    agent.serve(datastore=[0, 0])

    assert "works on another datastore" in agent.said("check")


def test_answer_of_another_version_is_a_failure(agent: Machine) -> None:
    agent.write(*SOUND)
    agent.serve(records=[{"key": "x"}])

    assert agent.ctl("check") == 1
    agent.answers["endpoints"]["records"] = None
    assert agent.ctl("check") == 1


def test_what_heals_by_itself_exits_with_0(machine: Machine) -> None:
    machine.write(*SOUND, BlockAffinity("node-0", STRAY, AffinityState.PENDING))

    said = machine.said("check")

    assert "claim-unfinished" in said
    assert "(heals by itself)" in said


def test_what_needs_judgement_says_so(machine: Machine) -> None:
    machine.write(*[value for value in SOUND if not isinstance(value, IPPool)])

    assert "(needs judgement)" in machine.said("check", status=3)


def test_repair_mends_says_what_it_did_and_checks_again(machine: Machine) -> None:
    strays: tuple[Resource, ...] = (
        Handle("left", ((CIDR, 1),)),
        BlockAffinity("node-0", STRAY, AffinityState.CONFIRMED),
        arithmetic.new_block(IPv4Network("10.0.1.0/26"), affinity=None, sequence_number=1),
    )
    machine.write(*[one for one in SOUND if getattr(one, "id", "") != "net.c1"], *strays)

    assert machine.said("check", "--repair").splitlines()[:4] == [
        "repaired: made handle net.c1: 1 of 192.168.39.192/26",
        "repaired: deleted handle left, which holds nothing",
        "repaired: deleted block 10.0.1.0/26, which was empty and in no pool",
        "repaired: dropped node-0's affinity for 10.0.0.0/26",
    ]
    assert machine.document("check", "--repair")["repaired"] == []
    assert "findings: 0" in machine.said("check")


def test_repair_leaves_what_needs_judgement(agent: Machine) -> None:
    agent.write(*SOUND)
    agent.serve()

    report = agent.document("check", "--repair", status=3)

    assert report["repaired"] == []
    assert [one["kind"] for one in report["findings"]] == ["address-leaked"]
    assert agent.kinds(Block) == [full_block()]


def test_corrupt_block_is_a_finding(machine: Machine) -> None:
    machine.write(POOL, Node("node-0"), replace(empty_block(), unallocated=()), AFFINITY)

    assert "block-corrupt" in machine.said("check", status=3)


def test_mistake_in_the_command_line_exits_with_2(machine: Machine) -> None:
    with pytest.raises(SystemExit) as end:
        machine.ctl("check", "--mend")

    assert end.value.code == 2


def test_without_a_datastore_it_fails(machine: Machine) -> None:
    assert machine.ctl("check") == 1


def test_looking_changes_nothing(machine: Machine) -> None:
    machine.write(*SOUND)

    for words in (["show"], ["explain", str(POD)], ["check"]):
        assert machine.ctl(*words) == 0
    assert machine.kinds(Block) == [full_block()]


def test_damaged_record_is_a_finding_and_the_rest_is_compared(agent: Machine) -> None:
    agent.write(*SOUND)
    agent.serve(endpoint())
    path = agent.endpoints.directory / agent.endpoints.file_name(KEY)
    path.write_text("{")
    agent.answers["endpoints"] |= {"records": [], "damaged": [f"cannot read {path}: bad; move it"]}

    document = agent.document("check", status=3)

    (finding,) = document["findings"]
    assert (finding["kind"], finding["node"]) == ("record-damaged", "node-0")
    assert finding["sentence"] == f"cannot read {path}: bad; move it"
    refused = agent.said("release", "--ip", str(POD), status=1)
    assert "has a record or an interface on node-0" in refused


def test_damaged_record_of_one_pod_hides_no_leak_of_another(agent: Machine) -> None:
    agent.write(*SOUND)
    agent.serve()
    (agent.endpoints.directory / "0.json").write_text("{")
    agent.answers["endpoints"] |= {"damaged": ["cannot read 0.json"]}

    kinds = [one["kind"] for one in agent.document("check", status=3)["findings"]]

    assert kinds == ["address-leaked", "record-damaged"]
