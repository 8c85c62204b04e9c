"""Perform what was planned: on a pod's interface only under that endpoint's lock.

An engine in another process may be in the middle of an ADD or a DEL.  What the kernel shows then
is neither wanted nor wrong, and what is known of the record may be older than what is being done.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

from pycni.agent.facts import Facts
from pycni.agent.messages import EndpointChanged, LookAgain, Message
from pycni.errors import DatastoreUnusable, TryAgain
from pycni.model.endpoints import EndpointKey, EndpointState, WorkloadEndpoint
from pycni.model.network import (
    AddAddress,
    AddRoute,
    DeleteRoute,
    Failure,
    KernelState,
    Op,
    ReplaceRoute,
    Route,
    SetLink,
    SetSysctl,
)
from pycni.plan.mirror import apply_op
from pycni.plan.ownership import key_of_alias
from pycni.plan.podsysctls import interface_of
from pycni.ports import Endpoints, Kernel

LOCKED_RETRY_S = 0.1


class Actor:
    """Owns the way from operations to the kernel, and to the picture of it."""

    def __init__(
        self,
        facts: Facts,
        *,
        kernel: Kernel,
        endpoints: Endpoints,
        post: Callable[[Message], None],
        put_off: Callable[[Op], None],
    ) -> None:
        self._facts = facts
        self._kernel = kernel
        self._endpoints = endpoints
        self._post = post
        self._put_off = put_off

    async def perform(self, ops: Iterable[Op], have: KernelState) -> list[Failure]:
        """Perform operations in their order, pods' interfaces last; return what was refused."""
        plain: list[Op] = []
        of_pods: dict[str, list[Op]] = {}
        for op in ops:
            name = self._pod_interface(op)
            (of_pods.setdefault(name, []) if name else plain).append(op)
        failures = await self._apply(plain, have)
        for name, some in of_pods.items():
            failures += await self._perform_on_pod(name, some, have)
        return failures

    def _pod_interface(self, op: Op) -> str:
        """Return the host interface of the pod that an operation is about, or an empty text."""
        host_veths = self._facts.inputs.host_veths
        route = _route_of(op)
        if route is not None:
            name = _direct_interface(route)
            # What is to be deleted may be of a pod without a record.
            return name if name in host_veths or isinstance(op, DeleteRoute) else ""
        name = _interface_set_by(op)
        return name if name in host_veths else ""

    async def _perform_on_pod(
        self, name: str, ops: Sequence[Op], have: KernelState
    ) -> list[Failure]:
        key = self._key_behind(name, have)
        if key is None:
            return await self._apply(ops, have)
        async with contextlib.AsyncExitStack() as held:
            try:
                await held.enter_async_context(self._endpoints.lock(key, timeout_s=0))
                record = self._endpoints.get(key)
            except TryAgain:
                self._put_off_all(ops)
                return []
            except DatastoreUnusable:
                return []  # the watch of the records reports it; what can't be judged is left alone
            wanted = [op for op in ops if _is_still_wanted(op, record)]
            failures = await self._apply(wanted, have)
            if len(wanted) < len(ops):
                self._post(EndpointChanged(key, record))
            return failures

    def _put_off_all(self, ops: Sequence[Op]) -> None:
        # Whoever holds the lock mostly changes the record, which brings us here; or it dies.
        for op in ops:
            self._put_off(op)
        loop = asyncio.get_running_loop()
        loop.call_later(LOCKED_RETRY_S, self._post, _look_again(ops))

    def _key_behind(self, name: str, have: KernelState) -> EndpointKey | None:
        link = have.links.get(name)
        key = key_of_alias(link.alias) if link is not None else None
        if key is not None:
            return key
        endpoint = self._facts.inputs.host_veths.get(name)
        return endpoint.key if endpoint is not None else None

    async def _apply(self, ops: Sequence[Op], have: KernelState) -> list[Failure]:
        if not ops:
            return []
        failures = list(await self._kernel.apply(ops))
        failed = {f.op for f in failures}
        # To hash an operation takes longer than all the rest here, and hardly ever does one fail.
        for op in ops if not failed else (op for op in ops if op not in failed):
            apply_op(have, op)
        return failures


def _direct_interface(route: Route) -> str:
    """Return the one interface by which a route leaves without a gateway, or an empty text."""
    hops = tuple(route.next_hops)
    return hops[0].oif if len(hops) == 1 and hops[0].gateway is None else ""


def _interface_set_by(op: Op) -> str:
    match op:
        case SetLink():
            return op.name
        case AddAddress():
            return op.address.ifname
        case SetSysctl():
            return interface_of(op.name)
        case _:
            return ""


def _look_again(ops: Iterable[Op]) -> LookAgain:
    return LookAgain(
        keys=frozenset(route.key for op in ops if (route := _route_of(op)) is not None),
        links=frozenset(name for op in ops if (name := _interface_set_by(op))),
    )


def _route_of(op: Op) -> Route | None:
    match op:
        case AddRoute() | DeleteRoute():
            return op.route
        case ReplaceRoute():
            return op.new
        case _:
            return None


def _is_still_wanted(op: Op, record: WorkloadEndpoint | None) -> bool:
    """Judge an operation again by the record as it is under the lock."""
    state = record.state if record is not None else None
    holds = {a.interface.ip for a in record.addresses} if record is not None else set()
    route = _route_of(op)
    is_held = route is not None and route.key.dst.network_address in holds
    if isinstance(op, DeleteRoute):
        return not (state is EndpointState.INTENT or is_held)
    return state is EndpointState.READY and (is_held or route is None)
