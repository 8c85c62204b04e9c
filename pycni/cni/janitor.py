"""Take back what nobody holds any more: endpoints without pod, addresses without endpoint, blocks.

And what other nodes have left that are gone for good, see `pycni.ipam.gone`.

A runtime's GC brings the list of what is valid and acts at once (`pycni.cni.upkeep`).  This is for
runtimes that have none, and for what no runtime knows of any more, after a reboot for instance.  So
it is slow and careful: a suspect has to be seen twice, a period apart, is looked at again under the
endpoint's lock, and whatever shows life in the kernel stays.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pycni.cni.gateways import Gateway, gateways_in, is_idle, release
from pycni.cni.identity import NodeIdentity
from pycni.cni.removal import remove
from pycni.cni.standing import is_dead
from pycni.cni.tools import Engine
from pycni.errors import DatastoreUnusable, PycniError
from pycni.files import put
from pycni.ipam import block as arithmetic
from pycni.ipam.books import corruption_of, key_of, netns_of, node_of
from pycni.ipam.cooldown import Cooldown
from pycni.ipam.estates import Estates
from pycni.ipam.giving import assigned
from pycni.ipam.gone import Absences, Estate, estates
from pycni.ipam.own import node_labels
from pycni.ipam.pools import pool_of, turned_away
from pycni.ipam.requests import DatastoreView, View
from pycni.ipam.retries import Observe, observe_nothing
from pycni.model.endpoints import AssignedAddress, EndpointKey, WorkloadEndpoint
from pycni.model.network import IPNetwork
from pycni.model.resources import AffinityState, Block, BlockAffinity, Node, cidr_name
from pycni.plan.ownership import alias_of

_log = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PERIOD_S = 60.0
WHOLE_EVERY = 15
"""Every so many passes all nodes' blocks are read, for addresses that were borrowed."""


class Boots:
    """Tells whether the machine was started since somebody last asked, by a file on its disk."""

    def __init__(self, state_dir: Path, *, current: Path = BOOT_ID) -> None:
        self._file = state_dir / "boot-id"
        self._current = current

    def is_new(self) -> bool:
        """Tell it once for each boot; without a file it is not known, and so no.

        Nor where it can't be noted, on a full disk: requests are served all the same.
        """
        now = self._current.read_text(encoding="ascii").strip()
        try:
            before = self._file.read_text(encoding="ascii").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            before = ""
        if before != now:
            try:
                put(self._file, now.encode(), mode=0o600)
            except OSError as exc:
                _log.warning("cannot note the boot", extra={"reason": str(exc)})
                return False
        return before not in ("", now)


@dataclass(frozen=True, slots=True)
class Leak:
    """An address that says of itself that it is an endpoint's of this node."""

    key: EndpointKey
    address: AssignedAddress
    handle_id: str
    netns: str = ""
    """The network namespace of another plugin's pod."""

    def __str__(self) -> str:
        return f"{self.address.interface.ip}, held by {self.handle_id}"


@dataclass(frozen=True, slots=True)
class IdleBlock:
    """An empty block of this node, which has others in the same pool or should have none there."""

    cidr: IPNetwork

    def __str__(self) -> str:
        return f"empty block {self.cidr}"


Suspect = Leak | Gateway | IdleBlock | WorkloadEndpoint


class Janitor:
    """Looks around for one node, in the process that serves its CNI requests."""

    def __init__(
        self,
        engine: Engine,
        *,
        view: View,
        identity: NodeIdentity | None = None,
        observe: Observe = observe_nothing,
    ) -> None:
        self._engine = engine
        self._identity = identity
        self._view = view
        self._cooldown = Cooldown(view, clock_ns=time.time_ns)
        self._observe = observe
        self._seen: dict[bool, frozenset[Suspect]] = {}
        self._corrupt: frozenset[IPNetwork] = frozenset()
        self._absences = Absences(engine.node)
        self._estates = Estates(engine.datastore, view=view)

    async def run(self, *, is_new_boot: bool = False) -> None:
        """Look around until cancelled; after a reboot what has no record is gone for certain."""
        passes = 0
        while True:
            is_first = passes == 0
            try:
                await self.once(
                    is_whole=passes % WHOLE_EVERY == 0, is_certain=is_first and is_new_boot
                )
            except (PycniError, OSError) as exc:
                # The datastore's trouble is reported by whoever needs it for more than this.
                _log.info("could not look for leaks", extra={"reason": str(exc)})
            passes += 1
            await asyncio.sleep(PERIOD_S)

    async def once(self, *, is_whole: bool = True, is_certain: bool = False) -> None:
        """Look once; take back what the last look of this kind has seen, too.

        What stands under the node's name from an earlier Node is certain as well.
        """
        is_heir = await self._is_heir()
        living = self._engine.podnet.aliases()
        own = await self._view.affinities(self._engine.node)
        everything = await self._blocks(own, is_whole=is_whole)
        corrupt = {block.cidr: why for block in everything if (why := corruption_of(block))}
        self._tell_of_corrupt(corrupt, is_whole=is_whole)
        blocks = [block for block in everything if block.cidr not in corrupt]
        suspects: list[Suspect] = [
            *self._dead_endpoints(living),
            *self._leaks(blocks, living),
            *self._idle_gateways(blocks),
            *await self._idle_blocks(own, blocks),
        ]
        before = self._seen.get(is_whole, frozenset())
        self._seen[is_whole] = frozenset(suspects)
        for suspect in suspects:
            if suspect in before or ((is_certain or is_heir) and isinstance(suspect, Leak)):
                await self._collect(suspect)
        if is_heir:
            for idle in await self._idle_blocks(own, await self._blocks(own, is_whole=False)):
                await self._collect(idle)
        if is_whole:
            for cidr in await self._engine.allocator.take_up_lost():
                _log.warning("took up a block that was not advertised", extra={"block": str(cidr)})
        for estate in await self._gone_nodes(everything, is_whole=is_whole):
            await self._inherit(estate)

    async def _is_heir(self) -> bool:
        """Tell once whether the node has another identity than this machine has served under."""
        if self._identity is None:
            return False
        stored = await self._engine.datastore.get(Node, self._engine.node)
        records, complaints = self._engine.endpoints.readable()
        uid = "" if stored is None else stored.value.uid
        is_heir = self._identity.is_another(uid, has_pods=bool(records or complaints))
        if is_heir:
            _log.info("the node is a new one of its name", extra={"uid": uid})
        return is_heir

    def _tell_of_corrupt(self, found: Mapping[IPNetwork, str], *, is_whole: bool) -> None:
        """Say which blocks contradict themselves, once each time that they do."""
        for cidr in found.keys() - self._corrupt:
            _log.warning("a block is left alone", extra={"reason": found[cidr]})
        self._corrupt = frozenset(found if is_whole else self._corrupt | found.keys())

    # --- suspects -------------------------------------------------------------------------------

    def _dead_endpoints(self, living: frozenset[str]) -> list[WorkloadEndpoint]:
        """Return the records of pods whose network namespace is gone."""
        records, _ = self._engine.endpoints.readable()
        return [record for record in records if is_dead(record, living)]

    def _leaks(self, blocks: Sequence[Block], living: frozenset[str]) -> list[Leak]:
        return [
            leak
            for block in blocks
            for leak in _claimed(block, node=self._engine.node)
            if self._is_leaked(leak, living)
        ]

    def _idle_gateways(self, blocks: Sequence[Block]) -> list[Gateway]:
        held = gateways_in(blocks, node=self._engine.node)
        return [gateway for gateway in held if is_idle(self._engine, gateway)]

    async def _blocks(self, own: Sequence[BlockAffinity], *, is_whole: bool) -> list[Block]:
        datastore = self._engine.datastore
        if is_whole:
            return [stored.value for stored in (await datastore.list(Block)).items]
        read = [await datastore.get(Block, cidr_name(affinity.cidr)) for affinity in own]
        return [stored.value for stored in read if stored is not None]

    def _is_leaked(self, leak: Leak, living: frozenset[str]) -> bool:
        engine = self._engine
        try:
            has_record = engine.endpoints.get(leak.key) is not None
        except DatastoreUnusable:
            has_record = True  # a damaged one: an ADD or DEL of it decides
        return (
            not has_record
            and engine.endpoints.get_pending(leak.key) is None
            and alias_of(leak.key) not in living
            and not engine.podnet.leads_to_pod(leak.address.interface.ip)
            and not (leak.netns and Path(leak.netns).exists())
        )

    async def _idle_blocks(
        self, own: Sequence[BlockAffinity], blocks: Sequence[Block]
    ) -> list[IdleBlock]:
        """Return the node's empty blocks, but for one in each pool: the next pod wants one.

        Not of a pool that no longer means this node, or is no more.
        """
        pools = await self._view.pools()
        labels = await node_labels(self._view, pools, self._engine.node)
        # Where nobody asks for an address, nobody else notes that those released have rested.
        rested = await self._cooldown.rested()
        awake = [arithmetic.awake(block, rested=rested) for block in blocks]
        empty = {block.cidr for block in awake if arithmetic.is_empty(block)}
        owned = [
            (pool_of(pools, affinity.cidr), affinity.cidr)
            for affinity in own
            if affinity.state is AffinityState.CONFIRMED
        ]
        count = Counter(pool for pool, _ in owned)
        idle = []
        for pool, cidr in owned:
            is_spare = count[pool] > 1 or pool is None or turned_away(pool, labels)
            if is_spare and cidr in empty:
                count[pool] -= 1
                idle.append(IdleBlock(cidr))
        return idle

    async def _gone_nodes(self, blocks: Sequence[Block], *, is_whole: bool) -> list[Estate]:
        """Return what nodes have left that are gone; between looks at all, note who is there."""
        if not is_whole:
            # All nodes look each minute, and there may be many Nodes, which are large.
            self._absences.note(await self._view.nodes())
            return []
        datastore = self._engine.datastore
        listed = (await datastore.list(BlockAffinity)).items
        # From the datastore itself, and after the books: who takes something has his object soon.
        self._absences.note(await DatastoreView(datastore).nodes())
        found = estates(blocks, [stored.value for stored in listed])
        return self._absences.gone(found, now=asyncio.get_running_loop().time())

    # --- taking back ----------------------------------------------------------------------------

    async def _collect(self, suspect: Suspect) -> None:
        try:
            is_done = await self._take_back(suspect)
        except (PycniError, OSError) as exc:
            # It is a suspect still: the next look tries again.
            _log.info("could not take back", extra={"what": str(suspect), "reason": str(exc)})
            return
        if is_done:
            self._tell(str(suspect))

    async def _inherit(self, estate: Estate) -> None:
        try:
            async for what in self._estates.collect(estate):
                self._tell(what)
        except (PycniError, OSError) as exc:
            what = f"what node {estate.node} has left"
            _log.info("could not take back", extra={"what": what, "reason": str(exc)})

    def _tell(self, what: str) -> None:
        _log.warning("took back what nobody holds", extra={"what": what})
        self._observe("collected")

    async def _take_back(self, suspect: Suspect) -> bool:
        """Look again under the endpoint's lock, and take back; tell whether there was anything."""
        engine = self._engine
        if isinstance(suspect, IdleBlock):
            return await engine.allocator.release_affinity(suspect.cidr, only_if_empty=True)
        if isinstance(suspect, Gateway):
            return await release(engine, suspect)
        async with engine.endpoints.lock(suspect.key, timeout_s=0):
            living = engine.podnet.aliases()
            if isinstance(suspect, Leak):
                if not self._is_leaked(suspect, living):
                    return False
                outcome = await engine.allocator.release(
                    [suspect.address], handle_id=suspect.handle_id, was_used=True
                )
                return bool(outcome.released)
            if engine.endpoints.get(suspect.key) != suspect or not is_dead(suspect, living):
                return False
            await remove(engine, suspect)
            return True


def _claimed(block: Block, *, node: str) -> Iterator[Leak]:
    """Yield the addresses of a block that say that they are endpoints' of a node."""
    for one in arithmetic.given(block):
        key = key_of(one.attribute)
        if key is not None and node_of(one.attribute) == node:
            address = assigned(one.address, one.sequence_number)
            handle_id = one.attribute.handle_id or ""
            yield Leak(key, address, handle_id, netns_of(one.attribute) or "")
