"""Follow Services and their endpoints while some are to be announced; else ask for nothing.

Where no range of Services is configured an agent needs no right to read any, and no memory for
them.  While they can't be read, what is known stays.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from pycni.agent.following import follow
from pycni.ipam.retries import Sleep, asyncio_sleep
from pycni.model.services import (
    ServiceNews,
    ServicesListed,
    ServiceSources,
    SlicesListed,
)


class ServiceWatch:
    """Runs the sources while they are wanted; `look` says whether they are."""

    def __init__(
        self,
        sources: ServiceSources,
        *,
        post: Callable[[ServiceNews], None],
        report: Callable[[str, str], None],
        sleep: Sleep = asyncio_sleep,
    ) -> None:
        self._sources = sources
        self._post = post
        self._report = report
        self._sleep = sleep
        self._is_wanted = False
        self._changed = asyncio.Event()

    def look(self, is_wanted: bool) -> None:  # noqa: FBT001 - as a callback
        """Start or end following."""
        if is_wanted != self._is_wanted:
            self._is_wanted = is_wanted
            self._changed.set()

    async def run(self) -> None:
        """Follow while that is wanted, until cancelled."""
        if not self._sources:
            self._forget()
        while True:
            self._changed.clear()
            if not self._is_wanted:
                await self._changed.wait()
                continue
            await self._follow_all()

    async def _follow_all(self) -> None:
        """Follow until that is not wanted; forget everything then."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._follow(what, source), name=f"follow-{what}")
                for what, source in self._sources.items()
            ]
            while self._is_wanted:
                await self._changed.wait()
                self._changed.clear()
            for task in tasks:
                task.cancel()
        # Meanwhile they may be wanted again: the next listing replaces them then.
        if not self._is_wanted:
            self._forget()

    def _forget(self) -> None:
        """Say that there are none: nobody tells any more what becomes of them."""
        self._post(ServicesListed(()))
        self._post(SlicesListed(()))
        for what in self._sources:
            self._report(what, "")

    async def _follow(self, what: str, source: Callable[[], AsyncIterator[ServiceNews]]) -> None:
        def heed(one: ServiceNews) -> None:
            self._post(one)
            self._report(what, "")

        await follow(what, source, heed=heed, report=self._report, sleep=self._sleep)
