"""A cluster that notes what an agent tells it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from pycni.check.findings import Report
from pycni.ports_cluster import Greeting

Story = frozenset[str] | Exception
"""What `policies` yields next, or raises."""
Held = Mapping[str, bytes] | Exception | None
"""What `secret` yields next, or raises."""


GREETING = Greeting(0.0, 0.01, "Thu, 01 Jan 1970 00:00:00 GMT")


@dataclass
class ToldCluster:
    """See `pycni.ports_cluster.Cluster`; `refusals` are raised first by whatever is told."""

    greeting: Greeting | Exception = GREETING
    missing: Sequence[str] = ()
    stories: "asyncio.Queue[Story]" = field(default_factory=asyncio.Queue)
    refusals: list[Exception] = field(default_factory=list)
    secrets: dict[str, "asyncio.Queue[Held]"] = field(default_factory=dict)
    published: list[tuple[str, Report | None]] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    async def greet(self) -> Greeting:
        if isinstance(self.greeting, Exception):
            raise self.greeting
        return self.greeting

    async def missing_kinds(self) -> Sequence[str]:
        return self.missing

    async def publish(self, node: str, report: Report | None) -> None:
        self._refuse()
        self.published.append((node, report))

    async def reports(self) -> Mapping[str, Report]:
        return {node: report for node, report in self.published if report is not None}

    async def policies(self) -> AsyncIterator[frozenset[str]]:
        while True:
            story = await self.stories.get()
            if isinstance(story, Exception):
                raise story
            yield story

    async def secret(self, name: str) -> AsyncIterator[Mapping[str, bytes] | None]:
        while True:
            story = await self.secrets.setdefault(name, asyncio.Queue()).get()
            if isinstance(story, Exception):
                raise story
            yield story

    async def warn(self, node: str, *, reason: str, message: str) -> None:
        self._refuse()
        self.warned.append(f"{node} {reason}: {message}")

    def _refuse(self) -> None:
        if self.refusals:
            raise self.refusals.pop()
