"""Look now and then at what `pycnictl check` looks at, and publish it with the Node object."""

import logging
from collections.abc import Awaitable, Callable

from pycni.check.findings import Report
from pycni.errors import PycniError
from pycni.ipam.retries import Sleep, asyncio_sleep
from pycni.ports_cluster import Cluster

_log = logging.getLogger(__name__)

FIRST_S = 20.0
"""After the start: the way to other nodes is learned first."""
PERIOD_S = 300.0


class Checks:
    """Publishes what `look` finds; None: there is nothing to say, of a node that has left.

    What was published is not remembered: the Node may be a new one, or from a backup.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        node: str,
        look: Callable[[], Awaitable[Report | None]],
        sleep: Sleep = asyncio_sleep,
    ) -> None:
        self._cluster = cluster
        self._node = node
        self._look = look
        self._sleep = sleep
        self._retractions = 0

    async def run(self) -> None:
        """Look and publish until cancelled."""
        await self._sleep(FIRST_S)
        while True:
            try:
                await self.once()
            except (PycniError, OSError) as exc:
                _log.warning("cannot check or publish", extra={"reason": str(exc)})
            await self._sleep(PERIOD_S)

    async def retract(self) -> None:
        """Take back what was published, by whichever agent of this node."""
        self._retractions += 1
        await self._cluster.publish(self._node, None)

    async def once(self) -> None:
        """Look, and publish, unless the node has left while somebody looked."""
        before = self._retractions
        report = await self._look()
        if before == self._retractions:
            await self._cluster.publish(self._node, report)
