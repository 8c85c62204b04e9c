"""Blocks in a datastore, and what each was when it was last seen.

Reading and decoding a block costs more than giving an address of it, and hardly anybody else
writes to a node's blocks.  So whoever decides on a block may begin with what is remembered: the
write compares revisions, and where somebody else was faster, `Conflict` or `NotFound` says so.
Whoever learns that there is nothing to write looks at the truth first.
"""

from pycni.ipam.soundness import verify
from pycni.ipam.turns import Turns
from pycni.model.network import IPNetwork
from pycni.model.resources import Block, cidr_name
from pycni.ports import Datastore, Stored

# More than a node may own by default (20), and a few of others.
_REMEMBERED = 64


class Blocks:
    """Reads and writes blocks, and remembers the latest."""

    __slots__ = ("_datastore", "_known", "turns")

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self.turns = Turns[IPNetwork]()
        self._known: dict[IPNetwork, Stored[Block]] = {}

    async def get(self, cidr: IPNetwork) -> Stored[Block] | None:
        """Return a block that does not contradict itself, or None: the truth."""
        stored = await self._datastore.get(Block, cidr_name(cidr))
        if stored is None:
            self.forget(cidr)
            return None
        verify(stored.value)
        return self.remember(stored)

    def recall(self, cidr: IPNetwork) -> Stored[Block] | None:
        """Return a block as it was last seen here; None when it has not been."""
        return self._known.get(cidr)

    def remember(self, stored: Stored[Block]) -> Stored[Block]:
        """Note a block as it was just read or written."""
        self._known[stored.value.cidr] = stored
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        return stored

    def forget(self, cidr: IPNetwork) -> None:
        """Note that only the datastore knows what a block is now."""
        self._known.pop(cidr, None)

    async def create(self, block: Block) -> None:
        """Create a block; raise `AlreadyExists` when somebody else has."""
        self.remember(await self._datastore.create(block))

    async def update(self, before: Stored[Block], after: Block) -> None:
        """Replace a block; raise `Conflict` or `NotFound` when it is not as before any more."""
        # Whatever happens: only an answer says what it is now.
        self.forget(after.cidr)
        self.remember(await self._datastore.update(after, if_revision=before.revision))

    async def delete(self, before: Stored[Block]) -> None:
        """Delete a block; raise `Conflict` or `NotFound` when it is not as before any more."""
        cidr = before.value.cidr
        self.forget(cidr)
        await self._datastore.delete(Block, cidr_name(cidr), if_revision=before.revision)
