"""Giving to new handles: all that ask at the same moment share one write of the block.

Spelling and committing a block costs as much for one address as for sixteen.  The first to ask
leads: it lets all others that are ready ask as well, chooses for each in their order, and writes
all handles and the block at once.  Whoever asks alone waits for nobody.

None is the answer where the block was passed over, a handle exists, or somebody else was faster;
then something may be left under the handle, and whoever asked goes the careful way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pycni.errors import AlreadyExists, Conflict, NotFound
from pycni.ipam import block as arithmetic
from pycni.ipam.blocks import Blocks
from pycni.ipam.choices import Choose
from pycni.ipam.giving import Given, assigned
from pycni.ipam.handles import Handles
from pycni.ipam.releases import Releases, undoing
from pycni.ipam.retries import Retries
from pycni.model.network import IPNetwork
from pycni.model.resources import Block, Handle
from pycni.ports import Creation, Datastore, Replacement, Stored, Write

if TYPE_CHECKING:
    import asyncio


@dataclass(slots=True, eq=False)
class _Wish:
    """What one request wants, and what it got; who leads has no `answer` to wait for."""

    choose: Choose
    handle_id: str
    answer: "asyncio.Future[Given | None] | None" = None
    given: Given | None = None

    @property
    def is_abandoned(self) -> bool:
        return self.answer is not None and self.answer.cancelled()


class Together:
    """Gives first addresses, for one node; `has_company` tells whether others may ask now."""

    def __init__(
        self,
        datastore: Datastore,
        *,
        node: str,
        blocks: Blocks,
        handles: Handles,
        releases: Releases,
        retries: Retries,
        has_company: Callable[[], bool],
    ) -> None:
        self._datastore = datastore
        self._node = node
        self._blocks = blocks
        self._handles = handles
        self._releases = releases
        self._retries = retries
        self._has_company = has_company
        self._gathering: dict[IPNetwork, list[_Wish]] = {}

    async def give(self, stored: Stored[Block], choose: Choose, handle_id: str) -> Given | None:
        """Give an address of a block to a handle that does not exist yet."""
        wish = _Wish(choose, handle_id)
        wishes = self._gathering.get(stored.value.cidr)
        try:
            if wishes is None:
                return await self._lead(stored, wish)
            return await self._follow(wishes, wish)
        except BaseException as exc:
            # Nobody knows whether the handle is ours or was left over, so it is no use to lower
            # it: all that it holds goes.
            await undoing(exc, self._releases.release_by_handle(handle_id))
            raise

    async def _follow(self, wishes: list[_Wish], wish: _Wish) -> Given | None:
        import asyncio  # late: an engine that serves one request alone needs none of it

        wish.answer = asyncio.get_running_loop().create_future()
        wishes.append(wish)
        return await wish.answer

    async def _lead(self, stored: Stored[Block], wish: _Wish) -> Given | None:
        wishes = [wish]
        try:
            if self._has_company():
                await self._gather(stored.value.cidr, wishes)
            await self._write(stored, wishes)
        finally:
            for one in wishes:
                if one.answer is not None and not one.answer.done():
                    one.answer.set_result(one.given)
        for one in wishes:
            if one.is_abandoned and one.given is not None:
                # It went while its address was being written, and found nothing to release yet.
                await self._releases.release_by_handle(one.handle_id)
        return wish.given

    async def _gather(self, cidr: IPNetwork, wishes: list[_Wish]) -> None:
        """Let all that are ready join, for as long as any does."""
        import asyncio

        self._gathering[cidr] = wishes
        try:
            known = 0
            while known < len(wishes):
                known = len(wishes)
                await asyncio.sleep(0)
        finally:
            del self._gathering[cidr]

    async def _write(self, stored: Stored[Block], wishes: Sequence[_Wish]) -> None:
        """Choose for one after the other, and write what that comes to."""
        block = stored.value
        chosen: list[tuple[_Wish, Given]] = []
        writes: list[Write] = []
        for wish in wishes:
            choice = None if wish.is_abandoned else wish.choose(block)
            if choice is None:
                continue
            block, address = choice
            sequence_number = arithmetic.sequence_number_of(block, address)
            is_borrowed = block.affinity != self._node
            chosen.append((wish, (assigned(address, sequence_number), is_borrowed)))
            writes.append(Creation(Handle(wish.handle_id, ((block.cidr, 1),))))
        if not chosen:
            return
        self._blocks.forget(block.cidr)
        try:
            *handles, written = await self._datastore.write(
                [*writes, Replacement(block, stored.revision)]
            )
        except AlreadyExists:
            return
        except (Conflict, NotFound):
            self._retries.count("conflict")
            return
        self._retries.count("block-written")
        for (wish, given), handle in zip(chosen, handles, strict=True):
            self._retries.count("address-given")
            wish.given = given
            if handle is not None:
                self._handles.remember(handle)
        if written is not None:
            self._blocks.remember(written)
