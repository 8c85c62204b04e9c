"""Steps on one block that are ready at the same moment share one write of it.

Spelling and committing a block costs as much for one address as for sixteen.  The first to come
leads: it lets all others join that are ready, or come while the block is being written for those
before, decides for each in their order, and writes the block and everything beside it at once.
Whoever comes alone waits for nobody.

None is the answer where a step passed the block over, where what is written beside it was not as
expected, or somebody else was faster; whoever asked then goes the careful way.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pycni.errors import AlreadyExists, Conflict, NotFound, PycniError
from pycni.ipam.blocks import Blocks
from pycni.ipam.retries import Retries
from pycni.model.network import IPNetwork
from pycni.model.resources import Block, Handle
from pycni.ports import Datastore, Deletion, Replacement, Stored, Write

if TYPE_CHECKING:
    import asyncio

Decide = Callable[[Block], tuple[Block, Write] | None]
"""Returns the block after a step and the handle's write beside it; None passes the block over."""


@dataclass(slots=True, eq=False)
class _Step:
    """What one request wants, and what came of it; who leads has no `answer` to wait for.

    `is_tried`: it was given to the datastore, which may have done it whatever was heard of that.
    `handle` is what was written beside the block, None for a deletion.
    """

    decide: Decide
    undo: Callable[[], Awaitable[object]] | None
    answer: "asyncio.Future[bool] | None" = None
    is_tried: bool = False
    is_done: bool = False
    handle: Stored[Handle] | None = None

    @property
    def is_abandoned(self) -> bool:
        return self.answer is not None and self.answer.cancelled()


class Together:
    """Writes blocks for many at once; `has_company` tells whether others may come now."""

    def __init__(
        self,
        datastore: Datastore,
        *,
        blocks: Blocks,
        retries: Retries,
        has_company: Callable[[], bool],
    ) -> None:
        self._datastore = datastore
        self._blocks = blocks
        self._retries = retries
        self._has_company = has_company
        self._gathering: dict[IPNetwork, list[_Step]] = {}

    async def write(
        self,
        stored: Stored[Block],
        decide: Decide,
        *,
        undo: Callable[[], Awaitable[object]] | None = None,
    ) -> tuple[bool, Stored[Handle] | None]:
        """Do a step on a block as it was last seen; tell whether it was, and the handle it wrote.

        `undo` takes back a step that was or may have been done after whoever asked for it had gone.
        """
        step = _Step(decide, undo)
        steps = self._gathering.get(stored.value.cidr)
        if steps is None:
            await self._lead(stored, step)
        else:
            await _follow(steps, step)
        return step.is_done, step.handle

    async def _lead(self, stored: Stored[Block], step: _Step) -> None:
        cidr = stored.value.cidr
        steps = [step]
        self._gathering[cidr] = steps
        try:
            async with self._blocks.turns.at(cidr):
                await self._gather(cidr, steps)
                # Whoever had the turn before has left what it wrote.
                await self._write(self._blocks.recall(cidr) or stored, steps)
        finally:
            if self._gathering.get(cidr) is steps:
                del self._gathering[cidr]
            for one in steps:
                if one.answer is not None and not one.answer.done():
                    one.answer.set_result(one.is_done)
            await _undo_abandoned(steps)

    async def _gather(self, cidr: IPNetwork, steps: list[_Step]) -> None:
        """Let all that are ready join, for as long as any does."""
        if self._has_company():
            import asyncio

            known = 0
            while known < len(steps):
                known = len(steps)
                await asyncio.sleep(0)
        del self._gathering[cidr]

    async def _write(self, stored: Stored[Block], steps: Sequence[_Step]) -> None:
        """Decide on one after the other, and write what that comes to."""
        block = stored.value
        # A store without transactions may stop in between: what is new is counted before the block
        # gives it, and what goes only after the block has it back.
        raised: list[tuple[_Step, Write]] = []
        lowered: list[tuple[_Step, Write]] = []
        for step in steps:
            made = None if step.is_abandoned else step.decide(block)
            if made is not None:
                block, beside = made
                (lowered if isinstance(beside, Deletion) else raised).append((step, beside))
                step.is_tried = True
        if not raised and not lowered:
            return
        self._blocks.forget(block.cidr)
        writes = [write for _, write in (*raised, *lowered)]
        writes.insert(len(raised), Replacement(block, stored.revision))
        try:
            results = list(await self._datastore.write(writes))
        except AlreadyExists:
            return
        except (Conflict, NotFound):
            self._retries.count("conflict")
            return
        self._retries.count("block-written")
        written = results.pop(len(raised))
        for (step, _), handle in zip((*raised, *lowered), results, strict=True):
            step.is_done, step.handle = True, handle
        if written is not None:
            self._blocks.remember(written)


async def _follow(steps: list[_Step], step: _Step) -> None:
    import asyncio  # late: an engine that serves one request alone needs none of it

    step.answer = asyncio.get_running_loop().create_future()
    steps.append(step)
    await step.answer


async def _undo_abandoned(steps: Sequence[_Step]) -> None:
    """Undo the steps of those who went while these were written, and found nothing to undo yet."""
    for one in steps:
        if one.is_abandoned and one.is_tried and one.undo is not None:
            # It is no trouble of whoever leads, and nobody else is left to be told: what stays is
            # found as after a crash.
            with suppress(PycniError):
                await one.undo()
