"""Take back what nobody holds any more: endpoints without pod, addresses without endpoint, blocks.

And what other nodes have left that are gone for good, see `pycni.ipam.gone`.

A runtime's GC brings the list of what is valid and acts at once (`pycni.cni.upkeep`).  This is for
runtimes that have none, and for what no runtime knows of any more, after a reboot for instance.  So
it is slow and careful: a suspect has to be seen twice, a period apart, is looked at again under the
endpoint's lock, and whatever shows life in the kernel stays.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pycni.cni.engine import remove
from pycni.cni.gateways import Gateway, gateways_in, is_idle, release
from pycni.cni.tools import Engine
from pycni.errors import DatastoreUnusable, PycniError
from pycni.ipam import block as arithmetic
from pycni.ipam.books import corruption_of, key_of, node_of, sound
from pycni.ipam.estates import Estates
from pycni.ipam.giving import assigned
from pycni.ipam.gone import Absences, Estate, estates
from pycni.ipam.own import node_labels
from pycni.ipam.pools import pool_of, turned_away
from pycni.ipam.requests import View
from pycni.ipam.retries import Observe, observe_nothing
from pycni.kernel.netns import is_gone
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
        """Tell it once for each boot; without a file it is not known, and so no."""
        now = self._current.read_text(encoding="ascii").strip()
        try:
            before = self._file.read_text(encoding="ascii").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            before = ""
        if before != now:
            new = self._file.with_suffix(".new")
            new.write_text(now, encoding="ascii")
            new.replace(self._file)
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
        observe: Observe = observe_nothing,
    ) -> None:
        self._engine = engine
        self._view = view
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
        """Look once; take back what the last look of this kind has seen, too."""
        living = self._engine.podnet.aliases()
        own = await self._view.affinities(self._engine.node)
        everything = await self._blocks(own, is_whole=is_whole)
        self._tell_of_corrupt(everything, is_whole=is_whole)
        blocks = sound(everything)
        suspects: list[Suspect] = [
            *self._dead_endpoints(living),
            *self._leaks(blocks, living),
            *self._idle_gateways(blocks),
            *await self._idle_blocks(own, blocks),
        ]
        before = self._seen.get(is_whole, frozenset())
        self._seen[is_whole] = frozenset(suspects)
        for suspect in suspects:
            if suspect in before or (is_certain and isinstance(suspect, Leak)):
                await self._collect(suspect)
        if is_whole:
            for cidr in await self._engine.allocator.take_up_lost():
                _log.warning("took up a block that was not advertised", extra={"block": str(cidr)})
        for estate in await self._gone_nodes(everything, is_whole=is_whole):
            await self._inherit(estate)

    def _tell_of_corrupt(self, blocks: Sequence[Block], *, is_whole: bool) -> None:
        """Say which blocks contradict themselves, once each time that they do."""
        found = {block.cidr: why for block in blocks if (why := corruption_of(block))}
        for cidr in found.keys() - self._corrupt:
            _log.warning("a block is left alone", extra={"reason": found[cidr]})
        self._corrupt = frozenset(found if is_whole else self._corrupt | found.keys())

    # --- suspects -------------------------------------------------------------------------------

    def _dead_endpoints(self, living: frozenset[str]) -> list[WorkloadEndpoint]:
        """Return the records of pods whose network namespace is gone."""
        records, _ = self._engine.endpoints.readable()
        return [record for record in records if _is_dead(record, living)]

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

        Not of a pool that no longer means this node.
        """
        pools = await self._view.pools()
        labels = await node_labels(self._view, pools, self._engine.node)
        empty = {block.cidr for block in blocks if arithmetic.is_empty(block)}
        owned = [
            (pool_of(pools, affinity.cidr), affinity.cidr)
            for affinity in own
            if affinity.state is AffinityState.CONFIRMED
        ]
        count = Counter(pool for pool, _ in owned)
        idle = []
        for pool, cidr in owned:
            is_spare = count[pool] > 1 or (pool is not None and turned_away(pool, labels))
            if is_spare and cidr in empty:
                count[pool] -= 1
                idle.append(IdleBlock(cidr))
        return idle

    async def _gone_nodes(self, blocks: Sequence[Block], *, is_whole: bool) -> list[Estate]:
        """Return what nodes have left that are gone; between looks at all, note who is there."""
        datastore = self._engine.datastore
        listed = (await datastore.list(BlockAffinity)).items if is_whole else ()
        # From the datastore itself, and after the books: who takes something has his object soon.
        nodes = frozenset([stored.value.name for stored in (await datastore.list(Node)).items])
        self._absences.note(nodes)
        if not is_whole:
            return []
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
            if engine.endpoints.get(suspect.key) != suspect or not _is_dead(suspect, living):
                return False
            await remove(engine, suspect)
            return True


def _is_dead(record: WorkloadEndpoint, living: frozenset[str]) -> bool:
    if not record.has_interface:
        return is_gone(record)
    # A path may be out of sight from here; a pair of ours lives as long as its namespace.
    return alias_of(record.key) not in living and not Path(record.netns).exists()


def _claimed(block: Block, *, node: str) -> Iterator[Leak]:
    """Yield the addresses of a block that say that they are endpoints' of a node."""
    for one in arithmetic.given(block):
        key = key_of(one.attribute)
        if key is not None and node_of(one.attribute) == node:
            address = assigned(one.address, one.sequence_number)
            handle_id = one.attribute.handle_id or ""
            netns = dict(one.attribute.secondary).get("netns", "")
            yield Leak(key, address, handle_id, netns)
