"""Giving one address of one block: raise the handle, swap the block, undo where that fails.

The mirror of `pycni.ipam.releases`; the usual, first address of a handle is given by
`pycni.ipam.firsts` instead.  What a crash between the two writes leaves is a handle that counts
one too many.
"""

from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface

from pycni.errors import Conflict, NotFound
from pycni.ipam import block as arithmetic
from pycni.ipam.blocks import Blocks
from pycni.ipam.choices import Choose
from pycni.ipam.handles import Handles
from pycni.ipam.releases import Releases, undoing
from pycni.ipam.retries import ATTEMPTS, Retries, gave_up
from pycni.model.endpoints import AssignedAddress
from pycni.model.network import IPAddress
from pycni.model.resources import Block
from pycni.ports import Stored

# An address, and whether it is borrowed from another node's block.
Given = tuple[AssignedAddress, bool]


class Giving:
    """Writes what was chosen, for one node."""

    __slots__ = ("_blocks", "_handles", "_node", "_releases", "_retries")

    def __init__(
        self,
        *,
        node: str,
        blocks: Blocks,
        handles: Handles,
        releases: Releases,
        retries: Retries,
    ) -> None:
        self._node = node
        self._blocks = blocks
        self._handles = handles
        self._releases = releases
        self._retries = retries

    async def give(self, stored: Stored[Block], choose: Choose, handle_id: str) -> Given | None:
        """Give what `choose` decides; None when it passes the block over."""
        cidr = stored.value.cidr
        # The address that may have been written, for the case that we never hear the answer.
        planned: dict[IPAddress, int | None] = {}
        try:
            given, is_counted = await self._swap(stored, choose, handle_id, planned)
        except BaseException as exc:
            await undoing(exc, partial(self._releases.take_back, cidr, planned, handle_id))
            raise
        if given is not None or not is_counted:
            return given
        try:
            await self._handles.decrement(handle_id, cidr=cidr, count=1)
        except BaseException as exc:
            # Done or not: by what the block says it can be repeated.
            await undoing(exc, partial(self._releases.recount, handle_id, cidr))
            raise
        return None

    async def _swap(
        self,
        first: Stored[Block],
        choose: Choose,
        handle_id: str,
        planned: dict[IPAddress, int | None],
    ) -> tuple[Given | None, bool]:
        """Return what was given, and whether the handle counts it, or counts one too many."""
        cidr = first.value.cidr
        for attempt in range(ATTEMPTS):
            await self._retries.pause(attempt)
            async with self._blocks.turns.at(cidr):
                # Whoever had the turn before has left what it wrote.
                stored = (
                    await self._blocks.get(cidr) if attempt else self._blocks.recall(cidr) or first
                )
                chosen = None if stored is None else choose(stored.value)
                if stored is None or chosen is None:
                    return None, attempt > 0
                if attempt == 0:
                    # In turn: a burst that finds the block full would make handles in vain.
                    await self._handles.increment(handle_id, cidr=cidr)
                after, address = chosen
                planned[address] = arithmetic.sequence_number_of(after, address)
                try:
                    await self._blocks.update(stored, after)
                except (Conflict, NotFound):
                    planned.clear()
                    continue
            self._retries.count("block-written")
            self._retries.count("address-given")
            return (assigned(address, planned[address]), after.affinity != self._node), True
        raise gave_up(f"assign from block {cidr}")


def assigned(address: IPAddress, sequence_number: int | None) -> AssignedAddress:
    """Return an address as a pod gets it: alone in its subnet."""
    # As a number: otherwise `ipaddress` writes the address as text and reads that twice.
    number = int(address)
    is_v4 = isinstance(address, IPv4Address)
    interface = IPv4Interface(number) if is_v4 else IPv6Interface(number)
    return AssignedAddress(interface, sequence_number)
