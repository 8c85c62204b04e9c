"""Say loudly that NetworkPolicy objects are not enforced: whoever wrote one relies on it."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from math import inf

from pycni.agent.following import follow
from pycni.errors import PycniError
from pycni.ipam.retries import Sleep, asyncio_sleep
from pycni.ports_cluster import Cluster

_log = logging.getLogger(__name__)

_WHAT = "network policies"
REASON = "NetworkPolicyNotEnforced"
SETTLING_S = 2.0
"""One `kubectl apply` makes several objects, and is one change."""
RETRY_S = 10.0
MOST = 5
PERIOD_S = 600.0
"""All agents make these Events: where somebody makes policies all day, no more than so many in so
long."""


class Policies:
    """Follows which policies there are; trouble for `status`, and one Event for each change."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        node: str,
        report: Callable[[str, str], None],
        sleep: Sleep = asyncio_sleep,
    ) -> None:
        self._cluster = cluster
        self._node = node
        self._report = report
        self._sleep = sleep
        self._known: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self._told_at: deque[float] = deque([-inf] * MOST, maxlen=MOST)

    async def run(self) -> None:
        """Follow and tell until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="policies-follow")
            group.create_task(self._tell(), name="policies-tell")

    async def _follow(self) -> None:
        source, report = self._cluster.policies, self._report
        await follow(_WHAT, source, heed=self._heed, report=report, sleep=self._sleep)

    def _heed(self, known: frozenset[str]) -> None:
        self._known = known
        self._report(_WHAT, sentence_of(known))
        self._changed.set()

    async def _tell(self) -> None:
        told: frozenset[str] = frozenset()
        clock = asyncio.get_running_loop().time
        while True:
            await self._changed.wait()
            await self._sleep(max(SETTLING_S, self._told_at[0] + PERIOD_S - clock()))
            self._changed.clear()
            if self._known in (told, frozenset()):
                told = self._known
                continue
            message = sentence_of(self._known)
            try:
                await self._cluster.warn(self._node, reason=REASON, message=message)
                told = self._known
                self._told_at.append(clock())
            except PycniError as exc:
                _log.warning("cannot make an event", extra={"reason": str(exc)})
                await self._sleep(RETRY_S)
                self._changed.set()


def sentence_of(policies: frozenset[str]) -> str:
    """Return what there is to say of these policies; "" of none."""
    if not policies:
        return ""
    objects = "object is" if len(policies) == 1 else "objects are"
    return (
        f"{len(policies)} NetworkPolicy {objects} not enforced: pycni has no policies yet, and"
        " every pod can be reached"
    )
