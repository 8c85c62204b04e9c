"""Give Services their LoadBalancer addresses: one agent of all does it, the one with the Lease.

Level by level: whatever has changed, all Services are compared with what the books say that they
hold, so that a leader finds what its predecessor had begun.  Writes, in this order: a new address
in the books, the status, what the Service has lost or replaced.  What a crash leaves between them:

* an address that no status tells of: its handle is the Service's, so the next leader writes it, or
  gives it up where the Service is not to have it;
* never a status that tells of an address that others may be given;
* two leaders for a moment: both give by the same handle; one address of each IP version stays, the
  one that the status tells of.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from pycni.agent.following import RETRY_S, follow
from pycni.datastore.opening import LoadBalancing, load_balancing_of
from pycni.errors import Conflict, PycniError, ServerAway, TryAgain
from pycni.ipam import block as arithmetic
from pycni.ipam.allocator import Allocator
from pycni.ipam.block import Given
from pycni.ipam.books import sound
from pycni.ipam.giving import assigned
from pycni.ipam.pools import pool_of
from pycni.ipam.requests import AssignRequest
from pycni.ipam.retries import Sleep, asyncio_sleep
from pycni.model.endpoints import AssignedAddress
from pycni.model.network import IPAddress
from pycni.model.resources import Block, BlockAffinity, IPPool, PoolUse, cidr_name
from pycni.model.service_ranges import LOAD_BALANCER
from pycni.model.services import HANDLE_PREFIX, BalancedService
from pycni.plan.balancing import Verdict, balanced, judge, wanted_ingress
from pycni.plan.inputs import Inputs
from pycni.ports import Datastore

_log = logging.getLogger(__name__)

WHAT = "LoadBalancer addresses"
REASON = "NoLoadBalancerAddress"
RENEW_S = 4.0
STAND_S = 10.0
"""How often the others ask for the Lease: every node of a cluster does."""
LOSE_S = 10.0
"""When a leader that can't renew its Lease stops: before another one may take it."""
LOOK_S = 60.0
GATHER_S = 0.1
ATTEMPTS = 3
"""How often a Service is judged anew that somebody changes at the same time."""
LONGEST = 1000
"""How much of an Event's message an API server takes, nearly."""
NAMED = 3
"""How many Services that could not be served are named at once."""


class Balancer:
    """Stands for election while there is something to give, and gives while it leads."""

    def __init__(
        self,
        datastore: Datastore,
        cluster: LoadBalancing,
        *,
        node: str,
        report: Callable[[str, str], None],
        sleep: Sleep = asyncio_sleep,
    ) -> None:
        self._datastore = datastore
        self._cluster = cluster
        self._node = node
        self._report = report
        self._sleep = sleep
        self._allocator = Allocator(datastore, node=LOAD_BALANCER)
        self._pools: frozenset[IPPool] = frozenset()
        self._is_wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._services: Sequence[BalancedService] | None = None
        self._has_looked = False
        self._told: dict[str, str] = {}

    def look(self, inputs: Inputs) -> None:
        """Note which pools and blocks there are: mostly there is nothing to do at all."""
        ours = frozenset(balanced(inputs.pools.values()))
        if ours != self._pools:
            self._pools = ours
            self._changed.set()
        is_member = inputs.node is not None and not inputs.is_leaving
        if is_member and (ours or any(_is_balanced(one) for one in inputs.affinities.values())):
            self._is_wanted.set()
        else:
            self._is_wanted.clear()

    async def run(self) -> None:
        """Stand for election, and serve, until cancelled."""
        while True:
            await self._is_wanted.wait()
            try:
                if await self._cluster.lead(self._node):
                    _log.info("this agent gives Services their LoadBalancer addresses")
                    await self._serve()
                self._report(WHAT, "")
            except PycniError as exc:
                self._report(WHAT, str(exc))
            await self._sleep(STAND_S)

    async def _serve(self) -> None:
        """Serve until the Lease is somebody else's, or may be."""
        self._services = None
        self._has_looked = False
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._follow(), name="balancer-follow"),
                group.create_task(self._settle(), name="balancer-settle"),
            ]
            await self._hold()
            for task in tasks:
                task.cancel()

    async def _hold(self) -> None:
        clock = asyncio.get_running_loop().time
        renewed_at = clock()
        while self._is_wanted.is_set() and clock() - renewed_at < LOSE_S:
            await self._sleep(RENEW_S)
            try:
                async with asyncio.timeout(LOSE_S - RENEW_S):
                    if not await self._cluster.lead(self._node):
                        return
                renewed_at = clock()
            except (PycniError, TimeoutError) as exc:
                _log.warning("cannot renew the Lease", extra={"reason": str(exc)})

    async def _follow(self) -> None:
        def heed(services: Sequence[BalancedService]) -> None:
            self._services = services
            self._changed.set()

        source = self._cluster.services
        await follow(WHAT, source, heed=heed, report=self._report, sleep=self._sleep)

    async def _settle(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            await self._sleep(GATHER_S)
            self._changed.clear()
            if self._services is None:
                continue
            try:
                if not self._has_looked:
                    # A block that a crash left without affinity is found by its affinity then.
                    await self._allocator.take_up_lost()
                    self._has_looked = True
                await self._settle_all(self._services)
                self._report(WHAT, "")
            except PycniError as exc:
                self._report(WHAT, str(exc))
                await self._sleep(RETRY_S)
                self._changed.set()

    # --- one look at everything -----------------------------------------------------------------

    async def _settle_all(self, services: Sequence[BalancedService]) -> None:
        """Compare all Services with the books; one that fails keeps nobody from being served."""
        pools = [stored.value for stored in (await self._datastore.list(IPPool)).items]
        affinities = await self._affinities()
        held = await self._held(affinities)
        # First what others can be given then.
        for handle_id in held.keys() - {one.handle_id for one in services}:
            await self._release_orphan(handle_id, held[handle_id])
        errors = []
        for service in sorted(services, key=lambda one: one.name):
            own = held.get(service.handle_id, ())
            try:
                if service.is_ours or own:
                    await self._settle_anew(service, own, pools)
            except PycniError as exc:
                errors.append(f"Service {service.name}: {exc}")
        await self._give_up(affinities, pools)
        names = {one.name for one in services}
        self._told = {name: text for name, text in self._told.items() if name in names}
        if errors:
            raise TryAgain("; ".join(errors[:NAMED]))

    async def _give_up(self, affinities: Sequence[BlockAffinity], pools: Sequence[IPPool]) -> None:
        """Give up empty blocks of pools that are gone: with the last one there is nothing to lead.

        Nobody else does: their owner is no node.
        """
        ours = balanced(pools)
        for affinity in affinities:
            if pool_of(ours, affinity.cidr) is None:
                await self._allocator.release_affinity(affinity.cidr, only_if_empty=True)

    async def _held(self, affinities: Sequence[BlockAffinity]) -> dict[str, tuple[Given, ...]]:
        """Return what each handle of a Service holds, by the blocks themselves."""
        found: dict[str, tuple[Given, ...]] = {}
        for block in sound(await self._blocks(affinities)):
            for one in arithmetic.given(block) if block.affinity == LOAD_BALANCER else ():
                handle_id = one.attribute.handle_id or ""
                if handle_id.startswith(HANDLE_PREFIX):
                    found[handle_id] = (*found.get(handle_id, ()), one)
        return found

    async def _blocks(self, affinities: Sequence[BlockAffinity]) -> list[Block]:
        """Read the blocks from which Services have addresses, and no node's: there are many."""
        found = []
        for affinity in affinities:
            stored = await self._datastore.get(Block, cidr_name(affinity.cidr))
            if stored is not None:
                found.append(stored.value)
        return found

    async def _affinities(self) -> list[BlockAffinity]:
        listing = await self._datastore.list(BlockAffinity)
        return [stored.value for stored in listing.items if _is_balanced(stored.value)]

    async def _settle_anew(
        self, service: BalancedService, held: Sequence[Given], pools: Sequence[IPPool]
    ) -> None:
        """Settle a Service; read it again where it is not as it was told.

        What does not matter for its addresses, such as a label, is not told of.
        """
        for _ in range(ATTEMPTS):
            try:
                return await self._settle_one(service, held, pools)
            except Conflict:
                there = await self._cluster.service(service.name)
            if there is None or there.handle_id != service.handle_id:
                await self._allocator.release_by_handle(service.handle_id)
                return None
            service = there
            held = (await self._held(await self._affinities())).get(service.handle_id, ())
        raise TryAgain("somebody else changes it all the time")

    async def _settle_one(
        self, service: BalancedService, held: Sequence[Given], pools: Sequence[IPPool]
    ) -> None:
        verdict = judge(service, held, pools)
        given, faults = await self._give(service, verdict)
        versions = {one.interface.version for one in given}
        replaced = [one for one in verdict.yields if one.address.version in versions]
        stays = [one for one in (*verdict.keeps, *verdict.yields) if one not in replaced]
        has = [*(one.address for one in stays), *(one.interface.ip for one in given)]
        if service.requires_all and faults:
            has = [address for address in has if address in service.ingress]
        ingress = wanted_ingress(service, has, lost=verdict.loses, pools=pools)
        goes = [*verdict.loses, *replaced]
        if ingress != service.ingress:
            await self._cluster.set_ingress(service, ingress)
        elif goes:
            await self._require_unnamed(service, goes)
        # Last: until then somebody may still send to it.
        await self._release(service, goes)
        await self._tell(service, "; ".join(faults))

    async def _give(
        self, service: BalancedService, verdict: Verdict
    ) -> tuple[list[AssignedAddress], list[str]]:
        """Assign what it is to get; return that, and what keeps it from getting more."""
        given: list[AssignedAddress] = []
        faults = [verdict.fault] if verdict.fault else []
        for want in verdict.wants:
            try:
                given.append(await self._assign(service, want))
            except PycniError as exc:
                faults.append(str(exc))
        if service.requires_all and faults and given:
            await self._allocator.release(given, handle_id=service.handle_id)
            return [], faults
        return given, faults

    async def _require_unnamed(self, service: BalancedService, given: Sequence[Given]) -> None:
        """Raise `Conflict` where a status tells of an address now, whatever it did when told of."""
        there = await self._cluster.service(service.name)
        if there is not None and {one.address for one in given} & set(there.ingress):
            raise Conflict(f"the status of Service {service.name} tells of more")

    async def _release(self, service: BalancedService, given: Sequence[Given]) -> None:
        if given:
            addresses = [assigned(one.address, one.sequence_number) for one in given]
            await self._allocator.release(addresses, handle_id=service.handle_id)

    async def _assign(self, service: BalancedService, want: IPAddress | int) -> AssignedAddress:
        namespace, _, name = service.name.partition("/")
        now = datetime.now(UTC).isoformat(" ", "microseconds").removesuffix("+00:00")
        request = AssignRequest(
            handle_id=service.handle_id,
            attributes=(
                ("namespace", namespace),
                ("service", name),
                ("timestamp", f"{now} +0000 UTC"),
                ("type", "LoadBalancer"),
            ),
            versions=(want,) if isinstance(want, int) else (),
            addresses=() if isinstance(want, int) else (want,),
            # Of the other version none: they may be wrong, which does not matter.
            ipv4_pools=service.ipv4_pools if want == 4 else (),
            ipv6_pools=service.ipv6_pools if want == 6 else (),
            use=PoolUse.LOAD_BALANCER,
        )
        (one,) = (await self._allocator.assign(request)).addresses
        _log.info(
            "a Service has an address",
            extra={"service": service.name, "address": str(one.interface.ip)},
        )
        return one

    async def _release_orphan(self, handle_id: str, given: Sequence[Given]) -> None:
        """Take back what a Service held that is gone: asked once more, for it may be new."""
        said = dict(given[0].attribute.secondary)
        name = f"{said.get('namespace', '')}/{said.get('service', '')}"
        there = await self._cluster.service(name)
        if there is None or there.handle_id != handle_id:
            await self._allocator.release_by_handle(handle_id)

    async def _tell(self, service: BalancedService, fault: str) -> None:
        """Make an Event, once for each fault; one that is refused is not tried again.

        A namespace takes none while it is deleted, and its Service is still there.
        """
        if fault and self._told.get(service.name) != fault:
            try:
                await self._cluster.warn(service, reason=REASON, message=fault[:LONGEST])
            except ServerAway:
                raise
            except PycniError as exc:
                _log.warning(
                    "cannot make an Event", extra={"service": service.name, "reason": str(exc)}
                )
        self._told[service.name] = fault


def balancer_of(
    datastore: Datastore, *, node: str, report: Callable[[str, str], None]
) -> Balancer | None:
    """Return what gives Services of a datastore's cluster their addresses; None: it is in none."""
    cluster = load_balancing_of(datastore)
    return None if cluster is None else Balancer(datastore, cluster, node=node, report=report)


def _is_balanced(affinity: BlockAffinity) -> bool:
    return affinity.node == LOAD_BALANCER
