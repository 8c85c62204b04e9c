"""Handles: the reverse index from a holder to its blocks, kept by compare-and-swap.

A handle is raised before the block gives an address and lowered after the block has it back.  So
a crash in between leaves a handle that counts too much, never an address that no handle knows;
releasing by handle looks into the blocks themselves and drops what was counted too much.

Handles share an object, which counts the addresses of all, when only capital letters tell them
apart, or nothing: `a.b` + `c` makes the same text as `a` + `b.c`.
"""

from pycni.errors import AlreadyExists, Conflict, NotFound
from pycni.ipam.books import with_count
from pycni.ipam.retries import ATTEMPTS, Retries, gave_up
from pycni.model.network import IPNetwork
from pycni.model.resources import Handle, resource_name
from pycni.ports import Datastore, Stored

# Many more than a node has pods; what is forgotten costs a read.
_REMEMBERED = 1024


class Handles:
    """Raises and lowers handles in a datastore, and remembers those that it wrote.

    What is remembered is tried first; the write compares revisions.
    """

    __slots__ = ("_datastore", "_known", "_retries")

    def __init__(self, datastore: Datastore, *, retries: Retries) -> None:
        self._datastore = datastore
        self._retries = retries
        self._known: dict[str, Stored[Handle]] = {}

    async def get(self, handle_id: str) -> Stored[Handle] | None:
        """Return a handle, or None: the truth."""
        return await self._datastore.get(Handle, resource_name(Handle(handle_id)))

    def recall(self, handle_id: str) -> Stored[Handle] | None:
        """Return a handle as it was last written here; None when it was not."""
        return self._known.get(handle_id)

    def remember(self, stored: Stored[Handle]) -> None:
        """Note a handle as it was just written."""
        self._known[stored.value.id] = stored
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]

    def forget(self, handle_id: str) -> None:
        """Note that only the datastore knows what a handle is now."""
        self._known.pop(handle_id, None)

    async def create(self, handle_id: str, *, cidr: IPNetwork) -> bool:
        """Make a handle that counts one address of a block; return False when there is one."""
        try:
            stored = await self._datastore.create(Handle(handle_id, ((cidr, 1),)))
        except AlreadyExists:
            return False
        self.remember(stored)
        return True

    async def increment(self, handle_id: str, *, cidr: IPNetwork) -> None:
        """Count one more address of a block."""
        for attempt in range(ATTEMPTS):
            await self._retries.pause(attempt)
            # Nearly every handle is new: try that first and save a read.
            if await self.create(handle_id, cidr=cidr):
                return
            if await self._add_to_existing(handle_id, cidr):
                return
        raise gave_up(f"raise handle {handle_id}")

    async def _add_to_existing(self, handle_id: str, cidr: IPNetwork) -> bool:
        stored = await self.get(handle_id)
        if stored is None:
            return False
        try:
            await self.update(stored, _counting(stored.value, cidr, change=1))
        except (Conflict, NotFound):
            return False
        return True

    async def decrement(self, handle_id: str, *, cidr: IPNetwork, count: int) -> None:
        """Count fewer addresses of a block; a handle without any is deleted."""
        stored = self.recall(handle_id)
        for attempt in range(ATTEMPTS):
            await self._retries.pause(attempt)
            stored = stored or await self.get(handle_id)
            if stored is None or await self._lower(stored, cidr, by=count):
                return
            stored = None
        raise gave_up(f"lower handle {handle_id}")

    async def lower_to(self, handle_id: str, *, cidr: IPNetwork, count: int) -> None:
        """Count no more addresses of a block than that."""
        for attempt in range(ATTEMPTS):
            await self._retries.pause(attempt)
            stored = await self.get(handle_id)
            if stored is None:
                return
            excess = dict(stored.value.blocks).get(cidr, 0) - count
            if excess <= 0 or await self._lower(stored, cidr, by=excess):
                return
        raise gave_up(f"lower handle {handle_id}")

    async def _lower(self, stored: Stored[Handle], cidr: IPNetwork, *, by: int) -> bool:
        """Write a handle that counts fewer; return False where somebody else was faster."""
        lowered = _counting(stored.value, cidr, change=-by)
        try:
            if lowered.blocks:
                await self.update(stored, lowered)
            else:
                await self.delete(stored)
        except Conflict:
            return False
        except NotFound:
            pass
        return True

    async def delete(self, stored: Stored[Handle]) -> None:
        """Delete a handle as it was seen."""
        self.forget(stored.value.id)
        name = resource_name(stored.value)
        await self._datastore.delete(Handle, name, if_revision=stored.revision)

    async def update(self, before: Stored[Handle], after: Handle) -> None:
        """Replace a handle as it was seen."""
        # Whatever happens: only an answer says what it is now.
        self.forget(after.id)
        self.remember(await self._datastore.update(after, if_revision=before.revision))


def _counting(handle: Handle, cidr: IPNetwork, *, change: int) -> Handle:
    """Return a handle that counts so many addresses of a block more."""
    return with_count(handle, cidr, dict(handle.blocks).get(cidr, 0) + change)
