"""Leave the network for good: withdraw first, then give back all that is under this node's name.

`Registration` does one or the other, so nothing here runs beside it.  Each step can be repeated,
and a restarted agent begins with the first: the wish is a file (`pycni.leaving`), and what is done
already is found done.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Any

from pycni.errors import InvalidInput, PycniError, TryAgain
from pycni.ipam.allocator import Allocator
from pycni.ipam.estates import Estates
from pycni.ipam.gone import Estate, estates
from pycni.ipam.requests import DatastoreView
from pycni.ipam.retries import Sleep, asyncio_sleep
from pycni.ipam.tunnel import tunnel_handle
from pycni.leaving import LeaveWish
from pycni.model.endpoints import pod_of
from pycni.model.network import IPAddress
from pycni.model.resources import Block, BlockAffinity
from pycni.model.tunnels import TunnelKind
from pycni.ports import Datastore, Endpoints

_log = logging.getLogger(__name__)

WITHDRAW_TIMEOUT_S = 10.0
"""How long peers that are down are waited for: those that come back drop the routes at once."""
LOOK_S = 0.05
ON_THE_WAY_S = 0.5
"""Between the moment at which ExaBGP writes a withdrawal and that at which a peer has obeyed it."""
ROUNDS = 5
NAMED = 10


class Standing(Enum):
    """How this node stands to the network."""

    MEMBER = "member"
    LEAVING = "leaving"
    LEFT = "left"


class Departure:
    """Knows how this node stands, and brings about that it leaves.

    `changed` is called with the new wish, `untold` answers which peers weren't told yet that this
    node announces nothing, or raises `TryAgain` while that isn't known.
    """

    def __init__(
        self,
        datastore: Datastore,
        allocator: Allocator,
        endpoints: Endpoints,
        *,
        node: str,
        wish: LeaveWish,
        changed: Callable[[bool], None],
        untold: Callable[[], Awaitable[Sequence[IPAddress]]],
        report: Callable[[str, str], None],
        retract: Callable[[], Awaitable[None]] | None = None,
        sleep: Sleep = asyncio_sleep,
    ) -> None:
        self._datastore = datastore
        self._allocator = allocator
        self._endpoints = endpoints
        self._node = node
        self._wish = wish
        self._changed = changed
        self._ask_untold = untold
        self._report = report
        self._retract = retract
        self._sleep = sleep
        self._estates = Estates(datastore, view=DatastoreView(datastore), leaving=node)
        self._untold: Sequence[IPAddress] = ()
        self._standing = Standing.MEMBER
        self._stand(Standing.LEAVING if wish.is_there() else Standing.MEMBER)

    @property
    def is_wanted(self) -> bool:
        """Tell whether this node is to be out of the network."""
        return self._standing is not Standing.MEMBER

    def said(self) -> dict[str, Any]:
        """Return how the node stands, for `pycnictl`."""
        return {
            "node": self._node,
            "state": self._standing.value,
            "untold": [str(peer) for peer in self._untold],
        }

    # --- wishes ---------------------------------------------------------------------------------

    def leave(self) -> None:
        """Begin to leave, unless pods are here."""
        is_new = not self._wish.is_there()
        self._require_empty()
        try:
            self._wish.keep()
            self._require_empty()  # an ADD may have looked for the wish just before
        except PycniError:
            if is_new:  # half written it is there as well
                self._wish.drop()
            raise
        if not self.is_wanted:
            self._stand(Standing.LEAVING)
        self._changed(True)

    def join(self) -> None:
        """Be a member again, from wherever leaving has come to."""
        self._wish.drop()
        self._untold = ()
        self._stand(Standing.MEMBER)
        self._changed(False)

    def _require_empty(self) -> None:
        records, complaints = self._endpoints.readable()
        if complaints:
            raise InvalidInput(f"cannot tell which pods are here: {'; '.join(complaints)}")
        if records:
            names = sorted({pod_of(one) for one in records})
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            raise InvalidInput(
                f"node {self._node} can't leave while pods are here: {', '.join(names[:NAMED])}"
                f"{more}. Have them deleted (in Kubernetes: kubectl drain {self._node}"
                " --ignore-daemonsets --delete-emptydir-data, and for those of DaemonSets"
                f" kubectl taint nodes {self._node} leaving=:NoExecute), then say it again"
            )

    # --- leaving --------------------------------------------------------------------------------

    async def give_up(self) -> None:
        """Withdraw, wait until peers have heard it, and give back blocks and addresses.

        Who joins meanwhile keeps what is his by then.
        """
        self._require_empty()
        if self._standing is Standing.LEAVING:  # else it is told, and others' nodes have changed
            await self._withdraw()
        await self._give_back()
        if not self.is_wanted:
            return
        # A crash between block and handle leaves one that counts too much.
        for kind in TunnelKind:
            await self._allocator.release_by_handle(tunnel_handle(self._node, kind))
        if self._retract is not None:
            await self._retract()

    async def _give_back(self) -> None:
        for _ in range(ROUNDS):
            estate = await self._estate()
            # After the look: what it has seen of a pod that came since is that pod's.
            if estate is None or not self.is_wanted:
                return
            async for what in self._estates.collect(estate):
                _log.info("gave back", extra={"what": what})
        raise TryAgain(f"node {self._node} is given addresses while it leaves: trying again")

    def conclude(self) -> None:
        """Note that nothing is left, unless somebody has changed his mind meanwhile."""
        if self.is_wanted:
            self._stand(Standing.LEFT)

    async def _withdraw(self) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + WITHDRAW_TIMEOUT_S
        self._untold = await self._ask_untold()
        while self._untold and self.is_wanted and clock() < end:
            await self._sleep(LOOK_S)
            self._untold = await self._ask_untold()
        if not self.is_wanted:
            self._untold = ()
            return
        if self._untold:
            peers = ", ".join(map(str, self._untold))
            _log.warning("leaving without telling peers that are down", extra={"peers": peers})
        await self._sleep(ON_THE_WAY_S)

    async def _estate(self) -> Estate | None:
        affinities = (await self._datastore.list(BlockAffinity)).items
        blocks = (await self._datastore.list(Block)).items
        found = estates([one.value for one in blocks], [one.value for one in affinities])
        return found.get(self._node)

    def _stand(self, standing: Standing) -> None:
        if standing is not self._standing:
            _log.info("how this node stands", extra={"state": standing.value})
        self._standing = standing
        self._report("membership", _TROUBLES[standing])


_TROUBLES = {
    Standing.MEMBER: "",
    Standing.LEAVING: "this node is leaving the network for good, and no pod gets an address here",
    Standing.LEFT: (
        "this node has left the network, and no pod gets an address here:"
        " `pycnictl node join` takes it back"
    ),
}
