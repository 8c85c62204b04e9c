"""What pods are told of their addresses, and when."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

import pytest

from pycni.cni import podnotes
from pycni.cni.podnotes import PodNotes, notes_due
from pycni.endpoints import FileEndpoints
from pycni.errors import NotFound, TryAgain
from pycni.model.endpoints import AssignedAddress, EndpointKey, EndpointState, WorkloadEndpoint
from pycni.ports_cluster import PodFacts
from tests.waiting import until

P = "cni.projectcalico.org/"
RECORD = WorkloadEndpoint(
    key=EndpointKey("net", "c1", "eth0"),
    node="node-0",
    netns="/n",
    host_veth="cali1",
    handle_id="net.c1",
    state=EndpointState.READY,
    addresses=(
        AssignedAddress(ip_interface("10.0.0.1/32"), 1),
        AssignedAddress(ip_interface("fd00::1/128"), 1),
    ),
    pod_namespace="default",
    pod_name="web",
)
SAID = {
    f"{P}podIP": "10.0.0.1/32",
    f"{P}podIPs": "10.0.0.1/32,fd00::1/128",
    f"{P}containerID": "c1",
}
POD = PodFacts("default", "web", "u", {})


def due(*records: WorkloadEndpoint, said: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    return [dict(n.annotations) for n in notes_due(records, [replace(POD, annotations=said or {})])]


def test_a_pod_is_told_its_addresses_once() -> None:
    assert due(RECORD) == [SAID]
    assert due(RECORD, said=SAID | {"other": "x"}) == []
    assert due(RECORD, said=SAID | {f"{P}podIP": "10.0.0.9/32"}) == [SAID]


@pytest.mark.parametrize(
    "record",
    [
        replace(RECORD, state=EndpointState.INTENT),
        replace(RECORD, addresses=()),
        replace(RECORD, pod_name="other"),
        replace(RECORD, key=EndpointKey("net", "c1", "net1")),
    ],
)
def test_what_is_no_pods_first_interface_or_not_made_yet_says_nothing(
    record: WorkloadEndpoint,
) -> None:
    assert due(record) == []


def test_a_pod_whose_sandbox_is_gone_has_no_address_any_more() -> None:
    empty = {f"{P}podIP": "", f"{P}podIPs": ""}

    assert due(said=SAID) == [empty]
    assert due(said=SAID | empty) == []
    # Of one whose DEL is under way, or of another sandbox, nothing is known yet.
    assert due(replace(RECORD, state=EndpointState.INTENT), said=SAID) == []


def test_the_later_of_two_sandboxes_counts() -> None:
    newer = replace(
        RECORD,
        key=EndpointKey("net", "c2", "eth0"),
        addresses=(AssignedAddress(ip_interface("10.0.0.2/32"), 7),),
    )

    assert due(newer, RECORD)[0][f"{P}containerID"] == "c2"
    assert due(RECORD, newer)[0][f"{P}containerID"] == "c2"


class Told:
    """A cluster of one pod that keeps what it is told, or fails."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.pods: list[PodFacts] | None = [POD]
        self.told: list[Mapping[str, str]] = []

    async def get(self, namespace: str, name: str, *, uid: str = "") -> PodFacts | None:
        raise NotImplementedError

    async def annotations_of_namespace(self, name: str) -> Mapping[str, str]:
        raise NotImplementedError

    def on_node(self) -> Sequence[PodFacts] | None:
        return self.pods

    async def annotate(self, pod: PodFacts, annotations: Mapping[str, str]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        assert pod == POD
        self.told.append(annotations)


def look(directory: Path, told: Told, times: int) -> None:
    async def main() -> None:
        endpoints = FileEndpoints(run_dir=directory / "run", state_dir=directory / "state")
        endpoints.put(RECORD)
        notes = PodNotes(told, endpoints)
        for _ in range(times):
            await notes.once()

    asyncio.run(main())


def test_what_was_written_and_does_not_show_yet_is_not_written_again(tmp_path: Path) -> None:
    told = Told()
    look(tmp_path, told, 3)
    assert told.told == [SAID]


def test_a_note_that_fails_is_tried_again_but_for_a_pod_that_is_gone(tmp_path: Path) -> None:
    told = Told(TryAgain("away"))
    look(tmp_path, told, 2)
    assert told.told == [SAID]
    gone = Told(NotFound("gone"))
    look(tmp_path, gone, 2)
    assert gone.told == []


def test_nothing_is_written_while_the_pods_are_not_known(tmp_path: Path) -> None:
    told = Told()
    told.pods = None
    look(tmp_path, told, 1)
    assert told.told == []


def test_a_failure_is_retried_without_anybody_waking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(podnotes, "AGAIN_S", 0.01)
    told = Told(TryAgain("away"), TryAgain("away"))

    async def main() -> None:
        endpoints = FileEndpoints(run_dir=tmp_path / "run", state_dir=tmp_path / "state")
        endpoints.put(RECORD)
        running = asyncio.ensure_future(PodNotes(told, endpoints).run())
        await until(lambda: told.told)
        running.cancel()

    asyncio.run(main())
    assert told.told[0] == SAID
