"""Giving the first address of a new handle, by one write with all who ask at the same moment.

Going ahead as if nothing were left under the handle is safe because its creation is the proof.
None is the answer where it exists, where the block was passed over, or somebody else was faster;
then something may be left under the handle, and whoever asked goes the careful way.
"""

from functools import partial

from pycni.ipam import block as arithmetic
from pycni.ipam.choices import Choose
from pycni.ipam.giving import Given, assigned
from pycni.ipam.handles import Handles
from pycni.ipam.releases import Releases, undoing
from pycni.ipam.requests import AssignRequest
from pycni.ipam.retries import Retries
from pycni.ipam.together import Together
from pycni.model.resources import Block, Handle
from pycni.ports import Creation, Stored


class Firsts:
    """Gives first addresses, for one node."""

    __slots__ = ("_handles", "_node", "_releases", "_retries", "_together")

    def __init__(
        self,
        *,
        node: str,
        together: Together,
        handles: Handles,
        releases: Releases,
        retries: Retries,
    ) -> None:
        self._node = node
        self._together = together
        self._handles = handles
        self._releases = releases
        self._retries = retries

    async def give(
        self, stored: Stored[Block], choose: Choose, request: AssignRequest
    ) -> Given | None:
        """Give an address of a block to a handle that does not exist yet."""
        handle_id = request.handle_id
        given: list[Given] = []

        def decide(block: Block) -> tuple[Block, Creation] | None:
            choice = choose(block)
            if choice is None:
                return None
            after, address = choice
            number = arithmetic.sequence_number_of(after, address)
            given.append((assigned(address, number), after.affinity != self._node))
            return after, Creation(Handle(handle_id, ((after.cidr, 1),)))

        async def take_back() -> None:
            ((address, _),) = given
            planned = {address.interface.ip: address.sequence_number}
            await self._releases.take_back(stored.value.cidr, planned, handle_id)

        try:
            is_done, handle = await self._together.write(stored, decide, undo=take_back)
        except BaseException as exc:
            # Nobody knows whether the handle is ours or was left over, so it is no use to lower
            # it: all that it holds goes.
            take_all = partial(self._releases.release_by_handle, handle_id, key=request.key)
            await undoing(exc, take_all)
            raise
        if not is_done:
            return None
        self._retries.count("address-given")
        if handle is not None:
            self._handles.remember(handle)
        return given[0]

    async def clear(self, request: AssignRequest) -> None:
        """Release what is under a handle that should hold nothing: from a crash, or half done."""
        await self._releases.release_by_handle(request.handle_id, key=request.key)
