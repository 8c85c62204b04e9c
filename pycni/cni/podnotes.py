"""Tell the cluster, in Calico's annotations, which addresses a pod has: off the path of its ADD.

`cni.projectcalico.org/podIP`, `podIPs` and `containerID`: network policy and people read them
before the kubelet has written the pod's status.  What is due follows from the records and from what
the pods say by now, so nothing is lost when this process or the API server is away for a while.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pycni.cni.protocol import FIRST_INTERFACE
from pycni.errors import NotFound, PycniError
from pycni.model.endpoints import POD_ANNOTATION, EndpointState, WorkloadEndpoint
from pycni.ports import Endpoints
from pycni.ports_cluster import PodFacts, Pods

_log = logging.getLogger(__name__)

GATHER_S = 0.05
"""Pods come in series; each look reads all records."""
AGAIN_S = 5.0
"""After so long what was written and does not show is written once more."""
_AT_ONCE = 8


class Note(NamedTuple):
    """What has to be written to a pod."""

    pod: PodFacts
    annotations: Mapping[str, str]


def notes_due(records: Iterable[WorkloadEndpoint], pods: Iterable[PodFacts]) -> list[Note]:
    """Return what pods do not say yet, or say no longer rightly.

    A pod whose sandbox is gone has no address any more: Calico leaves an empty text then.
    """
    sandboxes: dict[tuple[str, str], dict[str, WorkloadEndpoint]] = {}
    for record in records:
        if record.pod_name and record.key.ifname == FIRST_INTERFACE:
            pod = (record.pod_namespace, record.pod_name)
            sandboxes.setdefault(pod, {})[record.key.container_id] = record
    found = []
    for facts in pods:
        wanted = _wanted(facts, sandboxes.get((facts.namespace, facts.name), {}))
        if any(facts.annotations.get(key) != text for key, text in wanted.items()):
            found.append(Note(facts, wanted))
    return found


def _wanted(pod: PodFacts, sandboxes: Mapping[str, WorkloadEndpoint]) -> dict[str, str]:
    ready = [
        one for one in sandboxes.values() if one.state is EndpointState.READY and one.addresses
    ]
    if ready:
        # Of two sandboxes the later one: the other's interface has given way to it.
        record = max(ready, key=lambda one: one.addresses[0].sequence_number or 0)
        addresses = [str(one.interface) for one in record.addresses]
        return {
            f"{POD_ANNOTATION}podIP": addresses[0],
            f"{POD_ANNOTATION}podIPs": ",".join(addresses),
            f"{POD_ANNOTATION}containerID": record.key.container_id,
        }
    said = pod.annotations.get(f"{POD_ANNOTATION}containerID")
    if said is None or said in sandboxes:
        return {}
    return {f"{POD_ANNOTATION}podIP": "", f"{POD_ANNOTATION}podIPs": ""}


class PodNotes:
    """Writes what is due, whenever woken."""

    def __init__(self, pods: Pods, endpoints: Endpoints) -> None:
        self._pods = pods
        self._endpoints = endpoints
        self._woken = asyncio.Event()
        self._written: dict[str, tuple[Mapping[str, str], float]] = {}

    def wake(self) -> None:
        """Look again soon."""
        self._woken.set()

    async def run(self) -> None:
        """Look whenever woken, until cancelled; after a failure and now and then in any case."""
        while True:
            try:
                async with asyncio.timeout(AGAIN_S):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            await self.once()
            await asyncio.sleep(GATHER_S)

    async def once(self) -> None:
        """Write what is due and was not written just now."""
        pods = self._pods.on_node()
        if pods is None:
            return
        records, _ = self._endpoints.readable()
        due = notes_due(records, pods)
        now = asyncio.get_running_loop().time()
        self._written = {uid: one for uid, one in self._written.items() if now - one[1] < AGAIN_S}
        fresh = [n for n in due if self._written.get(n.pod.uid, ({}, 0))[0] != n.annotations]
        for start in range(0, len(fresh), _AT_ONCE):
            await asyncio.gather(*map(self._write, fresh[start : start + _AT_ONCE]))

    async def _write(self, note: Note) -> None:
        now = asyncio.get_running_loop().time()
        try:
            await self._pods.annotate(note.pod, note.annotations)
        except NotFound:
            pass
        except PycniError as exc:
            what = f"{note.pod.namespace}/{note.pod.name}"
            _log.info("cannot annotate a pod yet", extra={"pod": what, "reason": str(exc)})
            return
        self._written[note.pod.uid] = (note.annotations, now)
