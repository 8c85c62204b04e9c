"""The crank: messages in, facts, a plan, operations out, the result kept.

One task owns all state.  A pass looks at what is dirty only; whenever in doubt the kernel is read
anew and everything is computed, by the same functions.  There is no second repair mechanism.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from pycni.agent.actor import Actor
from pycni.agent.dirty import Dirty
from pycni.agent.facts import Facts
from pycni.agent.messages import Doubt, KernelTold, Message
from pycni.agent.repairs import Repairs, goal, subject
from pycni.agent.second_look import SecondLook
from pycni.errors import EventsLost, PycniError, TryAgain
from pycni.model.bgp import Neighbour
from pycni.model.endpoints import EndpointState
from pycni.model.network import (
    Failure,
    KernelState,
    Op,
)
from pycni.plan.delta import (
    Gate,
    Plan,
    RouteConflict,
    plan,
    plan_entries,
    plan_gateways,
    plan_new_addresses,
    plan_old_addresses,
    plan_old_entries,
    plan_pod_links,
    plan_routes,
    plan_ruleset,
    plan_sysctls,
    plan_tunnels,
)
from pycni.plan.desired import (
    Desired,
    compute,
    needs_gateway,
    route,
    wanted_addresses,
    wanted_pod_sysctls,
    wanted_sysctls,
)
from pycni.plan.exports import wanted_adj_ribs_out
from pycni.plan.overlay import wanted_tunnels
from pycni.plan.ownership import Ownership, host_veths
from pycni.plan.peering import wanted_neighbours
from pycni.plan.podsysctls import host_veth_sysctls
from pycni.ports import Endpoints, Kernel, Speaker

_log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 30.0
RECORDS_WAIT_S = 10.0
"""How long sessions wait for records or Services that can't be read: only borrowed addresses and
those of Services suffer."""
GATHER_S = 0.001
BUSY_GATHER_S = 0.01
"""How long a pass waits for what comes with the first event, such as a pod's record with its
interface; longer in a series, where one pass for many events is cheaper than many passes."""
SERIES_S = 0.05


@dataclass(slots=True)
class Health:
    """What the last passes found, for `status`, /readyz and metrics."""

    failures: list[Failure] = field(default_factory=list)
    conflicts: dict[Hashable, RouteConflict] = field(default_factory=dict)
    fights: list[Hashable] = field(default_factory=list)
    has_converged: bool = False
    passes: int = 0
    full_passes: int = 0
    operations: int = 0
    last_pass_s: float = 0.0


class Reconciler:
    """Owns the facts; `post` is the only way in."""

    def __init__(
        self,
        facts: Facts,
        *,
        kernel: Kernel,
        speaker: Speaker,
        endpoints: Endpoints,
        refresh_s: float = 60.0,
        on_pass: Callable[[], None] = lambda: None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.facts = facts
        self.health = Health()
        self.want = Desired()
        self._kernel = kernel
        self._speaker = speaker
        self._actor = Actor(
            facts,
            kernel=kernel,
            endpoints=endpoints,
            post=self.post,
            put_off=lambda op: self._repairs.take_back(subject(op)),
        )
        self._refresh_s = refresh_s
        self._on_pass = on_pass
        self._clock = clock or asyncio.get_running_loop().time
        self._started = self._clock()
        # A bare one: what comes in bursts of thousands waits in it, and only one task takes it out.
        self._messages: deque[Message] = deque()
        self._has_come = asyncio.Event()
        self._repairs = Repairs()
        self._second_look = SecondLook()
        self._retry_at = inf
        self._retry_s = 0.0
        self._refresh_at = self._started
        self._last_pass_at = -inf
        self._has_heard_peers = False
        self._idle = asyncio.Event()

    def post(self, message: Message) -> None:
        """Hand over one message; it is dealt with in the order of arrival."""
        self._idle.clear()
        self._messages.append(message)
        self._has_come.set()

    async def settled(self) -> None:
        """Wait until everything posted so far has been acted upon."""
        await self._idle.wait()

    async def run(self) -> None:
        """Turn the crank until cancelled."""
        while True:
            dirty = await self._gather()
            try:
                await self.crank(dirty)
            except (PycniError, OSError) as exc:
                _log.warning("a pass failed, it will be repeated", extra={"reason": str(exc)})
                self._plan_retry()
            if not self._messages:
                self._idle.set()

    # --- when -----------------------------------------------------------------------------------

    async def _gather(self) -> Dirty:
        """Wait for work, then take all that has come up to now."""
        dirty = Dirty()
        while not dirty:
            timeout = self._next_time() - self._clock()
            try:
                async with asyncio.timeout(max(timeout, 0.0) if timeout < inf else None):
                    await self._has_come.wait()
            except TimeoutError:
                dirty.merge(self._timers())
            is_series = self._clock() - self._last_pass_at < SERIES_S
            await asyncio.sleep(BUSY_GATHER_S if is_series else GATHER_S)
            dirty.merge(self._feed_all())
            if not dirty:
                self._idle.set()
        return dirty

    def _feed_all(self) -> Dirty:
        """Learn everything that has come."""
        dirty, now = Dirty(), self._clock()
        while self._messages:
            message = self._messages.popleft()
            if isinstance(message, KernelTold):
                self._second_look.heed(message.event, now=now)
            dirty.merge(self.facts.feed(message, now=now))
        self._has_come.clear()
        return dirty

    def _next_time(self) -> float:
        now = self._clock()
        pause_at = self._repairs.next_end(now=now) or inf
        return min(
            self._refresh_at,
            self._retry_at,
            self._second_look.due_at,
            self.facts.next_deadline(),
            self._gate_opens_at(),
            pause_at,
        )

    def _timers(self) -> Dirty:
        now = self._clock()
        dirty = self.facts.expire(now=now)
        if now >= min(self._refresh_at, self._retry_at, self._second_look.due_at):
            dirty.merge(Dirty(is_all=True, is_doubtful=True))
        elif not dirty:  # a gate opened or a pause ended
            dirty.is_all = True
        return dirty

    def _gate_opens_at(self) -> float:
        """Return when the next gate opens by itself; inf when none does."""
        if self._has_heard_peers or not self.facts.has_datastore:
            return inf
        return self._gate_deadline() if self._knows_own_routes() else self._records_deadline()

    def _gate_deadline(self) -> float:
        return self._started + self.facts.inputs.settings.restart_time_s

    def _records_deadline(self) -> float:
        return self._started + RECORDS_WAIT_S

    def _knows_own_routes(self) -> bool:
        facts = self.facts
        is_known = facts.has_endpoints and facts.has_services and facts.has_secrets
        return facts.has_datastore and (is_known or self._clock() >= self._records_deadline())

    def gate(self) -> Gate:
        """Return which sources have been heard completely."""
        return Gate(
            endpoints_ready=self.facts.has_endpoints,
            blocks_ready=self.facts.has_datastore,
            learned_ready=self._has_heard_peers,
        )

    # --- one pass -------------------------------------------------------------------------------

    async def crank(self, dirty: Dirty) -> None:
        """Look at what is dirty, plan, act, and remember the outcome."""
        began = self._clock()
        neighbours = self._listen_to_peers(dirty)
        if dirty.is_doubtful or self.facts.have is None:
            await self._read_kernel()
            dirty.is_all = dirty.is_doubtful = True
        have = self.facts.have
        if have is None:
            raise TryAgain("the kernel has not been read")
        todo = self._plan_all(have) if dirty.is_all else self._plan_part(dirty, have)
        ops = self._without_fights(todo.ops)
        self._second_look.note(ops, now=self._clock())
        failures = await self._actor.perform(ops, have)
        self.facts.learn_outcome(ops, failures)
        self._conclude(todo, failures, dirty)
        if neighbours is not None:
            advertisements = wanted_adj_ribs_out(self.facts.inputs, neighbours)
            self._speaker.configure(neighbours=neighbours, advertisements=advertisements)
        self.health.passes += 1
        self.health.full_passes += dirty.is_all
        self.health.operations += len(ops)
        self._last_pass_at = self._clock()
        self.health.last_pass_s = self._last_pass_at - began
        self._on_pass()

    def _listen_to_peers(self, dirty: Dirty) -> Sequence[Neighbour] | None:
        """Open the gate for learned routes in time; return the sessions when they may be stated.

        Not before all our own routes are known: a peer that was told End-of-RIB without them drops
        those that it kept during our restart.
        """
        facts = self.facts
        if not self._knows_own_routes() or not (dirty.is_all or dirty.is_bgp or dirty.is_gate):
            return None
        neighbours = wanted_neighbours(facts.inputs)
        dirty.merge(facts.keep_peers([n.peer for n in neighbours]))
        if not self._has_heard_peers:
            is_late = self._clock() >= self._gate_deadline()
            is_known = facts.inputs.own_interface(4) is not None and facts.has_secrets
            self._has_heard_peers = is_late or (is_known and facts.rib.has_heard_all(neighbours))
            dirty.is_all |= self._has_heard_peers
        return neighbours

    async def _read_kernel(self) -> None:
        names = list(wanted_sysctls(self.facts.inputs))
        # Also when it fails: then the retry is due, and that alone.
        self._refresh_at = self._clock() + self._refresh_s
        self._second_look.begin()
        try:
            state = await self._kernel.snapshot(names)
        except EventsLost as exc:
            raise TryAgain(f"cannot read the kernel's state: {exc}") from exc
        self.facts.snapshot(state, now=self._clock())

    def _ownership(self, have: KernelState) -> Ownership:
        inputs = self.facts.inputs
        return Ownership(
            route_protocol=inputs.settings.route_protocol,
            tunnel_name=inputs.settings.tunnel_name,
            pools=frozenset(inputs.pool_history),
            host_veths=host_veths(have, recorded=inputs.host_veths),
        )

    def _plan_all(self, have: KernelState) -> Plan:
        self.want = compute(self.facts.inputs, ground=self.facts.ground())
        return plan(self.want, have, ownership=self._ownership(have), gate=self.gate())

    def _plan_part(self, dirty: Dirty, have: KernelState) -> Plan:
        """Compute and plan the dirty keys only, and the rest only when something of it is dirty."""
        inputs, want = self.facts.inputs, self.want
        ground = self.facts.ground()
        for key in dirty.keys:
            wanted = route(inputs, key, ground=ground)
            if wanted is None:
                want.routes.pop(key, None)
            else:
                want.routes[key] = wanted
        ops = self._plan_pod_links(dirty.links, have)
        if dirty.is_other:
            ops += self._plan_other(have)
        if dirty.is_neighbour:
            ops += plan_entries(want, have)
            ops += plan_old_entries(want, have) if self.gate().blocks_ready else []
        result = plan_routes(
            want.routes,
            have,
            keys=dirty.keys,
            tunnels=frozenset(want.tunnels),
            ownership=self._ownership(have),
            gate=self.gate(),
        )
        result.ops[:0] = ops  # routes need the links and addresses that they go by
        return result

    def _plan_pod_links(self, names: Iterable[str], have: KernelState) -> list[Op]:
        """Plan links, and keep the wanted sysctls true; the next look finds those that differ."""
        ready = Desired()
        for name in names:
            for key in host_veth_sysctls(name, versions=frozenset({4, 6})):
                self.want.sysctls.pop(key, None)
                have.sysctls.pop(key, None)
            endpoint = self.facts.inputs.host_veths.get(name)
            if endpoint is not None and endpoint.state is EndpointState.READY:
                self.want.sysctls |= wanted_pod_sysctls(endpoint)
                ready.pod_links[name] = endpoint.mtu
                if name in have.lost_gateways and needs_gateway(endpoint):
                    ready.gateways.add(name)
        return [*plan_pod_links(ready, have), *plan_gateways(ready, have)]

    def _plan_other(self, have: KernelState) -> list[Op]:
        inputs, want, gate = self.facts.inputs, self.want, self.gate()
        want.tunnels = wanted_tunnels(inputs)
        want.refused_devices = frozenset(inputs.refused_devices)
        want.addresses = wanted_addresses(inputs)
        want.sysctls = wanted_sysctls(inputs)
        ops = plan_tunnels(want, have)
        ops += plan_new_addresses(want, have)
        ops += plan_sysctls(want.sysctls, have.sysctls)
        ops += plan_ruleset(want, have, gate=gate)
        if gate.blocks_ready:
            ops += plan_old_addresses(want, have, ownership=self._ownership(have))
        return ops

    def _without_fights(self, ops: Iterable[Op]) -> list[Op]:
        now, routes = self._clock(), self.want.routes
        return [
            op for op in ops if self._repairs.may_repair(subject(op), goal(op, routes), now=now)
        ]

    # --- the outcome ----------------------------------------------------------------------------

    def _conclude(self, todo: Plan, failures: list[Failure], dirty: Dirty) -> None:
        now = self._clock()
        health = self.health
        if dirty.is_all:
            health.conflicts.clear()
        for key in dirty.keys:
            health.conflicts.pop(key, None)
        for conflict in todo.conflicts:
            health.conflicts[conflict.wanted.key] = conflict
        for failure in failures:
            _log.warning("the kernel refused an operation", extra={"reason": failure.message})
        if failures:
            health.failures = failures
            self._plan_retry()
        elif dirty.is_all:
            health.failures = []
            if dirty.is_doubtful:  # only a new picture shows what became of a pass that broke off
                self._retry_at, self._retry_s = inf, 0.0
            health.has_converged = self.facts.has_datastore
        self._repairs.forget_old(now=now)
        health.fights = self._repairs.fights(now=now)

    def _plan_retry(self) -> None:
        if self._clock() < self._retry_at < inf:
            return  # one is due already; further failures must not put it off
        self._retry_s = min(max(self._retry_s * 2, FIRST_RETRY_S), LAST_RETRY_S)
        self._retry_at = self._clock() + self._retry_s

    def resync(self, reason: str) -> None:
        """Ask for a full pass over a fresh picture."""
        self.post(Doubt(reason))
