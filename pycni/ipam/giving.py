"""Giving one address of one block: raise the handle, swap the block, undo where that fails.

The mirror of `pycni.ipam.releases`; the usual, first address of a handle is given by
`pycni.ipam.firsts` instead.  What a crash between the two writes leaves is a handle that counts
one too many.
"""

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
        chosen = choose(stored.value)
        if chosen is None:
            return None
        cidr = stored.value.cidr
        # The address that may have been written, for the case that we never hear the answer.
        planned: dict[IPAddress, int | None] = {}
        try:
            await self._handles.increment(handle_id, cidr=cidr)
            if given := await self._swap(stored, chosen, choose, planned):
                return given
        except BaseException as exc:
            await undoing(exc, self._releases.take_back(cidr, planned, handle_id))
            raise
        try:
            await self._handles.decrement(handle_id, cidr=cidr, count=1)
        except BaseException as exc:
            # Done or not: by what the block says it can be repeated.
            await undoing(exc, self._releases.recount(handle_id, cidr))
            raise
        return None

    async def _swap(
        self,
        first: Stored[Block],
        first_choice: tuple[Block, IPAddress],
        choose: Choose,
        planned: dict[IPAddress, int | None],
    ) -> Given | None:
        stored: Stored[Block] | None = first
        chosen: tuple[Block, IPAddress] | None = first_choice
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._retries.pause(attempt)
                stored = await self._blocks.get(first.value.cidr)
                chosen = None if stored is None else choose(stored.value)
            if stored is None or chosen is None:
                return None
            after, address = chosen
            planned[address] = arithmetic.sequence_number_of(after, address)
            try:
                await self._blocks.update(stored, after)
            except (Conflict, NotFound):
                planned.clear()
                continue
            self._retries.count("block-written")
            self._retries.count("address-given")
            return assigned(address, planned[address]), after.affinity != self._node
        raise gave_up(f"assign from block {first.value.cidr}")


def assigned(address: IPAddress, sequence_number: int | None) -> AssignedAddress:
    """Return an address as a pod gets it: alone in its subnet."""
    # As a number: otherwise `ipaddress` writes the address as text and reads that twice.
    number = int(address)
    is_v4 = isinstance(address, IPv4Address)
    interface = IPv4Interface(number) if is_v4 else IPv6Interface(number)
    return AssignedAddress(interface, sequence_number)
