"""Migrate one node, and take that back: performs a plan's steps, and keeps what was done.

What is done shows in what is looked at, so an interrupted run is repeated as a whole.  The file is
written before the first effect: whatever happens after, the way back knows what was moved.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

from pycni.agent.claim import claim_run_dir
from pycni.datastore.opening import Documents
from pycni.endpoints import FileEndpoints
from pycni.errors import InvalidInput, NotFound, TryAgain
from pycni.files import flush_directory, put
from pycni.ipam import lookup
from pycni.kernel.linux import LinuxKernel
from pycni.migrate.cluster import UNAVAILABLE
from pycni.migrate.looking import PLUGINS, Node, processes
from pycni.migrate.podends import name_end
from pycni.migrate.record import Migration, Stage, migration_text, parse_migration
from pycni.migrate.steps import (
    ClearCondition,
    HandOver,
    LetGo,
    Plan,
    RemoveRules,
    RemoveTable,
    Rename,
    Step,
    TakeOver,
    moved,
    protocols,
    step_text,
)
from pycni.model.endpoints import WorkloadEndpoint
from pycni.model.network import DeleteRoute, ReplaceRoute
from pycni.plan.ownership import alias_of
from pycni.ports import Datastore
from pycni.programs import output_of

ROUNDS = 5
"""How often what came meanwhile is taken over: pods that Calico's plugin was just making."""
PLUGIN_S = 100.0
"""How long a request of Calico's plugin may take: it gives up after 90 s itself."""
_LOOK_S = 0.05
_LOCK_TIMEOUT_S = 30.0

MakePlan = Callable[[], Awaitable[Plan]]


class Journal:
    """The file that says what a migration has done."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "migration.json"

    def read(self) -> Migration | None:
        """Return what was begun, or None."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return parse_migration(text, source=str(self.path))

    def need(self) -> Migration:
        """Return what was begun; raise `NotFound` without one."""
        migration = self.read()
        if migration is None:
            raise NotFound(
                "there is nothing to go back from: this node was not migrated from Calico (there is"
                f" no {self.path})"
            )
        return migration

    def write(self, migration: Migration) -> None:
        """Keep it; it is on disk when this returns."""
        put(self.path, migration_text(migration).encode(), mode=0o600)
        flush_directory(self.path.parent)

    def remove(self) -> None:
        """Forget it: the node is as it was."""
        self.path.unlink(missing_ok=True)
        flush_directory(self.path.parent)


@dataclass(slots=True)
class Doing:
    """One run's tools; `say` tells what has been done."""

    node: Node
    datastore: Datastore
    endpoints: FileEndpoints
    journal: Journal
    documents: Documents | None
    say: Callable[[str], None]

    async def migrate(self, make_plan: MakePlan) -> None:
        """Take the node over; what Calico's plugin is just making is waited for."""
        begun = self.journal.read() or Migration(self.node.name)
        if begun.stage is Stage.RETURNING:
            raise InvalidInput("the way back has begun: end it first (pycnictl migrate --back)")
        if begun.node != self.node.name:
            raise InvalidInput(f"it was node {begun.node} that was migrated: name it by --node")
        if begun.moved:
            # A run that was killed may not have waited to the end, and no step shows that.
            await _plugins_ended()
        done = await self._rounds(make_plan, replace(begun, stage=Stage.GOING))
        self.journal.write(replace(done, stage=Stage.DONE))

    async def go_back(self, make_plan: MakePlan) -> None:
        """Give the node back to Calico; no agent of ours can begin to run meanwhile.

        One that hangs answers no question, and may still do so later.
        """
        begun = self.journal.need()
        lock = claim_run_dir(self.node.run_dir)
        try:
            await self._rounds(make_plan, replace(begun, stage=Stage.RETURNING))
            self.journal.remove()
        finally:
            os.close(lock)

    async def _rounds(self, make_plan: MakePlan, migration: Migration) -> Migration:
        """Plan and perform until nothing is left to do."""
        for _ in range(ROUNDS):
            plan = await make_plan()
            _require(plan)
            if not plan.steps:
                return migration
            if migration.stage is Stage.GOING:
                migration = migration.with_more(moved=moved(plan), protocols=protocols(plan))
            self.journal.write(migration)
            for step in plan.steps:
                await self._perform(step)
        raise TryAgain("there is always more to do: who else changes this node's routes or files?")

    async def _perform(self, step: Step) -> None:
        match step:
            case Rename():
                (self.node.net_dir / step.source).rename(self.node.net_dir / step.target)
                await _plugins_ended()
            case TakeOver():
                await self._take_over(step.endpoint)
            case LetGo():
                await self._let_go(step.endpoint)
            case HandOver():
                await _hand_over(step)
            case RemoveRules():
                await output_of(step.program, "--noflush", stdin=step.removal)
            case RemoveTable():
                await output_of("nft", "delete", "table", *step.table.split())
            case ClearCondition():
                await self._clear(step.node)
            case _:
                assert_never(step)
        self.say(step_text(step))

    async def _clear(self, node: str) -> None:
        if self.documents is not None:
            await self.documents.set_condition(
                node, kind=UNAVAILABLE, status="False", reason="PycniServes"
            )

    async def _take_over(self, endpoint: WorkloadEndpoint) -> None:
        """Write the record, then the ifalias: an interface of ours without one loses its route."""
        async with self.endpoints.lock(endpoint.key, timeout_s=_LOCK_TIMEOUT_S):
            is_new = self.endpoints.get(endpoint.key) is None
            # A DEL may have been faster: nothing must lead to an address that another may get.
            if is_new and not await self._holds(endpoint):
                return
            if is_new:
                self.endpoints.put(endpoint)
            alias = alias_of(endpoint.key)
            if not name_end(endpoint.host_veth, alias=alias, expected=("",)) and is_new:
                self.endpoints.remove(endpoint.key)

    async def _holds(self, endpoint: WorkloadEndpoint) -> bool:
        for one in endpoint.addresses:
            address, handle_id = one.interface.ip, endpoint.handle_id
            holder = await lookup.holder(self.datastore, address, expected=handle_id)
            if holder != handle_id:
                return False
        return True

    async def _let_go(self, endpoint: WorkloadEndpoint) -> None:
        async with self.endpoints.lock(endpoint.key, timeout_s=_LOCK_TIMEOUT_S):
            name_end(endpoint.host_veth, alias="", expected=(alias_of(endpoint.key),))
            self.endpoints.remove(endpoint.key)


def _require(plan: Plan) -> None:
    if not plan.is_possible:
        raise InvalidInput("\n".join([*plan.refused, *plan.first]))


async def _hand_over(step: HandOver) -> None:
    kernel = LinuxKernel()
    try:
        op = DeleteRoute(step.old) if step.new is None else ReplaceRoute(step.old, step.new)
        failures = await kernel.apply([op])
    finally:
        kernel.close()
    if failures:
        raise TryAgain("; ".join(failure.message for failure in failures))


async def _plugins_ended() -> None:
    """Wait for requests that had begun: what they make is found after."""
    try:
        async with asyncio.timeout(PLUGIN_S):
            while processes(PLUGINS):  # noqa: ASYNC110 - other programs' ends
                await asyncio.sleep(_LOOK_S)
    except TimeoutError as exc:
        running = ", ".join(processes(PLUGINS))
        raise TryAgain(
            f"Calico's plugin still works: {running}; look what it waits for, and run this again"
        ) from exc
