"""What both engines share: the steps of ADD and DEL, with undo.

The CNI server and the in-process engine run these same functions over the same files, locks and
datastore.  Order is everything here: the intent record is written before the first effect, each
step that took effect is undone when a later one fails, and a DEL goes on past errors and keeps in
the journal what it could not release.  Every step may be the last one before a crash; the record
then tells the next ADD, DEL, GC or the agent what may have been left behind.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pycni.cni import delegated, gateways
from pycni.cni.debts import settle
from pycni.cni.protocol import Request
from pycni.cni.removal import release, remove, unplug
from pycni.cni.results import AddResult, render_addresses, render_result
from pycni.cni.standing import holds_addresses, plug_request, require_alike, stands
from pycni.cni.tools import LOCK_TIMEOUT_S, Engine
from pycni.errors import AlreadyExists, DatastoreUnusable, PycniError, TryAgain
from pycni.ipam.books import attachment_of
from pycni.ipam.requests import AssignRequest
from pycni.kernel.netns import sight
from pycni.leaving import REFUSAL
from pycni.model.endpoints import (
    AssignedAddress,
    Delegation,
    EndpointKey,
    EndpointState,
    Subnet,
    WorkloadEndpoint,
)
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
    _require_member(engine)
    async with engine.endpoints.lock(request.key, timeout_s=LOCK_TIMEOUT_S):
        if is_abandoned():
            raise TryAgain(f"the caller of ADD {request.key} is gone")
        endpoint = await _in_time(request.key, _ensure(engine, request, netns_fd=netns_fd))
    return _result(request, endpoint)


def _require_member(engine: Engine) -> None:
    if engine.is_leaving():
        raise TryAgain(REFUSAL)


async def _ensure(engine: Engine, request: Request, *, netns_fd: int) -> WorkloadEndpoint:
    if request.delegation is not None:
        delegated.find(request.delegation)  # before anything is done
    existing = await _existing(engine, request, netns_fd=netns_fd)
    return existing or await _make(engine, request, netns_fd=netns_fd)


async def _existing(engine: Engine, request: Request, *, netns_fd: int) -> WorkloadEndpoint | None:
    """Return the endpoint of a repeated ADD, mended; remove what an unfinished one left behind."""
    record = _known(engine, request)
    if (
        record is not None
        and record.state is EndpointState.READY
        # A DEL that nobody served owes the interface as well, however well that looks.
        and engine.endpoints.get_pending(request.key) is None
    ):
        require_alike(request, record, netns_fd=netns_fd)
        # Another plugin's books are its own: it has given them until it is told to take them back.
        is_lent = record.delegation is not None
        # Else another pod may have them by now, however well this one's interface looks.
        if is_lent or await holds_addresses(engine, record):
            if stands(engine, request, record, netns_fd=netns_fd):
                return record
            if record.has_interface and not (request.config.is_ipam or is_lent):
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
    await unplug(engine, endpoint)
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
        # Again, now that whoever takes leave sees our record.
        _require_member(engine)
        addresses, delegation = await _assign(engine, request)
    except BaseException:
        await _undo(engine, endpoint, may_be_plugged=False)
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
    try:
        if intent.has_interface:
            plug = plug_request(engine, request, intent, addresses=addresses, netns_fd=netns_fd)
            built = await _plug(engine, intent, plug)
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
        await _undo(engine, owing, may_be_plugged=True)
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


async def _undo(engine: Engine, endpoint: WorkloadEndpoint, *, may_be_plugged: bool) -> None:
    """Take back what an ADD has done, as `remove` does.

    What can't be taken back now keeps all that comes after it: nobody is to get the address of an
    interface that is still there, and whoever goes on knows of both by the record alone.
    """
    try:
        if may_be_plugged:
            await unplug(engine, endpoint)
        # By the handle: an assignment that fails may leave something as well.
        await release(engine, endpoint, ())
        engine.endpoints.remove(endpoint.key)
    except (PycniError, OSError) as exc:
        _log.warning(
            "an ADD is not undone yet",
            extra={"endpoint": str(endpoint.key), "reason": str(exc)},
        )


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
            await unplug(engine, earlier)
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
        subnet=request.config.subnet,
        beside=gateways.beside(request, node=engine.node),
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
    return replace(record, delegation=delegated.latest(record, request))


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


async def _in_time(key: EndpointKey, work: Awaitable[R]) -> R:
    """Turn a time-out of the work into "try again later"."""
    try:
        async with asyncio.timeout(WORK_TIMEOUT_S):
            return await work
    except TimeoutError as exc:
        raise TryAgain(f"the work for {key} took over {WORK_TIMEOUT_S:g} s: try again") from exc
