"""Taking addresses back: the loops around blocks in the other direction, and undoing.

Block first, handle second: a crash in between leaves a handle that counts too much, which the
next release by that handle drops.  A block without owner goes with its last address.  An object
that other handles share (`pycni.ipam.handles`) goes with the last address of all.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

from pycni.errors import Conflict, NotFound, PycniError
from pycni.ipam import block as arithmetic
from pycni.ipam.blocks import Blocks
from pycni.ipam.books import attachment_of, handle_name, held_by_name
from pycni.ipam.handles import Handles
from pycni.ipam.pools import holds
from pycni.ipam.requests import Released
from pycni.ipam.retries import ATTEMPTS, Retries, gave_up
from pycni.ipam.together import Together
from pycni.model.endpoints import AssignedAddress, EndpointKey
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import Block, Handle, resource_name
from pycni.ports import Datastore, Deletion, Stored

_Take = Callable[[Block], arithmetic.Release]


class Releases:
    """Takes addresses back from blocks in a datastore."""

    __slots__ = ("_blocks", "_datastore", "_handles", "_retries", "_together")

    def __init__(
        self,
        datastore: Datastore,
        *,
        blocks: Blocks,
        handles: Handles,
        retries: Retries,
        together: Together,
    ) -> None:
        self._datastore = datastore
        self._blocks = blocks
        self._together = together
        self._handles = handles
        self._retries = retries

    async def release(
        self,
        addresses: Sequence[AssignedAddress],
        *,
        handle_id: str,
        resting_since: str | None = None,
    ) -> Released:
        """Take addresses back, each only if this handle has it with this sequence number.

        What is free already counts as done.
        """
        released: list[IPAddress] = []
        refused: list[IPAddress] = []
        for cidr, wanted in await self._by_block(addresses, handle_id):
            decide = partial(
                arithmetic.release,
                wanted=wanted,
                handle_id=handle_id,
                resting_since=resting_since,
            )
            outcome = await self._release_in(cidr, decide)
            if outcome.released:
                await self._handles.decrement(handle_id, cidr=cidr, count=len(outcome.released))
            released += outcome.released
            refused += outcome.refused
        return Released(tuple(released), tuple(refused))

    async def _by_block(
        self, addresses: Sequence[AssignedAddress], handle_id: str
    ) -> list[tuple[IPNetwork, dict[IPAddress, int | None]]]:
        """Group addresses by their blocks: the handle's, else all (its pool may be gone)."""
        handle = await self._handles.get(handle_id)
        known = [cidr for cidr, _ in handle.value.blocks] if handle else []
        everything: list[IPNetwork] | None = None
        result: dict[tuple[IPNetwork, int], dict[IPAddress, int | None]] = {}
        # One that is named with several sequence numbers, of which one may be its own, has a turn
        # with each.
        turns: dict[IPAddress, int] = {}
        for one in dict.fromkeys(addresses):
            address = one.interface.ip
            cidr = _holder(known, address)
            if cidr is None:
                if everything is None:
                    listing = await self._datastore.list(Block)
                    everything = [stored.value.cidr for stored in listing.items]
                cidr = _holder(everything, address)
            if cidr is not None:
                turn = turns[address] = turns.get(address, -1) + 1
                result.setdefault((cidr, turn), {})[address] = one.sequence_number
        return [(cidr, wanted) for (cidr, _), wanted in result.items()]

    async def _release_in(
        self, cidr: IPNetwork, decide: Callable[[Block], arithmetic.Release]
    ) -> arithmetic.Release | Released:
        for attempt in range(ATTEMPTS):
            await self._retries.pause(attempt)
            async with self._blocks.turns.at(cidr):
                found = await self._decide(cidr, decide, may_recall=attempt == 0)
                if found is None:
                    return Released()
                stored, outcome = found
                if not outcome.released:
                    return outcome
                try:
                    if outcome.block.affinity is None and arithmetic.is_empty(outcome.block):
                        await self._blocks.delete(stored)
                    else:
                        await self._blocks.update(stored, outcome.block)
                except (Conflict, NotFound):
                    continue
            self._retries.count("block-written")
            self._count(outcome.released)
            return outcome
        raise gave_up(f"release from block {cidr}")

    def _count(self, released: Sequence[IPAddress]) -> None:
        for _ in released:
            self._retries.count("address-released")

    async def _decide(
        self, cidr: IPNetwork, decide: Callable[[Block], arithmetic.Release], *, may_recall: bool
    ) -> tuple[Stored[Block], arithmetic.Release] | None:
        """Decide on what is remembered if that comes to a write, which is the proof; else look."""
        if may_recall and (recalled := self._blocks.recall(cidr)):
            outcome = decide(recalled.value)
            if outcome.released:
                return recalled, outcome
        stored = await self._blocks.get(cidr)
        return None if stored is None else (stored, decide(stored.value))

    async def held_by(self, handle_id: str) -> tuple[arithmetic.Given, ...]:
        """Return what a handle holds, according to the blocks themselves."""
        handle = await self._handles.get(handle_id)
        held: list[arithmetic.Given] = []
        for cidr, _ in handle.value.blocks if handle else ():
            stored = await self._blocks.get(cidr)
            if stored is not None:
                held += arithmetic.given_to(stored.value, handle_id)
        return tuple(held)

    async def release_by_handle(
        self,
        handle_id: str,
        *,
        key: EndpointKey | None = None,
        addresses: Sequence[AssignedAddress] = (),
        resting_since: str | None = None,
    ) -> tuple[IPAddress, ...]:
        """Take back all that a handle holds, and the handle; an unknown one is success.

        With a `key`, what is not another attachment's.  `addresses` are taken back, as by
        `release`, even where no handle tells of them.
        """
        take = partial(
            arithmetic.release_by_handle,
            handle_id=handle_id,
            attachment=attachment_of(key),
            resting_since=resting_since,
        )
        released = await self._release_at_once(handle_id, take)
        if released is None:
            released = await self._release_carefully(handle_id, take)
        untold = [one for one in addresses if one.interface.ip not in released]
        if untold:
            outcome = await self.release(untold, handle_id=handle_id, resting_since=resting_since)
            released += outcome.released
        return released

    async def _release_carefully(self, handle_id: str, take: _Take) -> tuple[IPAddress, ...]:
        released: list[IPAddress] = []
        for attempt in range(ATTEMPTS):
            await self._retries.pause(attempt)
            stored = await self._handles.get(handle_id)
            if stored is None:
                return tuple(released)
            after: list[Block] = []
            for cidr, _ in stored.value.blocks:
                outcome = await self._release_in(cidr, take)
                released += outcome.released
                after += [outcome.block] if isinstance(outcome, arithmetic.Release) else []
            left = _left_of(stored.value, blocks=after, released=released)
            try:
                # By revision: the proof that nothing was given under it meanwhile.
                if left is None:
                    await self._handles.delete(stored)
                elif left != stored.value:
                    await self._handles.update(stored, left)
            except (Conflict, NotFound):
                continue
            return tuple(released)
        raise gave_up(f"release handle {handle_id}")

    async def _release_at_once(self, handle_id: str, take: _Take) -> tuple[IPAddress, ...] | None:
        """Release what is remembered of block and handle, by one write with all who do so now.

        None where that is old: what a store without transactions has done of it by then, the
        careful way finds done.
        """
        handle = self._handles.recall(handle_id)
        if handle is None or len(handle.value.blocks) != 1:
            return None
        ((cidr, count),) = handle.value.blocks
        block = self._blocks.recall(cidr)
        if block is None:
            return None
        deletion = Deletion(Handle, resource_name(handle.value), handle.revision)
        released: list[IPAddress] = []

        def decide(now: Block) -> tuple[Block, Deletion] | None:
            outcome = take(now)
            # What is counted beside that may be another's.
            if len(outcome.released) != count or outcome.block.affinity is None:
                return None
            released.extend(outcome.released)
            return outcome.block, deletion

        # Whatever happens: only the datastore says what it is now.
        self._handles.forget(handle_id)
        is_done, _ = await self._together.write(block, decide)
        if not is_done:
            return None
        self._count(released)
        return tuple(released)

    async def give_back(self, addresses: Sequence[AssignedAddress], handle_id: str) -> None:
        """Undo what was given just now; done or half done, it can be repeated."""
        for cidr, planned in await self._by_block(addresses, handle_id):
            await self.take_back(cidr, planned, handle_id)

    async def take_back(
        self, cidr: IPNetwork, planned: Mapping[IPAddress, int | None], handle_id: str
    ) -> None:
        """Undo a write of which it may be unknown whether it happened: block, then handle.

        Sequence number and handle are both compared: had another writer been faster, it would have
        given the same address with the same number, but under its own handle.
        """
        if planned:
            await self._release_in(
                cidr, partial(arithmetic.release, wanted=planned, handle_id=handle_id)
            )
        await self.recount(handle_id, cidr)

    async def recount(self, handle_id: str, cidr: IPNetwork) -> None:
        """Lower a handle to what a block says that it holds of it; it may be so already."""
        stored = await self._blocks.get(cidr)
        # Handles that differ in capital letters share one object.
        blocks = () if stored is None else (stored.value,)
        held = held_by_name(blocks).get(handle_name(handle_id), {}).get(cidr, ())
        await self._handles.lower_to(handle_id, cidr=cidr, count=len(held))


async def undoing(reason: BaseException, undo: Callable[[], Awaitable[object]]) -> None:
    """Undo after an error; a failure of that must not hide the error itself.

    Who is cancelled at it begins once more: whatever `undo` has done by then, it finds done.
    """
    try:
        try:
            await undo()
        except PycniError:
            raise
        except BaseException:
            await undo()
            raise
    except PycniError as exc:
        reason.add_note(f"undoing it failed too ({exc}); releasing by the handle repairs that")


def _left_of(
    handle: Handle, *, blocks: Iterable[Block], released: Sequence[IPAddress]
) -> Handle | None:
    """Return what others have under a handle after a release; None when they have nothing.

    What is counted and not found stays counted beside theirs: one of them may be about to get it.
    """
    theirs = held_by_name(blocks).get(handle_name(handle.id))
    if not theirs:
        return None
    counts = {
        cidr: max(count - sum(holds(cidr, one) for one in released), len(theirs.get(cidr, ())))
        for cidr, count in handle.blocks
    }
    return Handle(handle.id, tuple((cidr, count) for cidr, count in counts.items() if count))


def _holder(cidrs: Iterable[IPNetwork], address: IPAddress) -> IPNetwork | None:
    return next((cidr for cidr in cidrs if holds(cidr, address)), None)
