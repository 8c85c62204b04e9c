"""What both engines share: the steps of ADD and DEL, with undo.

The CNI server and the in-process engine run these same functions over the same files, locks and
datastore.  Order is everything here: the intent record is written before the first effect, each
step that took effect is undone when a later one fails, and a DEL goes on past errors and keeps in
the journal what it could not release.  Every step may be the last one before a crash; the record
then tells the next ADD, DEL, GC or the agent what may have been left behind.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pycni.cni import delegated, gateways
from pycni.cni.debts import settle
from pycni.cni.netconf import Subnet
from pycni.cni.protocol import Request
from pycni.cni.results import AddResult, render_addresses, render_result
from pycni.cni.standing import holds_addresses, plug_request, require_alike, stands
from pycni.cni.tools import LOCK_TIMEOUT_S, Engine
from pycni.errors import AlreadyExists, DatastoreUnusable, PycniError, TryAgain
from pycni.ipam.books import attachment_of
from pycni.ipam.requests import AssignRequest
from pycni.kernel.netns import sight
from pycni.model.endpoints import (
    AssignedAddress,
    Delegation,
    EndpointKey,
    EndpointState,
    PendingRelease,
    WorkloadEndpoint,
)
from pycni.plan.ownership import alias_of
from pycni.ports import PlugRequest, PlugResult

R = TypeVar("R")

_log = logging.getLogger(__name__)

DISPLACE_TIMEOUT_S = 2.0
WORK_TIMEOUT_S = 25.0
"""Counted from the moment at which the lock is held: waiting does not eat into the work."""


# --- ADD ----------------------------------------------------------------------------------------


async def add(
    engine: Engine,
    request: Request,
    *,
    netns_fd: int,
    is_abandoned: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Give one pod its interface and address; return the result document."""
    async with engine.endpoints.lock(request.key, timeout_s=LOCK_TIMEOUT_S):
        if is_abandoned():
            raise TryAgain(f"the caller of ADD {request.key} is gone")
        endpoint = await _in_time(request.key, _ensure(engine, request, netns_fd=netns_fd))
    return _result(request, endpoint)


async def _ensure(engine: Engine, request: Request, *, netns_fd: int) -> WorkloadEndpoint:
    if request.delegation is not None:
        delegated.find(request.delegation)  # before anything is done
    existing = await _existing(engine, request, netns_fd=netns_fd)
    return existing or await _make(engine, request, netns_fd=netns_fd)


async def _existing(engine: Engine, request: Request, *, netns_fd: int) -> WorkloadEndpoint | None:
    """Return the endpoint of a repeated ADD, mended; remove what an unfinished one left behind."""
    record = _known(engine, request)
    if record is not None and record.state is EndpointState.READY:
        require_alike(request, record, netns_fd=netns_fd)
        if stands(engine, request, record, netns_fd=netns_fd):
            return record
        is_ours = record.has_interface and not request.config.is_ipam
        if is_ours and await holds_addresses(engine, record):
            return await _rebuild(engine, request, record, netns_fd=netns_fd)
    if record is not None:
        await remove(engine, record)
    # Last: what could not be released just now is a debt, too, and paid later it would take the
    # new address away.
    await settle(engine, request.key)
    return None


async def _rebuild(
    engine: Engine, request: Request, record: WorkloadEndpoint, *, netns_fd: int
) -> WorkloadEndpoint:
    """Make the interface of a repeated ADD anew; the pod keeps its addresses."""
    # Unfinished: or the agent would mend the interface while it is being deleted.
    endpoint = replace(record, state=EndpointState.INTENT, netns=request.netns)
    engine.endpoints.put(endpoint)
    await _unplug(engine, endpoint)
    return await _build(
        engine,
        request,
        endpoint,
        addresses=record.addresses,
        delegation=record.delegation,
        netns_fd=netns_fd,
    )


def _known(engine: Engine, request: Request) -> WorkloadEndpoint | None:
    """Return the record; of a damaged one, what can be told without it."""
    try:
        return engine.endpoints.get(request.key)
    except DatastoreUnusable as exc:
        _log.warning("a record is damaged, going on without", extra={"reason": str(exc)})
        return _guess(engine, request)


async def _make(engine: Engine, request: Request, *, netns_fd: int) -> WorkloadEndpoint:
    """Intent, then address, interface and record: undo all of it when one fails."""
    endpoint = await _intent(engine, request, netns_fd=netns_fd)
    engine.endpoints.put(endpoint)
    try:
        addresses, delegation = await _assign(engine, request)
    except BaseException:
        await _undo(engine, endpoint, is_plugged=False)
        raise
    # A crash from here on leaves the intent: whoever finds it releases by the handle.
    return await _build(
        engine, request, endpoint, addresses=addresses, delegation=delegation, netns_fd=netns_fd
    )


async def _build(
    engine: Engine,
    request: Request,
    intent: WorkloadEndpoint,
    *,
    addresses: tuple[AssignedAddress, ...],
    delegation: Delegation | None,
    netns_fd: int,
) -> WorkloadEndpoint:
    """Make the interface of an endpoint that has been given its addresses; complete its record."""
    built = PlugResult(host_mac="", pod_mac="")
    is_plugged = False
    try:
        if intent.has_interface:
            plug = plug_request(engine, request, intent, addresses=addresses, netns_fd=netns_fd)
            built = await _plug(engine, intent, plug)
            is_plugged = True
        endpoint = replace(
            intent,
            state=EndpointState.READY,
            addresses=addresses,
            delegation=delegation,
            host_mac=built.host_mac,
            pod_mac=built.pod_mac,
        )
        engine.endpoints.put(endpoint)
    except BaseException:
        owing = replace(intent, addresses=addresses, delegation=delegation)
        await _undo(engine, owing, is_plugged=is_plugged)
        raise
    return endpoint


async def _intent(engine: Engine, request: Request, *, netns_fd: int) -> WorkloadEndpoint:
    """Return the record of what an ADD is about to make."""
    endpoint = _guess(engine, request)
    has_interface = endpoint.has_interface
    return replace(
        endpoint,
        mtu=(request.config.mtu or await engine.default_mtu()) if has_interface else 0,
        pod_mac=request.wishes.mac if has_interface else "",
        pod_namespace=request.args.pod_namespace,
        pod_name=request.args.pod_name,
        sight=None if has_interface else sight(request.netns, netns_fd),
    )


async def _assign(
    engine: Engine, request: Request
) -> tuple[tuple[AssignedAddress, ...], Delegation | None]:
    """Have addresses given, of our own blocks or by another IPAM plugin."""
    if request.delegation is not None:
        is_own = engine.podnet.has_address
        return await delegated.assign(request, request.delegation, is_own=is_own)
    assignment = await engine.allocator.assign(_assign_request(engine, request))
    addresses = assignment.addresses
    match request.config.subnet:
        case Subnet.POOL:
            addresses = await gateways.with_prefixes(engine, assignment)
        case Subnet.BLOCK:
            addresses = await gateways.with_gateways(engine, request, assignment)
        case Subnet.NONE:
            pass
    return addresses, None


async def _undo(engine: Engine, endpoint: WorkloadEndpoint, *, is_plugged: bool) -> None:
    """Take back what an ADD has done, each step though the one before it failed."""
    try:
        if is_plugged:
            await _unplug(engine, endpoint)
    finally:
        # Of another plugin's address nobody knows but by the record: it stays until that is back.
        is_owed = endpoint.delegation is not None
        try:
            # By the handle: an assignment that fails may leave something as well.
            await _release(engine, endpoint, ())
            is_owed = False
        except PycniError as exc:
            _log.warning("an address is not given back yet", extra={"reason": str(exc)})
        finally:
            if not is_owed:
                engine.endpoints.remove(endpoint.key)


async def _plug(engine: Engine, endpoint: WorkloadEndpoint, plug: PlugRequest) -> PlugResult:
    """Build the interface; an older sandbox of the same pod, whose DEL is late, gives way."""
    try:
        return engine.podnet.plug(plug)
    except AlreadyExists:
        if not await _displace(engine, endpoint):
            raise
    return engine.podnet.plug(plug)


async def _displace(engine: Engine, newcomer: WorkloadEndpoint) -> bool:
    """Take the interface of that name from the pod's earlier sandbox; say whether there was one.

    Both have the same host interface, because its name follows from the pod's.  The earlier
    record becomes unfinished, so that nobody mends the interface, and keeps its addresses until
    its own DEL.
    """
    pod = (newcomer.pod_namespace, newcomer.pod_name)
    records, _ = engine.endpoints.readable()
    for earlier in records:
        is_same_pod = pod == (earlier.pod_namespace, earlier.pod_name) and newcomer.pod_name
        if earlier.key.container_id == newcomer.key.container_id or not is_same_pod:
            continue  # another interface of the same sandbox is nobody's leftover
        if earlier.host_veth != newcomer.host_veth:
            continue
        # Briefly only: two sandboxes that displace each other must not wait for each other.
        async with engine.endpoints.lock(earlier.key, timeout_s=DISPLACE_TIMEOUT_S):
            # Its own DEL may have ended meanwhile, and must not be undone.
            if (record := engine.endpoints.get(earlier.key)) is not None:
                engine.endpoints.put(replace(record, state=EndpointState.INTENT))
            await _unplug(engine, earlier)
        return True
    return False


def _assign_request(engine: Engine, request: Request) -> AssignRequest:
    now = datetime.fromtimestamp(engine.clock(), UTC).isoformat(" ", "microseconds")
    attributes = {
        # Exactly whose it is: names may hold dots, so a handle's text alone would not tell.
        **dict(attachment_of(request.key)),
        "node": engine.node,
        # Go's spelling of the zone.
        "timestamp": f"{now.removesuffix('+00:00')} +0000 UTC",
    }
    if request.config.is_ipam:
        # A lost record is no dead pod, and nothing in the kernel says that this one is ours.
        attributes["netns"] = request.netns
    if request.args.pod_name:
        attributes |= {"namespace": request.args.pod_namespace, "pod": request.args.pod_name}
    addresses = request.wishes.addresses
    versions = tuple(address.version for address in addresses) or request.config.versions
    return AssignRequest(
        handle_id=request.handle_id,
        attributes=tuple(attributes.items()),
        versions=versions,
        ipv4_pools=request.config.ipv4_pools,
        ipv6_pools=request.config.ipv6_pools,
        addresses=addresses,
        # A record may be lost (a reboot empties its directory) while the address is still held.
        is_first=True,
    )


def _result(request: Request, endpoint: WorkloadEndpoint) -> dict[str, Any]:
    if not endpoint.has_interface:
        return render_addresses(
            endpoint.addresses,
            routes=request.config.routes,
            dns=request.wishes.dns or request.config.dns,
            version=request.config.cni_version,
        )
    result = AddResult(
        host_veth=endpoint.host_veth,
        host_mac=endpoint.host_mac,
        ifname=request.ifname,
        pod_mac=endpoint.pod_mac,
        netns=request.netns,
        mtu=endpoint.mtu,
        addresses=[a.interface.ip for a in endpoint.addresses],
        has_default_route=request.config.has_default_route,
        dns=request.wishes.dns or request.config.dns,
        previous=request.config.prev_result,
    )
    return render_result(result, version=request.config.cni_version)


# --- DEL ----------------------------------------------------------------------------------------


async def delete(
    engine: Engine, request: Request, *, is_abandoned: Callable[[], bool] = lambda: False
) -> None:
    """Take everything back that an ADD gave; nothing there is success."""
    async with engine.endpoints.lock(request.key, timeout_s=LOCK_TIMEOUT_S):
        if is_abandoned():
            raise TryAgain(f"the caller of DEL {request.key} is gone")
        record = _to_delete(engine, request)
        await _in_time(request.key, remove(engine, record))


def _to_delete(engine: Engine, request: Request) -> WorkloadEndpoint:
    """Return the record, or a guess; how to ask another IPAM plugin, the runtime says last."""
    record = _known(engine, request) or _guess(engine, request)
    before, now = record.delegation, request.delegation
    # Another plugin than then has not given the address.
    is_same = before is not None and now is not None and before.plugin == now.plugin
    return replace(record, delegation=now) if is_same else record


def _guess(engine: Engine, request: Request) -> WorkloadEndpoint:
    """Return what a lost record would have said: names follow from the request."""
    return WorkloadEndpoint(
        key=request.key,
        node=engine.node,
        netns=request.netns,
        host_veth=request.host_veth,
        handle_id=request.handle_id,
        state=EndpointState.INTENT,
        delegation=request.delegation,
    )


async def remove(engine: Engine, endpoint: WorkloadEndpoint) -> None:
    """Remove interface, then addresses, then record; what fails to be released is journalled.

    The interface goes first: were the address free before, another pod could get it while the
    old route still leads here.
    """
    if endpoint.state is EndpointState.READY:
        # Unfinished again: or the agent would mend the interface while it is being deleted.
        engine.endpoints.put(replace(endpoint, state=EndpointState.INTENT))
    await _unplug(engine, endpoint)
    await _release(engine, endpoint, endpoint.addresses, was_used=True)
    engine.endpoints.remove(endpoint.key)


async def _unplug(engine: Engine, endpoint: WorkloadEndpoint) -> None:
    if endpoint.has_interface:
        await engine.podnet.unplug(host_veth=endpoint.host_veth, alias=alias_of(endpoint.key))


async def _release(
    engine: Engine,
    endpoint: WorkloadEndpoint,
    addresses: Sequence[AssignedAddress],
    *,
    was_used: bool = False,
) -> None:
    """Release, or keep the debt in the journal: a DEL never fails for the datastore's sake.

    Another plugin's failure is the DEL's: a runtime repeats it, and nobody else has the means.
    """
    if endpoint.delegation is not None:
        await delegated.release(endpoint, endpoint.delegation)
        return
    try:
        # Whatever else the handle holds or counts, too: what a crash between two writes left.
        await engine.allocator.release_by_handle(
            endpoint.handle_id, key=endpoint.key, addresses=addresses, was_used=was_used
        )
    except PycniError as exc:
        _log.warning(
            "cannot release addresses now, journalled",
            extra={"endpoint": str(endpoint.key), "reason": str(exc)},
        )
        engine.endpoints.journal(
            PendingRelease(endpoint.key, handle_id=endpoint.handle_id, addresses=tuple(addresses))
        )


async def _in_time(key: EndpointKey, work: Awaitable[R]) -> R:
    """Turn a time-out of the work into "try again later"."""
    try:
        async with asyncio.timeout(WORK_TIMEOUT_S):
            return await work
    except TimeoutError as exc:
        raise TryAgain(f"the work for {key} took over {WORK_TIMEOUT_S:g} s: try again") from exc
